import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

import isnas_jax as isnas
from isnas_jax import registries
from isnas_jax.fitting import FitJob, fit_many
from isnas_jax.problems import CoupledBootstrap, HoldOut
from isnas_jax.registries import TASKS


def new_key():
    return jax.random.key(3)


@pytest.fixture
def clean():
    return jax.random.uniform(jax.random.key(0), (48, 64, 3))


OPTIONS = {
    "denoising": {"sigma": 25},
    "inpainting": {"missing": 70},
    "super_resolution": {"factor": 2},
}


@pytest.mark.parametrize("task", OPTIONS)
def test_hold_out_divides_the_measurements(clean, task):
    problem = TASKS[task].corrupt(jax.random.key(1), clean, **OPTIONS[task])
    training, validation = isnas.HoldOut(0.1)(new_key(), problem)
    kept, held_out, total = (np.asarray(p.weights) for p in (training, validation, problem))
    np.testing.assert_array_equal(kept + held_out, total)
    assert (kept * held_out == 0).all()
    assert (held_out > 0).sum() == round(0.1 * (total > 0).sum())
    # Each quarter of the image holds out as many, within five standard deviations.
    for rows in np.array_split(held_out, 4):
        expected = held_out.sum() / 4
        assert abs(rows.sum() - expected) < 5 * expected**0.5
    # The squared residuals of both parts sum to those of the problem.
    image = jax.random.uniform(jax.random.key(4), clean.shape)
    sums = [np.sum(p.squared_residual(image)) for p in (training, validation, problem)]
    np.testing.assert_allclose(sums[0] + sums[1], sums[2], rtol=1e-5)
    other_key, _ = isnas.HoldOut(0.1)(jax.random.key(5), problem)
    assert not np.array_equal(other_key.weights, training.weights)
    same_key, _ = isnas.HoldOut(0.1)(new_key(), problem)
    np.testing.assert_array_equal(same_key.weights, training.weights)
    assert isnas.Crop(16)(training).weights.shape == (16, 16, 1)


@pytest.mark.parametrize("task", OPTIONS)
def test_folds_hold_out_disjoint_measurements(clean, task):
    problem = TASKS[task].corrupt(jax.random.key(1), clean, **OPTIONS[task])
    folds = [np.asarray(HoldOut(0.25)(new_key(), problem, fold)[1].weights) for fold in range(4)]
    known = np.asarray(problem.weights)
    np.testing.assert_array_equal(sum(folds), known)
    assert max(abs(fold.sum() - known.sum() / 4) for fold in folds) <= 0.75
    with pytest.raises(ValueError, match=r"fold 4 of.*choose from 0 to 3"):
        HoldOut(0.25)(new_key(), problem, 4)


def test_bootstrap_folds_have_independent_noise():
    noisy = isnas.denoising(jnp.full((200, 200, 1), 0.5), 25)
    noises = [
        np.asarray(CoupledBootstrap()(new_key(), noisy, fold)[0].observed - 0.5).ravel()
        for fold in (0, 1, 2)
    ]
    assert np.abs(np.corrcoef(noises) - np.eye(3)).max() < 5 / 200


def test_bootstrap_noise_is_independent_with_the_documented_sigma():
    clean = jnp.full((200, 200, 1), 0.5)
    sigma, alpha = 25, 0.15
    noisy = isnas.denoising(clean + sigma / 255 * jax.random.normal(new_key(), clean.shape), sigma)
    training, validation = CoupledBootstrap(alpha)(jax.random.key(8), noisy)
    noises = [np.asarray(p.observed - clean).ravel() * 255 for p in (training, validation)]
    expected = [sigma * (1 + alpha) ** 0.5, sigma * (1 + 1 / alpha) ** 0.5]
    np.testing.assert_allclose([noise.std() for noise in noises], expected, rtol=0.02)
    np.testing.assert_allclose([training.sigma, validation.sigma], expected, rtol=1e-6)
    assert abs(np.corrcoef(*noises)[0, 1]) < 5 / 200
    # The observation is (y1 + alpha y2) / (1 + alpha).
    combined = (training.observed + alpha * validation.observed) / (1 + alpha)
    np.testing.assert_allclose(combined, noisy.observed, atol=1e-6)


