import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import isnas_jax as isnas
from isnas_jax import registries
from isnas_jax.searching import lower_scores
from isnas_jax.searching._shared_forward import Shared, forward

GENOTYPES = [isnas.Genotype(60, "0" * 25), isnas.Genotype(60, "1" * 25)]
NETS = [isnas.build_network(genotype, out_channels=1, channels=8) for genotype in GENOTYPES]


def new_key():
    return jax.random.key(7)


@pytest.fixture(scope="module")
def problem():
    image = jax.random.uniform(jax.random.key(1), (40, 64, 1))
    return isnas.inpainting(image, jax.random.bernoulli(jax.random.key(2), 0.5, (40, 64)))


@pytest.mark.thorough
def test_scores_are_metrics_of_the_operator_of_random_outputs(problem):
    names = ("psd_db_strip_mse", "psd_99_bw")
    metrics = {name: registries.METRICS[name] for name in names}
    scores = isnas.score(new_key(), NETS, problem, metrics, isnas.RandomInits(2))
    for row, net in enumerate(NETS):
        outputs = isnas.random_outputs(new_key(), net, problem.shape, isnas.RandomInits(2))
        assert outputs.shape == (2, 40, 64, 1)
        for name in names:
            expected = [metrics[name](problem.observed, problem.operator(x)) for x in outputs]
            np.testing.assert_allclose(scores[name][row], expected, rtol=1e-4)
    assert len(np.unique(scores["psd_db_strip_mse"])) == 4


@pytest.mark.thorough
@pytest.mark.parametrize("indices", [(46,), (5, 200, 316)])
def test_shared_computation_changes_nothing(indices):
    """Encoders, chains and cells that genotypes share equal those of each network alone."""
    skips = ("1" * 25, "0000011001001001100111101", "1101111101110011000011110")
    key, shared = jax.random.key(3), None
    for cell in indices:
        for bits in skips:
            net = isnas.build_network(isnas.Genotype(cell, bits), out_channels=1, channels=16)
            shared = shared or Shared(key, jax.random.uniform(new_key(), (1, 64, 64, 1)))
            single, _ = net.init_with_output(key, shared.z)
            np.testing.assert_allclose(forward(net, shared), single, atol=2e-5)
    assert len(shared.of_cell.results) < 20
    assert len(shared.common.results) < 25


