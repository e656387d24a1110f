"""A fit that is kept: found where it is finished, resumed where it is not."""

import functools
import os
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
    validation: Problem | None = None,
    truth: Any = None,
    file: str | os.PathLike[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Fit:
    """`fit`; with a file (.npz), finished or begun work is taken from there, without variables.

    Raises:
      ValueError: If the file is of another fit, naming the difference.
    """
    fitted = functools.partial(
        fit, key, net, problem, settings, validation=validation, truth=truth, progress=progress
    )
    if file is None:
        return fitted()
    checkpoint = Checkpoint(pathlib.Path(file).with_suffix(".checkpoint"))
    of = {"key": key, "network": net, "problem": problem, "settings": settings}
    of |= {"validation": validation, "truth": truth}
    arrays = records.once(file, of, lambda: fitted(checkpoint=checkpoint).arrays())
    checkpoint.path.unlink(missing_ok=True)
    return Fit.of_arrays(arrays)
