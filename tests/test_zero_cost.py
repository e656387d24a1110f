"""Test zero-cost proxies by their definitions and by identities of their papers."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import isnas_jax as isnas
from isnas_jax import study
from isnas_jax.fitting import draw_noise_map
from isnas_jax.networks import module_calls
from isnas_jax.networks.blocks import BatchNorm, Conv, ConvBlock
from isnas_jax.searching import feature_proxies, score_problems, zero_cost

SIDE = 16


def new_key():
    return jax.random.key(17)


class Small(nn.Module):
    """Two blocks, called as the levels of a decoder, and an output layer."""

    channels: int = 4
    in_channels: int = 2
    out_channels: int = 1

    @nn.compact
    def __call__(self, x):
        x = ConvBlock(self.channels, 3, name="dec2")(x)
        x = ConvBlock(self.channels, 3, name="dec1")(x)
        return nn.sigmoid(Conv(self.out_channels, name="output")(x))


@pytest.fixture(scope="module")
def problem():
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    clean = jnp.asarray(0.5 + 0.3 * np.sin(7 * x + 3 * y), jnp.float32)[..., None]
    return isnas.add_noise(new_key(), clean, sigma=25.0)


@pytest.fixture(scope="module")
def untrained():
    """Return a network, its variables and a noise map."""
    z = 0.1 * jax.random.uniform(new_key(), (1, SIDE, SIDE, 2), jnp.float32)
    return Small(), Small().init(jax.random.key(3), z), z


def measure(metric, untrained, problem):
    net, variables, z = untrained
    return float(metric(new_key(), net, variables, z, problem))


def gradient(untrained, problem):
    """The gradient of the loss, written out, as one vector, and the parameters."""
    net, variables, z = untrained

    def loss(values):
        image = net.apply(values, z)[0]
        return (problem.weights * (image - problem.observed) ** 2).mean()

    return jax.grad(loss)(variables)


def leaves(tree):
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]


def scaled(untrained, module, factor):
    """Scale all parameters of a module."""
    net, variables, z = untrained
    params = dict(variables["params"])
    for name in module[:-1]:
        params[name] = dict(params[name])
    inner = params
    for name in module[:-1]:
        inner = inner[name]
    inner[module[-1]] = jax.tree.map(lambda leaf: factor * leaf, inner[module[-1]])
    return net, {"params": params}, z


def test_calls_are_those_of_the_modules(untrained):
    net, variables, z = untrained
    output, calls = module_calls(net, variables, z)
    np.testing.assert_array_equal(output, net.apply(variables, z))
    paths = [call.path for call in calls]
    assert paths[:3] == [("dec2", "conv"), ("dec2", "norm"), ("dec2",)]
    np.testing.assert_array_equal(jax.nn.sigmoid(calls[-2].output), output)
    zeroed, _ = module_calls(net, variables, z, lambda module, x, output: 0 * output)
    assert (zeroed == 0).all()


def test_parameters_are_counted(untrained, problem):
    # Kernels, biases, scales and biases of normalizations.
    count = (9 * 2 * 4 + 4 + 8) + (9 * 4 * 4 + 4 + 8) + (4 + 1)
    assert measure(zero_cost.parameters, untrained, problem) == -count


def test_gradient_proxies_follow_their_formulas(untrained, problem):
    values, gradients = leaves(untrained[1]), leaves(gradient(untrained, problem))
    norms = sum(np.linalg.norm(g) for g in gradients)
    assert measure(zero_cost.grad_norm, untrained, problem) == pytest.approx(-norms, rel=1e-5)
    saliency = sum(np.abs(p * g).sum() for p, g in zip(values, gradients, strict=True))
    assert measure(zero_cost.snip, untrained, problem) == pytest.approx(-saliency, rel=1e-5)


def test_grasp_is_a_difference_of_gradients(untrained, problem):
    net, variables, z = untrained
    direction = gradient(untrained, problem)
    step = 0.05

    def moved(sign):
        values = jax.tree.map(lambda p, g: p + sign * step * g, variables, direction)
        return leaves(gradient((net, values, z), problem))

    difference = [(a - b) / (2 * step) for a, b in zip(moved(1), moved(-1), strict=True)]
    expected = sum((p * d).sum() for p, d in zip(leaves(variables), difference, strict=True))
    assert measure(zero_cost.grasp, untrained, problem) == pytest.approx(expected, rel=0.02)


def test_fisher_is_the_gradient_by_the_gains_of_channels(untrained, problem):
    net, variables, z = untrained

    def loss(gains):
        gains = iter(gains)

        def amplify(module, x, output):
            return output * next(gains) if isinstance(module, ConvBlock) else output

        return problem.loss(module_calls(net, variables, z, amplify)[0][0])

    gradients = jax.grad(loss)([jnp.ones(4, jnp.float32)] * 2)
    expected = -sum(np.square(g).sum() / 2 for g in leaves(gradients))
    assert measure(zero_cost.fisher, untrained, problem) == pytest.approx(expected, rel=1e-4)


def test_synflow_grows_with_the_last_layer_and_ignores_signs(untrained, problem):
    value = measure(zero_cost.synflow, untrained, problem)
    larger = scaled(untrained, ["output"], 3.0)
    expected = value - np.log(3)
    assert measure(zero_cost.synflow, larger, problem) == pytest.approx(expected, abs=1e-4)
    # Without normalizations, an earlier layer counts too.
    assert (
        measure(zero_cost.synflow, scaled(untrained, ["dec1", "conv"], 3.0), problem) < value - 0.5
    )
    # The sum of parameters times gradients is the derivative by the scale of all magnitudes.
    net, variables, z = untrained

    def flow(scale):
        values = jax.tree.map(lambda leaf: scale * jnp.abs(leaf), variables)
        _, calls = module_calls(
            net, values, jnp.ones_like(z), lambda m, x, y: x if isinstance(m, BatchNorm) else y
        )
        return float(zero_cost.last_layer(calls).output.sum())

    derivative = (flow(1.01) - flow(0.99)) / 0.02
    assert value == pytest.approx(-np.log(derivative), abs=0.01)
    negated = scaled(untrained, ["dec1", "conv"], -1.0)
    assert measure(zero_cost.synflow, negated, problem) == pytest.approx(value, abs=1e-5)


def test_zico_ignores_the_scale_of_the_loss(untrained, problem):
    value = measure(zero_cost.zico, untrained, problem)
    heavier = dataclasses.replace(problem, weights=4 * problem.weights)
    assert measure(zero_cost.zico, untrained, heavier) == pytest.approx(value, rel=1e-3)
    louder = dataclasses.replace(problem, sigma=4 * problem.sigma)
    assert measure(zero_cost.zico, untrained, louder) > value  # gradients vary more
    unknown = dataclasses.replace(problem, sigma=None)
    assert measure(zero_cost.zico, untrained, unknown) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("missing", [False, True])
def test_ntk_ratio_follows_from_the_jacobian(untrained, problem, missing):
    net, variables, z = untrained
    if missing:
        mask = np.asarray(problem.observed)[..., 0] > 0.4
        problem = isnas.inpainting(problem.observed, mask)
    jacobian = jax.jacrev(lambda values: net.apply(values, z)[0])(variables)
    rows = np.hstack([leaf.reshape(SIDE * SIDE, -1) for leaf in leaves(jacobian)])
    weights = np.asarray(problem.weights, np.float64)[..., 0]
    observed = np.asarray(problem.observed, np.float64)[..., 0]
    smooth = np.zeros((SIDE, SIDE))
    for i, j in np.ndindex(SIDE, SIDE):
        square = slice(max(0, i - 3), i + 4), slice(max(0, j - 3), j + 4)
        smooth[i, j] = (weights * observed)[square].sum() / weights[square].sum()
    signal = weights * (smooth - (weights * smooth).sum() / weights.sum())
    noise = weights * jax.random.normal(new_key(), (SIDE, SIDE, 1), jnp.float32)[..., 0]

    def speed(vector):
        return np.square(rows.T @ vector.ravel()).sum() / np.square(vector).sum()

    expected = -speed(signal) / speed(np.asarray(noise, np.float64))
    value = measure(zero_cost.ntk_signal_to_noise, untrained, problem)
    assert value == pytest.approx(expected, rel=1e-3)


def test_difference_of_inits_is_scored_like_an_output(untrained, problem):
    net, variables, z = untrained
    init_key, z_key = jax.random.split(new_key())
    other_z = 0.1 * jax.random.uniform(z_key, z.shape, jnp.float32)
    difference = net.apply(variables, z) - net.apply(net.init(init_key, other_z), other_z)
    expected = isnas.psd_db_strip_mse(problem.observed, difference[0])
    value = measure(zero_cost.init_difference_psd, untrained, problem)
    assert value == pytest.approx(float(expected), rel=1e-3)


def test_naswot_is_the_determinant_of_agreements(untrained, problem):
    net, variables, z = untrained
    keys = jax.random.split(new_key(), 7)
    maps = [z, *(0.1 * jax.random.uniform(key, z.shape, jnp.float32) for key in keys)]
    codes = []
    for noise_map in maps:
        _, calls = module_calls(net, variables, noise_map)
        codes.append(
            np.hstack([np.ravel(call.output) > 0 for call in calls if "norm" in call.path])
        )
    kernel = [[(first == second).mean() for second in codes] for first in codes]
    value = measure(feature_proxies.naswot, untrained, problem)
    assert value == pytest.approx(-np.linalg.slogdet(kernel)[1], rel=1e-3)


def test_zen_counts_what_normalization_divides_by(untrained, problem):
    value = measure(feature_proxies.zen, untrained, problem)
    larger = scaled(untrained, ["dec2", "conv"], 5.0)
    # The features stay, up to the epsilon of the normalization.
    expected = value - np.log(5)
    assert measure(feature_proxies.zen, larger, problem) == pytest.approx(expected, abs=0.02)
    net, variables, z = untrained
    x, noise = (jax.random.normal(key, z.shape) for key in jax.random.split(new_key()))
    (_, first), (_, second) = (module_calls(net, variables, v) for v in (x, x + 0.01 * noise))
    distance = np.linalg.norm(
        zero_cost.last_layer(second).input - zero_cost.last_layer(first).input
    )
    deviations = [
        np.sqrt(np.var(np.asarray(call.input, np.float64), axis=(0, 1, 2)).mean())
        for call in first
        if "norm" in call.path
    ]
    expected = -np.log(distance) - np.log(deviations).sum()
    assert value == pytest.approx(expected, abs=0.01)


def test_feature_proxies_of_single_channels(problem):
    net = Small(channels=1)
    z = 0.1 * jax.random.uniform(new_key(), (1, SIDE, SIDE, 2), jnp.float32)
    single = net, net.init(jax.random.key(3), z), z
    # One channel correlates with itself, and has one principal component.
    assert measure(feature_proxies.meco, single, problem) == pytest.approx(-2)
    assert measure(feature_proxies.az_expressivity, single, problem) == pytest.approx(0, abs=1e-5)


def test_feature_proxies_follow_from_singular_values(untrained, problem):
    net, variables, z = untrained
    _, calls = module_calls(net, variables, z)
    smallest, entropies = [], []
    for call in calls:
        if isinstance(call.module, ConvBlock):
            values = np.asarray(call.output, np.float64).reshape(-1, 4)
            smallest.append(np.linalg.eigvalsh(np.corrcoef(values.T))[0])
            parts = np.linalg.svd(values - values.mean(axis=0), compute_uv=False) ** 2
            parts /= parts.sum()
            entropies.append(-(parts * np.log(parts)).sum())
    value = measure(feature_proxies.meco, untrained, problem)
    assert value == pytest.approx(-sum(smallest), rel=1e-3)
    value = measure(feature_proxies.az_expressivity, untrained, problem)
    assert value == pytest.approx(-sum(entropies), rel=1e-3)
    value = measure(feature_proxies.az_progressivity, untrained, problem)
    assert value == pytest.approx(entropies[0] - entropies[1], rel=1e-2, abs=1e-4)


def test_scores_mix_metrics_of_images_and_of_networks(problem):
    nets = [Small(), Small(channels=3)]
    metrics = {
        "snip": isnas.NetworkMetric(zero_cost.snip),
        "naswot": isnas.NetworkMetric(feature_proxies.naswot),
        "psd": isnas.psd_db_mse,
    }
    key, inits = jax.random.key(8), isnas.RandomInits(2)
    scores = isnas.score(key, nets, problem, metrics, inits)
    for row, net in enumerate(nets):
        for index in range(2):
            z_key, init_key = inits.keys(jax.random.clone(key), index)
            z = draw_noise_map(z_key, net, problem.shape)
            untrained = net, net.init(init_key, z), z
            expected = measure(zero_cost.snip, untrained, problem)
            assert scores["snip"][row, index] == pytest.approx(expected, rel=1e-5)
    plain = isnas.score(jax.random.clone(key), nets, problem, {"psd": isnas.psd_db_mse}, inits)
    np.testing.assert_array_equal(scores["psd"], plain["psd"])
    # The draws of a metric differ between initializations.
    assert scores["naswot"].shape == (2, 2)
    assert len(np.unique(scores["naswot"])) == 4


def test_several_problems_are_scored_like_each_alone(problem):
    other = isnas.denoising(problem.observed[::-1], sigma=25.0)
    metrics = {"snip": isnas.NetworkMetric(zero_cost.snip), "psd": isnas.psd_db_mse}
    key, nets, inits = jax.random.key(8), [Small(), Small(channels=3)], isnas.RandomInits(2)
    together = score_problems(key, nets, [problem, other], metrics, inits)
    for each, scores in zip((problem, other), together, strict=True):
        alone = isnas.score(jax.random.clone(key), nets, each, metrics, inits)
        for name in metrics:
            np.testing.assert_allclose(scores[name], alone[name], rtol=1e-6)
    assert not np.allclose(together[0]["psd"], together[1]["psd"])
    smaller = isnas.denoising(problem.observed[:8], sigma=25.0)
    with pytest.raises(ValueError, match="differ"):
        score_problems(jax.random.clone(key), nets, [problem, smaller], metrics)


def test_a_study_refuses_a_metric_of_networks(problem):
    with pytest.raises(ValueError, match="'snip' needs the network"):
        study.Study(
            seed=0,
            cases=[study.Case("waves", problem.observed, problem)],
            genotypes=[],
            baselines=[],
            seeds=range(1),
            network=isnas.NetworkConfig(channels=4),
            fit={"denoising": isnas.FitConfig(1)},
            follow={"denoising": 1},
            metrics={"snip": isnas.NetworkMetric(zero_cost.snip)},
        )
