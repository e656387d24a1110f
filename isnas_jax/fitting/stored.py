"""Fits that are kept: found where they are finished, resumed where they are not."""

import dataclasses
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
from isnas_jax.problems import Problem, nothing


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


def validates(settings: FitSettings) -> bool:
    """Whether the iteration to restore with is found by a fit to a part of the measurements."""
    return settings.split is not None and getattr(settings.stopping, "needs_validation", False)


def fit_whole(
    key: jax.Array,
    net: Any,
    problem: Problem,
    settings: FitSettings,
    *,
    part: Fit | None = None,
    truth: Any = None,
    file: str | os.PathLike[str] | None = None,
    progress: Callable[[str, Progress], None] | None = None,
) -> Fit:
    """Fits to all measurements, as long as a fit to a part of them says, where there is a split.

    A split costs quality, for what validates is not fitted. So the rule decides
    on the split's part, and then the same network is fitted anew, from the same
    initialisation and by the same program, to everything for as many
    iterations, times the settings' factor. A rule that needs no validation
    decides on the whole.

    Args:
      key: As for `fit`.
      net: As for `fit`.
      problem: All that is known of the image.
      settings: How to fit.
      part: The fit to the split's part with this key, if it is there already.
      truth: The clean image (H, W, C), for the PSNR curves only.
      file: An .npz file as for `fit_once`; the part's is called FILE_part.
      progress: Called with "validate" or "restore" and where that is.
    """

    def told(stage):
        return progress and functools.partial(progress, stage)

    if not validates(settings):
        alone = dataclasses.replace(settings, split=None)
        return fit_once(key, net, problem, alone, truth=truth, file=file, progress=told("restore"))
    if part is None:
        beside = file and pathlib.Path(file).with_stem(pathlib.Path(file).stem + "_part")
        part = fit_once(
            key, net, problem, settings, truth=truth, file=beside, progress=told("validate")
        )
    factor = settings.refit_factor
    whole = fit_once(
        key,
        net,
        problem,
        dataclasses.replace(settings, iterations=round(factor * (part.restored_at + 1))),
        validation=nothing(problem),
        truth=truth,
        file=file,
        progress=told("restore"),
    )
    return dataclasses.replace(whole, part=part)
