import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

import isnas_jax as isnas
from isnas_jax.problems import PROXIES, TASKS, CoupledBootstrap, HoldOut

KEY = jax.random.key(3)


@pytest.fixture
def clean():
    return jax.random.uniform(jax.random.key(0), (48, 64, 3))


OPTIONS = {
    "denoising": {"sigma": 25},
    "inpainting": {"missing": 70},
    "super_resolution": {"factor": 2},
}


@pytest.mark.parametrize("task", OPTIONS)
def test_held_out_measurements_are_fitted_or_validate_never_both(clean, task):
    problem = TASKS[task].corrupt(jax.random.key(1), clean, **OPTIONS[task])
    fitted, validation = isnas.hold_out(KEY, problem, 0.1)
    ours, theirs, all_of_them = (np.asarray(p.weights) for p in (fitted, validation, problem))
    np.testing.assert_array_equal(ours + theirs, all_of_them)
    assert (ours * theirs == 0).all()
    assert (theirs > 0).sum() == round(0.1 * (all_of_them > 0).sum())
    # Evenly: each quarter of the image has its part of them, within five standard deviations.
    for rows in np.array_split(theirs, 4):
        expected = theirs.sum() / 4
        assert abs(rows.sum() - expected) < 5 * expected**0.5
    # Together they are the whole problem.
    image = jax.random.uniform(jax.random.key(4), clean.shape)
    whole = np.sum(problem.residual(image))
    np.testing.assert_allclose(
        np.sum(fitted.residual(image)) + np.sum(validation.residual(image)), whole, rtol=1e-5
    )
    other, _ = isnas.hold_out(jax.random.key(5), problem, 0.1)
    assert not np.array_equal(other.weights, fitted.weights)
    again, _ = isnas.hold_out(KEY, problem, 0.1)
    np.testing.assert_array_equal(again.weights, fitted.weights)
    assert PROXIES["crop"](16)(fitted).weights.shape == (16, 16, 1)


@pytest.mark.parametrize("task", OPTIONS)
def test_folds_hold_out_what_others_do_not(clean, task):
    problem = TASKS[task].corrupt(jax.random.key(1), clean, **OPTIONS[task])
    folds = [np.asarray(HoldOut(0.25)(KEY, problem, fold)[1].weights) for fold in range(4)]
    known = np.asarray(problem.weights)
    np.testing.assert_array_equal(sum(folds), known)
    assert max(abs(fold.sum() - known.sum() / 4) for fold in folds) <= 0.75
    with pytest.raises(ValueError, match="fold 5 of"):
        HoldOut(0.25)(KEY, problem, 4)


def test_the_folds_of_the_bootstrap_are_independent():
    noisy = isnas.denoising(jnp.full((200, 200, 1), 0.5), 25)
    noises = [
        np.asarray(CoupledBootstrap()(KEY, noisy, fold)[0].observed - 0.5).ravel()
        for fold in (0, 1, 2)
    ]
    assert np.abs(np.corrcoef(noises) - np.eye(3)).max() < 5 / 200


def test_the_bootstraps_noises_are_independent_and_as_strong_as_said():
    clean = jnp.full((200, 200, 1), 0.5)
    sigma, alpha = 25, 0.15
    noisy = isnas.denoising(clean + sigma / 255 * jax.random.normal(KEY, clean.shape), sigma)
    fitted, validation = CoupledBootstrap(alpha)(jax.random.key(8), noisy)
    noises = [np.asarray(p.observed - clean).ravel() * 255 for p in (fitted, validation)]
    expected = [sigma * (1 + alpha) ** 0.5, sigma * (1 + 1 / alpha) ** 0.5]
    np.testing.assert_allclose([noise.std() for noise in noises], expected, rtol=0.02)
    np.testing.assert_allclose([fitted.sigma, validation.sigma], expected, rtol=1e-6)
    assert abs(np.corrcoef(*noises)[0, 1]) < 5 / 200
    # The two give back the observation: (y1 + alpha y2) / (1 + alpha).
    both = (fitted.observed + alpha * validation.observed) / (1 + alpha)
    np.testing.assert_allclose(both, noisy.observed, atol=1e-6)


