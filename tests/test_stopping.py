import jax.numpy as jnp
import numpy as np
import pytest

import isnas_jax as isnas
from isnas_jax.fitting import stopping
from isnas_jax.fitting.stopping import FixedIterations, RunToEnd, Step, WindowedVariance


def follow(rule, outputs):
    problem = isnas.denoising(np.zeros(outputs[0].shape))
    state = rule.init(problem)
    decisions, nan = [], jnp.array(jnp.nan)
    for t, x in enumerate(map(jnp.asarray, outputs)):
        step = Step(jnp.array(t, jnp.int32), x, x, nan, nan, problem)
        state, decision = rule.update(state, step)
        decisions.append([np.asarray(value) for value in decision])
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
    with pytest.raises(ValueError, match="es-wmv, fixed"):
        stopping.STOPPING.find("never")
