"""Fits that are kept: found where they are finished, resumed where they are not."""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax

from isnas_jax.fitting.loop import Progress, fit
from isnas_jax.fitting.result import Fit
from isnas_jax.fitting.settings import FitSettings
from isnas_jax.fitting.stopping import needs_validation
from isnas_jax.io import Checkpoint, records
from isnas_jax.problems import Problem, nothing


def fit_once(
    key: jax.Array,
    net: Any,
    problem: Problem,
    settings: FitSettings,
    *,
    validation: Problem | None = None,
    truth: Any = None,
    folder: str | os.PathLike[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Fit:
    """`fit`; with a folder, finished or begun work is taken from there, without variables.

    Args:
      key: As for `fit`.
      net: As for `fit`.
      problem: As for `fit`.
      settings: As for `fit`.
      validation: As for `fit`.
      truth: As for `fit`.
      folder: Where to keep and to find it by what it is of, beside other fits.
      progress: As for `fit`.
    """
    fitted = functools.partial(
        fit, key, net, problem, settings, validation=validation, truth=truth, progress=progress
    )
    if folder is None:
        return fitted()
    of = {"key": key, "network": net, "problem": problem, "settings": settings}
    of |= {"validation": validation, "truth": truth}
    file = records.place(folder, "fit", of)
    checkpoint = Checkpoint(file.with_suffix(".checkpoint"))
    arrays = records.once(file, of, lambda: fitted(checkpoint=checkpoint).arrays())
    checkpoint.path.unlink(missing_ok=True)
    return Fit.of_arrays(arrays)


def validates(settings: FitSettings) -> bool:
    """Whether the iteration to restore with is found by a fit to a part of the measurements."""
    return settings.split is not None and needs_validation(settings.stopping)


def unsplit(settings: FitSettings) -> FitSettings:
    """The settings of a fit that is given its part of what was split."""
    return dataclasses.replace(settings, split=None, folds=1, refit_factor=1.0)


def refit(
    key: jax.Array,
    net: Any,
    problem: Problem,
    settings: FitSettings,
    parts: Sequence[Fit],
    *,
    truth: Any = None,
    folder: str | os.PathLike[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Fit:
    """Fits to all measurements for as long as fits to parts of them say.

    A split costs quality, for what validates is not fitted. So the rule decides
    on the split's part, and then the same network is fitted anew, from the same
    initialisation and by the same program, to everything for as many
    iterations, the mean over the folds, times the settings' factor.

    Args:
      key: That of the parts' fits.
      net: That of the parts' fits.
      problem: All that is known of the image.
      settings: Those of the parts' fits.
      parts: The fits to the folds' parts of the problem.
      truth: The clean image (H, W, C), for the PSNR curves only.
      folder: As for `fit_once`.
      progress: As for `fit`.
    """
    mean = sum(part.restored_at + 1 for part in parts) / len(parts)
    iterations = max(1, round(settings.refit_factor * mean))
    whole = fit_once(
        key,
        net,
        problem,
        dataclasses.replace(unsplit(settings), iterations=iterations),
        validation=nothing(problem),
        truth=truth,
        folder=folder,
        progress=progress,
    )
    # What the rule kept does not count: it has nothing to validate with.
    last = len(whole.loss) - 1
    return dataclasses.replace(whole, restored=whole.mean, restored_at=last, parts=tuple(parts))
