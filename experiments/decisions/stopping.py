"""Compare stopping rules on recorded curves.

A rule maps the curves of one architecture on one image, by the problem that was fitted,
to a `Stop`. Add one to `RULES` to judge it without new fits. Gaps are in dB below the
best PSNR of the EMA in the fit to all measurements; negative is better than that oracle.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from isnas_jax.fitting import Discrepancy, LeastValidation, Step, StoppingRule
from isnas_jax.problems import denoising
from isnas_jax.registries import TASKS
from isnas_jax.searching.presets import quick
from isnas_jax.study.intervals import over_images

from .curves import ALL, CASE, CURVE_INTERVAL, EXPERIMENTS, SNAPSHOT_INTERVAL, Experiment

Curves: TypeAlias = Mapping[str, Mapping[str, np.ndarray]]  # by fitted problem, then by name


class Stop(NamedTuple):
    """The restoration that a rule chooses."""

    position: int  # in the recorded curve
    fitted_to: str = ALL
    psnr: str = "psnr_ema"  # or psnr_debiased, which is recorded at the snapshots


Rule: TypeAlias = Callable[[Curves], Stop]


def replay(
    rule: StoppingRule, curve: np.ndarray, interval: int, *, sigma: float | None = None
) -> int:
    """Return the position of a recorded curve that a rule would restore with.

    The rule may read only the loss and the validation error of each step: both are the (N,) values
    of the curve, recorded at every `interval`-th iteration, nan where there was none.
    `LeastValidation` without smoothing replays the recorded criterion of any other rule.
    """
    # Curves are rounded to four digits. In single precision, smoothing them would end at the
    # first plateau of equal values.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        return int(_replay(rule, jnp.asarray(curve, jnp.float64), interval, sigma))


@functools.partial(jax.jit, static_argnames=("rule", "interval", "sigma"))
def _replay(rule, curve, interval, sigma):
    problem = denoising(np.zeros((1, 1, 1)), sigma)
    blank = problem.observed

    def advance(carry, position):
        state, restored_at, stopped = carry
        value = jnp.nan_to_num(curve[position])
        has_validation = ~jnp.isnan(curve[position])
        step = Step(position * interval, blank, blank, value, value, has_validation, problem)
        state, decision = rule.update(state, step)
        restored_at = jnp.where(decision.keep & ~stopped, position, restored_at)
        return (state, restored_at, stopped | decision.stop), None

    state = jax.tree.map(
        lambda leaf: leaf.astype(curve.dtype) if leaf.dtype == jnp.float32 else leaf,
        rule.init(problem, len(curve) * interval),
    )
    start = (state, jnp.int32(0), jnp.array(False))
    positions = jnp.arange(len(curve), dtype=jnp.int32)
    (_, restored_at, _), _ = jax.lax.scan(advance, start, positions)
    return restored_at


def least_validation(
    errors: np.ndarray, interval: int, iterations: int, smoothing: float = 0.9
) -> int:
    """Return the position of the lowest smoothed error, with the patience of the default rule.

    Args:
      errors: (N,) validation errors at every `interval`-th iteration.
      interval: Iterations between two errors. The smoothing spans them; the patience is
        rounded down to whole intervals.
      iterations: The most iterations of a fit; later errors are ignored.
      smoothing: Decay of the moving average of the errors, per iteration.
    """
    _, minimum = LeastValidation().init(denoising(np.zeros((1, 1, 1))), iterations)
    patience = max(1, int(minimum.patience) // interval * interval)
    rule = LeastValidation(patience, smoothing=smoothing**interval)
    return replay(rule, errors[: iterations // interval], interval)


def by_validation(
    split: str, smoothing: float = 0.9, *, refit: bool = True, factor: float = 1.0
) -> Rule:
    """Stop at the lowest validation error of a split's fit, smoothed with a decay per iteration.

    Restore with a refit `factor` times as long, or without `refit` with the split's own fit.
    """

    def rule(curves):
        errors = curves[split]["validation"]
        iterations = len(errors) * CURVE_INTERVAL
        stop = least_validation(errors, CURVE_INTERVAL, iterations, smoothing)
        stop = min(round(factor * stop), len(curves[ALL]["loss"]) - 1)
        return Stop(stop, ALL if refit else split)

    return rule


def by_debiased_validation(*splits: str, iterations: int, factor: float = 1.0) -> Rule:
    """Stop as the default does: at the lowest validation error of the bias-corrected EMA.

    Restore with a refit `factor` times as long as the mean fit of the splits, which takes at most
    so many iterations.
    """

    def rule(curves):
        stops = [
            least_validation(curves[split]["validation_debiased"], SNAPSHOT_INTERVAL, iterations)
            for split in splits
        ]
        stop = round(factor * float(np.mean(stops)))
        return Stop(min(stop, len(curves[ALL]["psnr_debiased"]) - 1), ALL, "psnr_debiased")

    return rule


def by_variance(curve: str, start: int, margin: float = 0.0) -> Rule:
    """Stop by ES-WMV or ES-EMV, whose curve is the variance, in the fit to all measurements.

    The criterion counts after `start` iterations, a new minimum if it is lower by the `margin`.
    """

    def rule(curves):
        variances = curves[ALL][curve]
        patience = len(variances) * CURVE_INTERVAL // 6
        smallest = LeastValidation(patience, smoothing=0.0, start=start, margin=margin)
        return Stop(replay(smallest, variances, CURVE_INTERVAL))

    return rule


def by_discrepancy(sigma: float) -> Rule:
    """Stop at the first loss that is at most the noise variance, or at the last iteration."""
    rule = functools.partial(replay, Discrepancy(), interval=CURVE_INTERVAL, sigma=sigma)
    return lambda curves: Stop(rule(curves[ALL]["loss"]))


def at_iteration(iteration: int | None = None) -> Rule:
    """Stop at a fixed iteration, by default the last."""

    def rule(curves):
        last = len(curves[ALL]["loss"]) - 1
        return Stop(last if iteration is None else min(iteration // CURVE_INTERVAL, last))

    return rule


RULES: dict[str, Rule] = {
    "bootstrap, refit": by_validation("bootstrap"),
    "bootstrap, refit, unsmoothed": by_validation("bootstrap", 0.0),
    "bootstrap, no refit": by_validation("bootstrap", refit=False),
    "held-out, refit": by_validation("held-out"),
    "held-out, refit, unsmoothed": by_validation("held-out", 0.0),
    "held-out, refit 1.25 times as long": by_validation("held-out", factor=1.25),
    "held-out, refit 1.5 times as long": by_validation("held-out", factor=1.5),
    "held-out, no refit": by_validation("held-out", refit=False),
    "ES-WMV": by_variance("windowed_variance", 50),
    "ES-WMV from 200, margin 2 %": by_variance("windowed_variance", 200, 0.02),
    "ES-EMV": by_variance("moving_variance", 100),
    "ES-EMV from 200, margin 2 %": by_variance("moving_variance", 200, 0.02),
    "300 iterations": at_iteration(300),
    "450 iterations": at_iteration(450),
    "last iteration": at_iteration(),
}


def rules_of(experiment: Experiment) -> dict[str, Rule]:
    """Return the default's kind of rules, with its number of iterations for the task, and `RULES`.

    Experiments with noise also get the discrepancy principle.
    """
    blank = jnp.zeros((64, 64, 1))
    problem = TASKS[experiment.task].corrupt(jax.random.key(0), blank, **experiment.options)
    iterations = quick(problem).fit.iterations
    folds = ("held-out", "held-out 2", "held-out 3")
    default = functools.partial(by_debiased_validation, iterations=iterations)
    rules = {
        "bootstrap, refit, bias-corrected": default("bootstrap"),
        "held-out, refit, bias-corrected": default("held-out"),
        "held-out, refit 1.5 times as long, bias-corrected": default("held-out", factor=1.5),
        "3 folds, refit 1.5 times as long, bias-corrected": default(*folds, factor=1.5),
    }
    rules |= RULES
    if (sigma := experiment.options.get("sigma")) is not None:
        rules["discrepancy"] = by_discrepancy(sigma)
    return rules


def gaps(curves: pd.DataFrame) -> pd.DataFrame:
    """Return one row per architecture, case and rule with its gap in dB.

    A rule is left out where a split that it needs was not fitted.
    """
    rules = {name: rules_of(EXPERIMENTS[name]) for name in curves["experiment"].unique()}
    rows = []
    for case, group in curves.groupby([*CASE, "architecture"]):
        recorded = {row["fitted_to"]: row for row in group.to_dict("records")}
        peak = recorded[ALL]["psnr_ema"].max()
        psnrs = {"oracle of the bias-corrected EMA": recorded[ALL]["psnr_debiased"].max()}
        for name, rule in rules[case[0]].items():
            try:
                stop = rule(recorded)
            except KeyError:
                continue
            psnrs[name] = recorded[stop.fitted_to][stop.psnr][stop.position]
        key = dict(zip([*CASE, "architecture"], case, strict=True))
        rows += [key | {"rule": name, "gap": peak - psnr} for name, psnr in psnrs.items()]
    return pd.DataFrame(rows)


def gap_tables(gap: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the median gap with its interval and the 90th percentile, by heading.

    One row per rule, one column per experiment.
    """
    by_fit = gap.groupby(["rule", "experiment"], sort=False)
    median = by_fit.apply(lambda group: over_images(group, "gap", np.median).shown())
    percentile = by_fit["gap"].quantile(0.9).map("{:.2f}".format)
    tables = {"Median gap": median, "90th percentile": percentile}
    return {name: values.unstack(sort=False).fillna("") for name, values in tables.items()}
