"""Refits: fits to all measurements, as long as validated fits to parts of them chose."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from isnas_jax.fitting.cached import cached, depends_on
from isnas_jax.fitting.config import FitConfig
from isnas_jax.fitting.fit import fit_many
from isnas_jax.fitting.job import FitJob
from isnas_jax.fitting.result import Fit, Start
from isnas_jax.fitting.stopping import needs_validation
from isnas_jax.problems import Problem, without_measurements
from isnas_jax.running import Progress, ignore


def validates(config: FitConfig) -> bool:
    """Return whether fits to parts of the measurements choose the length of a refit."""
    return config.split is not None and needs_validation(config.stopping)


def unsplit(config: FitConfig) -> FitConfig:
    """Return the config of a fit to a problem that has been split already."""
    return dataclasses.replace(config, split=None, folds=1, refit_factor=1.0)


class FoldFit(NamedTuple):
    """A fit to the training problem of a fold.

    Attributes:
      problem: The training problem.
      fit: The validated fit.
    """

    problem: Problem
    fit: Fit


def refit(
    job: FitJob,
    config: FitConfig,
    fold_fits: Sequence[FoldFit],
    folder: str | os.PathLike[str] | None = None,
    progress: Progress = ignore,
) -> Fit:
    """Fit all measurements for as long as validated fits to parts of them chose.

    Measurements that validate are not fitted, which costs quality. So the stopping rule decides
    on the training problems, and the same network is then fitted to the whole problem by the same
    program. Its number of iterations is the mean over the folds times `refit_factor`.

    The first `refit_from` of the first fold's iterations are those of its fit, and are not run
    again if their state is available. The moving average begins where the refit leaves that fit.

    Args:
      job: Key and network of the validated fits, with the whole problem.
      config: The config of the validated fits.
      fold_fits: The validated fit of each fold.
      folder: Caches the refit.
      progress: Called between chunks.

    Returns:
      The fit, with the curves of all iterations in order.
    """
    first = fold_fits[0]
    lengths = [fold.fit.restored_at + 1 for fold in fold_fits]
    iterations = max(1, round(config.refit_factor * sum(lengths) / len(lengths)))
    leave_at = min(round(config.refit_from * lengths[0]), iterations - 1)
    rest = dataclasses.replace(unsplit(config), refit_from=0.0, iterations=iterations - leave_at)
    job = job._replace(validation=without_measurements(job.problem))

    def compute(job: FitJob) -> Fit:
        start = _start(job, first, config, leave_at) if leave_at else job.start
        return fit_many([job._replace(start=start)], rest, progress=progress)[0]

    inputs = depends_on(job, rest)
    if leave_at:
        inputs |= {"training problem": first.problem, "leave at": leave_at}
    result = cached(job, compute, inputs, folder)
    curves: dict[str, Any] = {
        name: np.concatenate([before[:leave_at], after])
        for name in ("loss", "psnr", "psnr_ema", "criterion")
        if (after := getattr(result, name)) is not None
        and (before := getattr(first.fit, name)) is not None
    }
    # The rule has nothing to validate with, so the last average counts instead of its choice.
    return dataclasses.replace(
        result,
        restored=result.ema,
        restored_at=iterations - 1,
        fold_fits=tuple(fold.fit for fold in fold_fits),
        **curves,
    )


def _start(job: FitJob, fold: FoldFit, config: FitConfig, iterations: int) -> Start:
    """Return the state of a fold's fit after some iterations, recomputed if it was not stored.

    The job may have a clean image: it changes no result, and the fold's program had one too.
    """
    if fold.fit.start is not None:
        return fold.fit.start
    shorter = dataclasses.replace(unsplit(config), refit_from=0.0, iterations=iterations)
    validation = without_measurements(job.problem)
    again = job._replace(problem=fold.problem, validation=validation, checkpoint=None)
    (result,) = fit_many([again], shorter)
    return Start(result.variables, result.optimizer_state)