def test_validation_error_is_the_squared_error_plus_a_constant():
    """The constant is the variance of the validation noise.

    It holds for an image that depends on the training problem alone.
    """
    clean = jnp.tile(jnp.linspace(0.2, 0.8, 200)[:, None, None], (1, 200, 1))
    noise = 25 / 255 * jax.random.normal(new_key(), clean.shape)
    problem = isnas.denoising(clean + noise, 25)
    for split, noise_factor in ((HoldOut(0.3), 1), (CoupledBootstrap(0.5), 3)):
        training, validation = split(jax.random.key(9), problem)
        # The image is an average over columns, shifted by a constant.
        weights = jnp.broadcast_to(training.weights, clean.shape)
        rows = (weights * training.observed).sum(1, keepdims=True) / weights.sum(1, keepdims=True)
        image = jnp.broadcast_to(rows, clean.shape) + 0.05
        expected = np.square(image - clean).mean() + noise_factor * (25 / 255) ** 2
        assert validation.error(image) == pytest.approx(float(expected), rel=0.05)


def test_invalid_splits_raise(clean):
    with pytest.raises(ValueError, match="with a known sigma"):
        CoupledBootstrap()(new_key(), isnas.denoising(clean))
    with pytest.raises(ValueError, match="fraction 1"):
        HoldOut(1)
    with pytest.raises(ValueError, match=r"fold 0 of.*a larger fraction"):
        HoldOut(0.001)(new_key(), isnas.denoising(clean[:16, :16]))
    for error in (ValueError, KeyError):
        with pytest.raises(error, match=r"split 'folds' does not exist.*held-out, bootstrap"):
            registries.SPLITS["folds"]


def test_fit_splits_its_problem_and_stops(clean, small_network):
    problem = isnas.denoising(clean[..., :1], 25)
    config = isnas.FitConfig(60, isnas.LeastValidation(), split=HoldOut(0.2), learning_rate=0.1)
    fit = isnas.fit(new_key(), small_network(), problem, config)
    smoothed = scipy.signal.lfilter([0.1], [1, -0.9], fit.validation - fit.validation[0])
    assert fit.restored_at == np.argmin(smoothed)
    training, validation = HoldOut(0.2)(jax.random.fold_in(new_key(), 3), problem)
    unsplit = dataclasses.replace(config, split=None)
    (same,) = fit_many(
        [FitJob(new_key(), small_network(), training, validation=validation)], unsplit
    )
    np.testing.assert_array_equal(same.validation, fit.validation)
    with pytest.raises(ValueError, match="LeastValidation needs a validation problem"):
        isnas.fit(new_key(), small_network(), problem, unsplit)


def test_cohort_members_have_the_same_split(clean, small_network):
    problem = isnas.denoising(clean[..., :1], 25)

    class SmallSpace:
        def sample(self, key, num, channels):
            return list(range(num))

        def build(self, genotype, *, out_channels, channels, in_channels=None):
            return small_network(in_channels=2 + genotype)

    fit = isnas.FitConfig(5, isnas.LeastValidation(), split=HoldOut(0.2))
    search = isnas.SearchConfig(isnas.RandomSearch(2), 2, space=SmallSpace(), fit=fit)
    config = isnas.Config(isnas.NetworkConfig(4), isnas.FitConfig(5), search)
    result = isnas.search(new_key(), problem, config)
    weights = result.cohort.folds[0].problem.weights
    assert (weights == 0).sum() == round(0.2 * weights.size)
    for fit in result.cohort.folds[0].fits:
        residual = np.square(fit.ema - np.asarray(problem.observed))
        held_out = residual[np.asarray(weights) == 0].mean()
        assert fit.validation[-1] == pytest.approx(held_out, rel=1e-4)


def test_a_proxy_without_measurements_is_refused_before_scoring():
    mask = np.ones((48, 48))
    mask[12:36, 12:36] = 0
    problem = isnas.inpainting(np.full((48, 48, 1), 0.5, np.float32), mask)
    config = isnas.presets.published(problem)
    search = dataclasses.replace(config.search, proxy=isnas.Crop(16))
    with pytest.raises(ValueError, match="fold 1 leaves no measurements"):
        isnas.search(jax.random.key(0), problem, dataclasses.replace(config, search=search))
