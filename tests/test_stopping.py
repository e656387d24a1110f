import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import isnas_jax as isnas
from isnas_jax import registries
from isnas_jax.fitting import (
    Discrepancy,
    FitConfig,
    FixedIterations,
    LeastValidation,
    MovingVariance,
    RunToEnd,
    Step,
    WindowedVariance,
)


def follow(rule, outputs, losses=None, errors=None, problem=None):
    """Run a rule on given outputs; return (keep, stop, criterion), each [T]."""
    problem = problem or isnas.denoising(np.zeros(outputs[0].shape))
    state = rule.init(problem, len(outputs))
    zeros, has_error = np.zeros(len(outputs), np.float32), jnp.array(errors is not None)
    decisions = []
    for t, x in enumerate(map(jnp.asarray, outputs)):
        loss, error = ((zeros if v is None else v)[t] for v in (losses, errors))
        values = jnp.array(loss), jnp.array(error), has_error
        step = Step(jnp.array(t, jnp.int32), x, x, *values, problem)
        state, decision = rule.update(state, step)
        criterion = np.nan if decision.criterion is None else decision.criterion
        criterion = criterion if decision.has_criterion else np.nan
        decisions.append([np.asarray(v) for v in (decision.keep, decision.stop, criterion)])
    return [np.array(column) for column in zip(*decisions, strict=True)]


def patience_of(rule, iterations):
    state = rule.init(isnas.denoising(np.zeros((4, 4, 1))), iterations)
    return int(state[-1].patience)


def test_windowed_variance_is_that_of_the_paper():
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
    """Return the iterations that a rule with this criterion keeps, and where it stops."""
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


def test_start_and_margin_pass_a_first_minimum_that_does_not_last():
    """The criterion has a small minimum early and the lasting one later."""
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


def test_moving_variance_is_that_of_the_paper():
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


def test_without_a_validation_error_the_latest_is_kept_and_nothing_stops():
    keep, stop, criterion = follow(LeastValidation(2), np.zeros((10, 2, 2, 1), np.float32))
    assert keep.all()
    assert not stop.any()
    assert np.isnan(criterion).all()


def test_discrepancy_stops_at_the_noise_variance_of_known_pixels():
    mask = np.zeros((8, 8))
    mask[:4] = 1  # half of the mean's terms are 0
    problem = dataclasses.replace(isnas.inpainting(np.zeros((8, 8, 1)), mask), sigma=25.5)
    losses = np.array([0.1, 0.02, 0.0051, 0.0049, 0.001], np.float32)
    x = np.zeros((5, 8, 8, 1), np.float32)
    _, stop, criterion = follow(Discrepancy(), x, losses=losses, problem=problem)
    np.testing.assert_allclose(criterion, losses / 0.5 / 0.01, rtol=1e-4)
    assert np.flatnonzero(stop)[0] == 3
    with pytest.raises(ValueError, match="with a known sigma"):
        Discrepancy().init(isnas.denoising(np.zeros((8, 8, 1))), 5)


def test_keeps_the_latest_until_the_window_is_full():
    keep, stop, _ = follow(WindowedVariance(50, 5), np.zeros((10, 2, 2, 1), np.float32))
    assert keep.all()
    assert not stop.any()


def test_fixed_never_stops_and_keeps_the_last():
    keep, stop, _ = follow(FixedIterations(), np.zeros((10, 2, 2, 1), np.float32))
    assert keep.all()
    assert not stop.any()


def test_run_to_end_keeps_what_the_rule_kept_before_it_stopped():
    x = np.random.default_rng(1).normal(size=(60, 4, 5, 1)).astype(np.float32)
    x *= np.concatenate([np.abs(np.arange(40) - 15) + 1, np.full(20, 0.1)])[:, None, None, None]
    keep, stop, criterion = follow(WindowedVariance(5, 10), x)
    end = np.flatnonzero(stop)[0]
    assert np.flatnonzero(keep)[-1] > end  # without a stop, the rule would keep a later one
    kept, stopped, same = follow(RunToEnd(WindowedVariance(5, 10), 60), x)
    assert not stopped.any()
    np.testing.assert_array_equal(kept, keep & (np.arange(60) <= end))
    np.testing.assert_array_equal(same, criterion)