@pytest.mark.thorough
def test_more_initializations_in_one_batch_score_the_same(problem):
    metrics = {"m": isnas.psd_db_strip_mse}
    nets = [
        tiny.SPACE.build(genotype, out_channels=1, channels=4) for genotype in tiny.GENOTYPES[:2]
    ]
    single, batch = (
        isnas.score(new_key(), nets, problem, metrics, isnas.RandomInits(2, batch=batch))
        for batch in (1, 2)
    )
    np.testing.assert_allclose(single["m"], batch["m"], rtol=1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize("inits", [isnas.RandomInits(1), isnas.RandomInits(3, batch=2)])
def test_genotypes_of_a_cell_in_batches_score_the_same(problem, small_network, inits):
    metrics = {name: registries.METRICS[name] for name in ("psd_db_strip_mse", "psd_99_bw")}
    genotypes = [*GENOTYPES, isnas.Genotype(60, "0000011001001001100111101")]
    nets = [isnas.build_network(genotype, out_channels=1, channels=8) for genotype in genotypes]
    nets.insert(2, small_network(in_channels=5))
    single = isnas.score(new_key(), nets, problem, metrics, inits)
    events = []
    batched = isnas.score(
        new_key(), nets, problem, metrics, inits, batched=True, progress=events.append
    )
    for name in metrics:
        np.testing.assert_allclose(batched[name], single[name], rtol=1e-3)
    done = [event.done for event in events]
    assert done == sorted(done)
    assert events[-1].done == events[-1].total == 4 * inits.num


@pytest.mark.thorough
@pytest.mark.parametrize("cell", [5, 53, 86, 100, 150, 172, 200, 260, 316])
def test_the_program_of_a_cell_scores_as_its_networks_do(problem, cell):
    """One cell of each kind."""
    nets = [
        isnas.build_network(isnas.Genotype(cell, skips), out_channels=1, channels=16)
        for skips in ("0000011001001001100111101", "1101111101110011000011110")
    ]
    metrics = {"m": isnas.psd_db_strip_mse}
    single, batched = (
        isnas.score(new_key(), nets, problem, metrics, batched=batched) for batched in (False, True)
    )
    np.testing.assert_allclose(batched["m"], single["m"], rtol=1e-4)


@pytest.mark.parametrize("platform", ["cuda", pytest.param("tpu", marks=pytest.mark.thorough)])
def test_scores_for_accelerators_have_full_precision_and_no_call_of_a_cpu_library(platform):
    net = isnas.build_network(
        isnas.Genotype(172, "1" * 25),
        out_channels=1,
        channels=32,
        numerics=isnas.Numerics("conv"),
    )
    metrics = {name: registries.METRICS[name] for name in ("psd_db_strip_mse", "psd_99_bw")}
    problem = isnas.denoising(jnp.zeros((32, 32, 1)))
    lowered = lower_scores(net, problem, metrics, platform, genotypes=2, inits=3)
    lines = lowered.as_text().splitlines()
    convolutions = [line for line in lines if "stablehlo.convolution" in line]
    # A forward pass has as many. On a CPU they would be matrix products.
    assert len(convolutions) > 30
    for line in lines:
        if "stablehlo.convolution" in line or "stablehlo.dot_general" in line:
            assert line.count("HIGHEST") == 2, line
        assert "custom_call" not in line or "@Sharding" in line, line
    assert {str(value.shape) for value in lowered.out_info.values()} == {"(2, 3)"}


def test_order_of_genotypes_does_not_matter(problem):
    metrics = {"m": isnas.psd_99_bw}
    forward_order, reverse = (
        isnas.score(new_key(), nets, problem, metrics)["m"] for nets in (NETS, NETS[::-1])
    )
    np.testing.assert_array_equal(forward_order, reverse[::-1])


@pytest.mark.thorough
def test_vectorized_and_single_outputs_agree(problem):
    net = NETS[1]
    single, batch = (
        isnas.random_outputs(new_key(), net, problem.shape, isnas.RandomInits(3, batch=batch))
        for batch in (1, 3)
    )
    np.testing.assert_allclose(single, batch, atol=1e-5)
    np.testing.assert_array_equal(
        single[:2],
        isnas.random_outputs(new_key(), net, problem.shape, isnas.RandomInits(2, batch=1)),
    )


def test_shared_weights_vary_less_than_fresh_ones(problem):
    def spread(shared_weights):
        outputs = isnas.random_outputs(
            new_key(), NETS[1], problem.shape, isnas.RandomInits(4, shared_weights)
        )
        return float(jnp.std(outputs.mean(axis=(1, 2, 3))))

    assert 0 < spread(True) < 0.2 * spread(False)


def test_finished_blocks_are_not_computed_again(problem, tmp_path, monkeypatch):
    monkeypatch.setattr("isnas_jax.searching.scoring.BLOCK", 1)
    metrics = {"m": isnas.psd_db_mse}
    events = []
    first, again = (
        isnas.score(new_key(), NETS, problem, metrics, folder=tmp_path, progress=events.append)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first["m"], again["m"])
    assert [(event.stage, event.done, event.total) for event in events] == [
        (("score",), 1, 2),
        (("score",), 2, 2),
    ]
    brighter = isnas.denoising(problem.observed + 0.1)
    other = isnas.score(new_key(), NETS, brighter, metrics, folder=tmp_path)["m"]
    np.testing.assert_array_equal(other, isnas.score(new_key(), NETS, brighter, metrics)["m"])


@pytest.mark.thorough
@pytest.mark.parametrize("setting", ["rank", "x64"])
def test_networks_and_metrics_trace_under_strict_settings(setting):
    """Trace the values and gradients of all blocks, and every metric."""
    config = {
        "rank": lambda: jax.numpy_rank_promotion("raise"),
        "x64": lambda: jax.enable_x64(True),
    }
    image = np.zeros((64, 64, 3), np.float32)
    with config[setting]():
        for metric in (*registries.METRICS.values(), *registries.PUBLISHED_METRICS.values()):
            assert jax.eval_shape(metric, image, image).shape == ()
        for numerics in (isnas.Numerics("matmul"), isnas.Numerics("conv")):
            for architecture in (*(isnas.Genotype(c, "1" * 25) for c in (38, 60, 315)), isnas.dip):
                net = isnas.build_network(
                    architecture, out_channels=3, channels=8, numerics=numerics
                )
                z = jax.ShapeDtypeStruct((1, 64, 64, net.in_channels), np.float32)
                variables = jax.eval_shape(net.lazy_init, new_key(), z)

                def total(variables, z, net=net):
                    return jnp.square(net.apply(variables, z)).mean()

                for leaf in jax.tree.leaves(jax.eval_shape(jax.grad(total), variables, z)):
                    assert leaf.dtype == np.float32


def test_scores_do_not_depend_on_64_bits(problem, small_network):
    nets, metrics = [small_network()], {n: registries.METRICS[n] for n in ("psd_db_mse", "random")}
    plain = isnas.score(new_key(), nets, problem, metrics)
    with jax.enable_x64(True):
        wide = isnas.score(new_key(), nets, problem, metrics)
        drawn = isnas.free_space.sample(new_key(), 3, 128)
    assert drawn == isnas.free_space.sample(new_key(), 3, 128)
    for name in metrics:
        np.testing.assert_array_equal(wide[name], plain[name])


def test_invalid_arguments_raise(problem, small_network):
    nets, metrics = [small_network()], {"m": isnas.psd_db_strip_mse}
    small = isnas.denoising(np.zeros((8, 4, 1)))
    for arguments, message in (
        ((7, nets, problem, metrics), r"jax\.random\.key\(7\)"),
        ((new_key(), [], problem, metrics), "at least one"),
        ((new_key(), ["dip"], problem, metrics), "'dip' is not a Flax module"),
        ((new_key(), nets, problem, ["psd_db_mse"]), "dictionary of at least one function by name"),
        ((new_key(), nets, problem, {"m": "psd_db_mse"}), "dictionary of at least one function"),
        ((new_key(), nets, problem, {}), "dictionary of at least one function"),
        ((new_key(), nets, small, metrics), "8 x 4 have no frequencies.*smallest side is 11"),
    ):
        with pytest.raises(ValueError, match=message):
            isnas.score(*arguments)
    with pytest.raises(
        ValueError, match=r"is a text; pass a genotype, such as isnas_jax\.Genotype\.parse"
    ):
        isnas.build_network(str(GENOTYPES[0]), out_channels=1)
    with pytest.raises(ValueError, match="is not a genotype of this space"):
        isnas.build_network(nets[0], out_channels=1)


def test_networks_of_any_kind_are_scored(problem, small_network):
    metrics = {"m": isnas.psd_db_mse}
    nets = [small_network(in_channels=5), NETS[0]]
    scores = isnas.score(new_key(), nets, problem, metrics)["m"]
    output = isnas.random_outputs(new_key(), nets[0], problem.shape)[0]
    assert scores[0, 0] == pytest.approx(float(metrics["m"](problem.observed, output)), rel=1e-4)
    assert scores[1, 0] == pytest.approx(isnas.score(new_key(), NETS, problem, metrics)["m"][0, 0])


def test_a_metric_that_returns_no_scalar_is_refused(problem):
    metrics = {"spread": lambda observed, output: output.std(axis=(0, 1))}
    with pytest.raises(ValueError, match=r"'spread' returns .*shape=\(1,\).*must return a scalar"):
        isnas.score(new_key(), NETS, problem, metrics)