def test_validation_error_is_an_unbiased_measure_of_the_distance_to_the_clean_image():
    """For an image made of the fitted part: its error less the noise is its distance squared."""
    clean = jnp.tile(jnp.linspace(0.2, 0.8, 200)[:, None, None], (1, 200, 1))
    noise = 25 / 255 * jax.random.normal(KEY, clean.shape)
    problem = isnas.denoising(clean + noise, 25)
    for split, strength in ((HoldOut(0.3), 1), (CoupledBootstrap(0.5), 3)):
        fitted, validation = split(jax.random.key(9), problem)
        # An average over columns, of what is fitted alone.
        weights = jnp.broadcast_to(fitted.weights, clean.shape)
        rows = (weights * fitted.observed).sum(1, keepdims=True) / weights.sum(1, keepdims=True)
        image = jnp.broadcast_to(rows, clean.shape) + 0.05
        expected = np.square(image - clean).mean() + strength * (25 / 255) ** 2
        assert validation.error(image) == pytest.approx(float(expected), rel=0.05)


def test_what_cannot_be_split(clean):
    with pytest.raises(ValueError, match="knows its sigma"):
        CoupledBootstrap()(KEY, isnas.denoising(clean))
    with pytest.raises(ValueError, match="fraction 1"):
        HoldOut(1)
    with pytest.raises(ValueError, match="is none"):
        HoldOut(0.001)(KEY, isnas.denoising(clean[:16, :16]))
    with pytest.raises(ValueError, match="held-out, bootstrap"):
        isnas.SPLITS["folds"]


def test_fits_split_and_stop_by_themselves(clean, small_network):
    problem = isnas.denoising(clean[..., :1], 25)
    config = isnas.FitConfig(
        60, isnas.STOPPING["validation"](60), split=HoldOut(0.2), learning_rate=0.1
    )
    fit = isnas.fit(KEY, small_network(), problem, config)
    smoothed = scipy.signal.lfilter([0.1], [1, -0.9], fit.validation - fit.validation[0])
    assert fit.restored_at == np.argmin(smoothed)
    fitted, validation = HoldOut(0.2)(jax.random.fold_in(KEY, 3), problem)
    given = dataclasses.replace(config, split=None)
    same = isnas.fit(KEY, small_network(), fitted, given, validation=validation)
    np.testing.assert_array_equal(same.validation, fit.validation)
    with pytest.raises(ValueError, match="LeastValidation needs a validation problem"):
        isnas.fit(KEY, small_network(), problem, given)


def test_a_cohort_shares_its_split(clean, small_network):
    """With one genotype twice, only the initializations differ: the errors are of one split."""
    problem = isnas.denoising(clean[..., :1], 25)

    class Plain:
        def sample(self, key, num, channels):
            return list(range(num))

        def build(self, genotype, *, out_channels, channels, in_channels=None):
            return small_network(in_channels=2 + genotype)

    search_config = isnas.FitConfig(5, isnas.STOPPING["validation"](5), split=HoldOut(0.2))
    search = isnas.SearchConfig(
        isnas.RandomSearch(2), 2, isnas.PROXIES["full"](64), search_config, space=Plain()
    )
    config = isnas.Config(isnas.NetworkConfig(4), isnas.FitConfig(5), search)
    found = isnas.search(KEY, problem, config)
    weights = found.cohort.folds[0].problem.weights
    assert (weights == 0).sum() == round(0.2 * weights.size)
    for fit in found.cohort.folds[0].fits:
        residual = np.square(fit.ema - np.asarray(problem.observed))
        held_out = residual[np.asarray(weights) == 0].mean()
        assert fit.validation[-1] == pytest.approx(held_out, rel=1e-4)
