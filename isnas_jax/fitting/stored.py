"""A fit that is kept: found where it is finished, resumed where it is not."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax

from isnas_jax.fitting.loop import Progress, fit
from isnas_jax.fitting.result import Fit
from isnas_jax.fitting.settings import FitSettings
from isnas_jax.io import Checkpoint, records
from isnas_jax.problems import Problem


def fit_once(
    key: jax.Array,
    net: Any,
    problem: Problem,
    settings: FitSettings,
    *,
    truth: Any = None,
    file: pathlib.Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Fit:
    """`fit`, but for the variables; with a file (.npz), finished or begun work is taken from there.

    Raises:
      ValueError: If the file is of another fit, naming the difference.
    """
    checkpoint = Checkpoint(file.with_suffix(".checkpoint")) if file else None

    def compute():
        return fit(
            key, net, problem, settings, truth=truth, progress=progress, checkpoint=checkpoint
        ).arrays()

    same = dataclasses.replace(settings, chunk=1)
    of = {"key": key, "network": net, "problem": problem, "settings": same, "truth": truth}
    found = Fit.of_arrays(records.once(file, of, compute))
    if checkpoint:
        checkpoint.path.unlink(missing_ok=True)
    return found