def test_run_to_end_keeps_nothing_after_the_restoration_ends():
    for rule in (FixedIterations(), WindowedVariance(50, 5)):
        kept, stopped, _ = follow(RunToEnd(rule, 4), np.zeros((10, 2, 2, 1), np.float32))
        assert np.flatnonzero(kept).tolist() == [0, 1, 2, 3]
        assert not stopped.any()


def test_run_to_end_takes_fractions_of_the_restoration():
    rule = RunToEnd(LeastValidation(patience=0.25), 40)
    (_, minimum), _ = rule.init(isnas.denoising(np.zeros((4, 4, 1))), 1000)
    assert int(minimum.patience) == 10


def test_published_values_are_reached_in_long_runs():
    problem = isnas.denoising(np.zeros((4, 4, 1)))
    for iterations, window, patience in ((600, 50, 100), (6000, 100, 1000), (60000, 100, 1000)):
        outputs, minimum = WindowedVariance().init(problem, iterations)
        assert (len(outputs), int(minimum.patience)) == (window, patience)
        _, _, start, minimum = MovingVariance().init(problem, iterations)
        assert (int(start), int(minimum.patience)) == (window, patience)
    assert len(WindowedVariance().init(problem, 3)[0]) == 2
    assert int(MovingVariance().init(problem, 3)[2]) == 2


def test_patience_is_a_number_or_a_fraction_of_the_iterations():
    for rule in (LeastValidation, WindowedVariance, MovingVariance):
        for patience, expected in ((7, 7), (np.int64(7), 7), (0.25, 50), (0.001, 1)):
            assert patience_of(rule(patience=patience), 200) == expected
    # 0.29 * 100 is a little less than 29 in floating point.
    assert patience_of(LeastValidation(patience=0.29), 100) == 29
    problem = isnas.denoising(np.zeros((4, 4, 1)))
    assert len(WindowedVariance(window=0.25).init(problem, 40)[0]) == 10
    assert len(WindowedVariance(window=5).init(problem, 40)[0]) == 5
    assert int(MovingVariance(start=0.25).init(problem, 40)[2]) == 10
    assert int(MovingVariance(start=0).init(problem, 40)[2]) == 0


def test_patience_follows_the_iterations_of_a_config(small_network):
    problem = isnas.denoising(np.full((16, 16, 1), 0.5, np.float32), 25)

    @dataclasses.dataclass(frozen=True)
    class FirstIsBest(LeastValidation):
        needs_validation = False

        def update(self, state, step):
            step = step._replace(
                validation=step.iteration.astype(jnp.float32), has_validation=jnp.array(True)
            )
            return super().update(state, step)

    config = FitConfig(20, FirstIsBest(patience=0.5))
    for iterations in (20, 40):
        changed = dataclasses.replace(config, iterations=iterations)
        fit = isnas.fit(jax.random.key(0), small_network(), problem, changed)
        assert (len(fit.loss), fit.restored_at) == (iterations // 2 + 1, 0)


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        (WindowedVariance, {"window": 1}, "window 1 must be an int of at least 2 or a fraction"),
        (WindowedVariance, {"window": 1.0}, "window 1.0"),
        (WindowedVariance, {"patience": 0}, "patience 0 must be an int of at least 1"),
        (WindowedVariance, {"patience": 1.5}, "patience 1.5"),
        (WindowedVariance, {"patience": 0.0}, "patience 0.0"),
        (WindowedVariance, {"start": -1}, "start -1"),
        (LeastValidation, {"start": 0.5}, "start 0.5"),
        (LeastValidation, {"patience": np.nan}, "patience nan"),
        (LeastValidation, {"margin": 1}, "margin 1"),
        (LeastValidation, {"smoothing": 1}, "smoothing 1"),
        (MovingVariance, {"weight": 1}, "weight 1"),
        (MovingVariance, {"start": -1}, "start -1"),
        (Discrepancy, {"factor": 0}, "factor 0"),
    ],
)
def test_impossible_fields_raise(rule, options, message):
    with pytest.raises(ValueError, match=message):
        rule(**options)


def test_registry_holds_rules_by_name():
    assert registries.STOPPING["es-wmv"] == WindowedVariance()
    assert registries.STOPPING["validation"] == LeastValidation()
    for error in (ValueError, KeyError):
        with pytest.raises(error, match="stopping rule 'never' does not exist; choose from es-wmv"):
            registries.STOPPING["never"]
    with pytest.raises(ValueError, match="es-wmv, es-emv, validation, discrepancy, fixed"):
        registries.STOPPING["never"]
