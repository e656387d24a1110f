"""Fits and refits, cached in a folder: loaded if finished, resumed if interrupted.

A refit is a fit to all measurements, as long as validated fits to parts of them chose.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.random import clone

from isnas_jax.fitting.config import FitConfig
from isnas_jax.fitting.fit import fit_many
from isnas_jax.fitting.job import FitJob
from isnas_jax.fitting.result import Fit, Start
from isnas_jax.io import Checkpoint, cache
from isnas_jax.problems import Problem, without_measurements
from isnas_jax.running import Progress, ignore


def cached_fit(
    job: FitJob,
    config: FitConfig,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress = ignore,
) -> Fit:
    """Run a job, or load its fit from a folder; an interrupted fit resumes.

    A fit with a folder has no variables, and a `start` only if this call computed it.
    """

    def compute(job: FitJob) -> Fit:
        return fit_many([job], config, progress=progress)[0]

    return _cached(job, compute, _inputs(job, config), folder)


def refit(
    job: FitJob,
    config: FitConfig,
    fold_fits: Sequence[Fit],
    training: Problem,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress = ignore,
) -> Fit:
    """Fit all measurements for as long as validated fits to parts of them chose.

    Measurements that validate are not fitted, which costs quality. So the stopping rule decides
    on the training problems, and the same network is then fitted to the whole problem, with the
    same draws. Its number of iterations is the mean over the folds times `refit_factor`.

    The first `refit_from` of the first fold's iterations are those of its fit, and are not run
    again if their state is available. The moving average begins where the refit leaves that fit.

    Args:
      job: Key and network of the validated fits, with the whole problem.
      config: The config of the validated fits.
      fold_fits: The validated fit of each fold.
      training: The training problem of the first fold.
      folder: Caches the refit.
      progress: Called between chunks.
    """
    first = fold_fits[0]
    lengths = [fit.restored_at + 1 for fit in fold_fits]
    iterations = max(1, round(config.refit_factor * sum(lengths) / len(lengths)))
    leave_at = min(round(config.refit_from * lengths[0]), iterations - 1)
    rest = dataclasses.replace(config.unsplit(), refit_from=0.0, iterations=iterations - leave_at)
    job = job._replace(validation=without_measurements(job.problem))

    def compute(job: FitJob) -> Fit:
        start = first.start if leave_at else job.start
        if start is None:  # not stored: run these iterations again
            # A clean image changes no result, and the fold's program had one too.
            again = job._replace(key=clone(job.key), problem=training, checkpoint=None)
            (result,) = fit_many([again], dataclasses.replace(rest, iterations=leave_at))
            start = Start(result.variables, result.optimizer_state)
        again = job._replace(key=clone(job.key), start=start)
        return fit_many([again], rest, progress=progress)[0]

    inputs = _inputs(job, rest)
    if leave_at:
        inputs |= {"training problem": training, "leave at": leave_at}
    result = _cached(job, compute, inputs, folder)
    curves: dict[str, Any] = {
        name: np.concatenate([before[:leave_at], after])
        for name in ("loss", "psnr", "psnr_ema", "criterion")
        if (after := getattr(result, name)) is not None
        and (before := getattr(first, name)) is not None
    }
    # The rule has nothing to validate with, so the last average counts instead of its choice.
    return dataclasses.replace(
        result,
        restored=result.ema,
        restored_at=iterations - 1,
        fold_fits=tuple(fold_fits),
        **curves,
    )


def _inputs(job: FitJob, config: FitConfig) -> dict[str, Any]:
    """Return all that the fit of a job depends on, by name."""
    inputs = {**job._asdict(), "config": config}
    del inputs["checkpoint"]
    return inputs


def _cached(
    job: FitJob,
    compute: Callable[[FitJob], Fit],
    inputs: Mapping[str, Any],
    folder: str | os.PathLike[str] | None,
) -> Fit:
    """Compute the fit of a job with a checkpoint in a folder, or load it by its inputs."""
    if folder is None:
        return compute(job)
    file = cache.cache_path(folder, "fit", inputs)
    checkpoint = Checkpoint(file.with_suffix(".checkpoint"))
    start: Start | None = None

    def compute_arrays() -> dict[str, np.ndarray]:
        nonlocal start
        result = compute(job._replace(checkpoint=checkpoint))
        start = result.start
        return result.arrays()

    arrays = cache.cached(file, inputs, compute_arrays)
    checkpoint.path.unlink(missing_ok=True)
    return dataclasses.replace(Fit.from_arrays(arrays), start=start)
