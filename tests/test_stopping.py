import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import isnas_jax as isnas
from isnas_jax.fitting import stopping
from isnas_jax.fitting.stopping import (
    Discrepancy,
    FixedIterations,
    LeastValidation,
    MovingVariance,
    RunToEnd,
    Step,
    WindowedVariance,
)


def follow(rule, outputs, losses=None, errors=None, problem=None):
    problem = problem or isnas.denoising(np.zeros(outputs[0].shape))
    state = rule.init(problem)
    nothing, has_error = np.zeros(len(outputs), np.float32), jnp.array(errors is not None)
    decisions = []
    for t, x in enumerate(map(jnp.asarray, outputs)):
        loss, error = ((nothing if v is None else v)[t] for v in (losses, errors))
        values = jnp.array(loss), jnp.array(error), has_error
        step = Step(jnp.array(t, jnp.int32), x, x, *values, problem)
        state, decision = rule.update(state, step)
        criterion = np.nan if decision.criterion is None else decision.criterion
        criterion = criterion if decision.has_criterion else np.nan
        decisions.append([np.asarray(v) for v in (decision.keep, decision.stop, criterion)])
    return [np.array(column) for column in zip(*decisions, strict=True)]


def test_windowed_variance_is_the_papers():
    rng, window, patience = np.random.default_rng(0), 6, 9
    steps = np.abs(np.arange(60) - 25)[:, None, None, None] + 1  # calmest around 25
    x = (rng.normal(size=(60, 4, 5, 1)) * steps).astype(np.float32)
    keep, stop, criterion = follow(WindowedVariance(window, patience), x)
    expected = np.full(60, np.nan)
    for t in range(window - 1, 60):
        expected[t] = x[t - window + 1 : t + 1].var(axis=0).mean()
    np.testing.assert_allclose(criterion, expected, rtol=1e-4)
    smallest = np.nanargmin(expected)
    assert np.flatnonzero(keep)[-1] == smallest
    assert np.flatnonzero(stop)[0] == smallest + patience


def kept_and_stop(criterion, patience, margin):
    """What a rule of this criterion does, step by step."""
    smallest, at, kept, stop = np.inf, 0, [], None
    for t, value in enumerate(criterion):
        if value < (1 - margin) * smallest:
            smallest, at = value, t
            kept.append(t)
        elif np.isinf(smallest):
            kept.append(t)
        if np.isfinite(smallest) and t - at >= patience and stop is None:
            stop = t
    return kept, stop


def test_guards_against_a_false_first_minimum():
    """A small dip early, the real minimum later: not before `start`, and lower by a margin."""
    x = np.random.default_rng(0).normal(size=(60, 4, 5, 1)).astype(np.float32)
    x *= (np.abs(np.arange(60) - 40) + 1 - 30 * (np.abs(np.arange(60) - 10) < 4))[
        :, None, None, None
    ]
    for rule in (
        WindowedVariance(4, 9),
        WindowedVariance(4, 9, 20),
        WindowedVariance(4, 9, 0, 0.5),
    ):
        keep, stop, criterion = follow(rule, x)
        kept, end = kept_and_stop(criterion, 9, rule.margin)
        assert np.flatnonzero(keep).tolist() == kept
        assert np.flatnonzero(stop)[0] == end
        assert np.isnan(criterion[: max(3, rule.start)]).all()
    assert np.flatnonzero(follow(WindowedVariance(4, 9), x)[1])[0] < 30
    assert np.flatnonzero(follow(WindowedVariance(4, 9, 20), x)[1])[0] > 40


def test_exponential_variance_is_the_papers():
    x = np.random.default_rng(0).normal(size=(40, 4, 5, 1)).astype(np.float32)
    keep, stop, criterion = follow(MovingVariance(0.1, 6, 10), x)
    mean, variance, expected = x[0].astype(float), 0.0, []
    for output in x:
        variance = 0.9 * (variance + 0.1 * np.square(output - mean).mean())
        mean = 0.9 * mean + 0.1 * output
        expected.append(variance)
    np.testing.assert_allclose(criterion[10:], expected[10:], rtol=1e-4)
    assert np.isnan(criterion[:10]).all()
    kept, end = kept_and_stop(criterion, 6, 0.0)
    assert np.flatnonzero(keep).tolist() == kept
    assert np.flatnonzero(stop)[:1].tolist() == [end] * (end is not None)


