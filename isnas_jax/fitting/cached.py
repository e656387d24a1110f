"""Fits cached in a folder: loaded if they are finished, resumed if they were interrupted."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from isnas_jax.fitting.config import FitConfig
from isnas_jax.fitting.fit import fit_many
from isnas_jax.fitting.job import FitJob
from isnas_jax.fitting.result import Fit, Start
from isnas_jax.io import Checkpoint, cache
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

    return cached(job, compute, depends_on(job, config), folder)


def depends_on(job: FitJob, config: FitConfig) -> dict[str, Any]:
    """Return all that the fit of a job depends on, by name."""
    inputs = {**job._asdict(), "config": config}
    del inputs["checkpoint"]
    return inputs


def cached(
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