def test_least_validation_keeps_the_least_smoothed_error():
    errors = np.random.default_rng(2).uniform(1, 2, 50).astype(np.float32)
    errors += 0.05 * np.abs(np.arange(50) - 20)
    x = np.zeros((50, 2, 2, 1), np.float32)
    for smoothing in (0.0, 0.8):
        keep, stop, criterion = follow(LeastValidation(12, smoothing), x, errors=errors)
        smoothed = errors.astype(float).copy()
        for t in range(1, 50):
            smoothed[t] = smoothing * smoothed[t - 1] + (1 - smoothing) * errors[t]
        np.testing.assert_allclose(criterion, smoothed, rtol=1e-5)
        kept, end = kept_and_stop(criterion, 12, 0.0)
        assert np.flatnonzero(keep).tolist() == kept
        assert np.flatnonzero(stop)[0] == end


def test_without_an_error_the_latest_is_kept_and_nothing_stops():
    keep, stop, criterion = follow(LeastValidation(2), np.zeros((10, 2, 2, 1), np.float32))
    assert keep.all()
    assert not stop.any()
    assert np.isnan(criterion).all()


def test_discrepancy_stops_at_the_variance_of_the_known():
    mask = np.zeros((8, 8))
    mask[:4] = 1  # half of the mean's terms are 0
    problem = dataclasses.replace(isnas.inpainting(np.zeros((8, 8, 1)), mask), sigma=25.5)
    losses = np.array([0.1, 0.02, 0.0051, 0.0049, 0.001], np.float32)
    x = np.zeros((5, 8, 8, 1), np.float32)
    _, stop, criterion = follow(Discrepancy(), x, losses=losses, problem=problem)
    np.testing.assert_allclose(criterion, losses / 0.5 / 0.01, rtol=1e-4)
    assert np.flatnonzero(stop)[0] == 3
    with pytest.raises(ValueError, match="knows its sigma"):
        Discrepancy().init(isnas.denoising(np.zeros((8, 8, 1))))


def test_keeps_the_latest_until_the_window_is_full():
    keep, stop, _ = follow(WindowedVariance(50, 5), np.zeros((10, 2, 2, 1), np.float32))
    assert keep.all()
    assert not stop.any()


def test_fixed_never_stops_and_keeps_the_last():
    keep, stop, _ = follow(FixedIterations(), np.zeros((10, 2, 2, 1), np.float32))
    assert keep.all()
    assert not stop.any()


def test_fixed_stops_at_its_own_number():
    _, stop, _ = follow(FixedIterations(4), np.zeros((10, 2, 2, 1), np.float32))
    assert np.flatnonzero(stop).tolist() == [3]


def test_run_to_end_keeps_what_its_rule_kept_before_it_stopped():
    x = np.random.default_rng(1).normal(size=(60, 4, 5, 1)).astype(np.float32)
    x *= np.concatenate([np.abs(np.arange(40) - 15) + 1, np.full(20, 0.1)])[:, None, None, None]
    keep, stop, criterion = follow(WindowedVariance(5, 10), x)
    end = np.flatnonzero(stop)[0]
    assert np.flatnonzero(keep)[-1] > end  # it would be wrong to go on
    kept, stopped, same = follow(RunToEnd(WindowedVariance(5, 10), 60), x)
    assert not stopped.any()
    np.testing.assert_array_equal(kept, keep & (np.arange(60) <= end))
    np.testing.assert_array_equal(same, criterion)


def test_run_to_end_keeps_nothing_from_beyond_the_restoration():
    for rule in (FixedIterations(), WindowedVariance(50, 5)):
        kept, stopped, _ = follow(RunToEnd(rule, 4), np.zeros((10, 2, 2, 1), np.float32))
        assert np.flatnonzero(kept).tolist() == [0, 1, 2, 3]
        assert not stopped.any()


def test_published_settings_are_reached_in_long_runs():
    assert stopping.STOPPING["es-wmv"](6000) == WindowedVariance(100, 1000)
    assert stopping.STOPPING["es-wmv"](600) == WindowedVariance(50, 100)


def test_errors():
    with pytest.raises(ValueError, match="window 1"):
        WindowedVariance(1, 5)
    with pytest.raises(ValueError, match="es-wmv, es-emv, validation, discrepancy, fixed"):
        stopping.STOPPING["never"]
