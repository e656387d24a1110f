"""Fits that are kept: found where they are finished, resumed where they are not."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from isnas_jax.fitting.config import FitConfig
from isnas_jax.fitting.loop import Progress, fit
from isnas_jax.fitting.result import Fit, Start
from isnas_jax.fitting.stopping import needs_validation
from isnas_jax.io import Checkpoint, records
from isnas_jax.problems import Problem, nothing


def cached_fit(
    key: jax.Array,
    net: Any,
    problem: Problem,
    config: FitConfig,
    *,
    validation: Problem | None = None,
    clean: Any = None,
    folder: str | os.PathLike[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Fit:
    """`fit`; with a folder, finished or begun work is taken from there.

    A fit with a folder keeps no variables, and `start` only if it was computed by this call.

    Args:
      key: As for `fit`.
      net: As for `fit`.
      problem: As for `fit`.
      config: As for `fit`.
      validation: As for `fit`.
      clean: As for `fit`.
      folder: Where to keep and to find it by what it is of, beside other fits.
      progress: As for `fit`.
    """
    fitted = functools.partial(
        fit, key, net, problem, config, validation=validation, clean=clean, progress=progress
    )
    of = {"key": key, "network": net, "problem": problem, "config": config}
    return _stored(folder, of | {"validation": validation, "clean": clean}, fitted)


def _stored(
    folder: str | os.PathLike[str] | None, of: Mapping[str, Any], fitted: Callable[..., Fit]
) -> Fit:
    """Compute a fit, or take it finished or begun from a folder by what it depends on."""
    if folder is None:
        return fitted()
    file = records.cache_path(folder, "fit", of)
    checkpoint = Checkpoint(file.with_suffix(".checkpoint"))
    start: Start | None = None

    def compute() -> dict[str, np.ndarray]:
        nonlocal start
        result = fitted(checkpoint=checkpoint)
        start = result.start
        return result.arrays()

    arrays = records.cached(file, of, compute)
    checkpoint.path.unlink(missing_ok=True)
    return dataclasses.replace(Fit.of_arrays(arrays), start=start)


def validates(config: FitConfig) -> bool:
    """Whether the iteration to restore with is found by a fit to a part of the measurements."""
    return config.split is not None and needs_validation(config.stopping)


def unsplit(config: FitConfig) -> FitConfig:
    """The settings of a fit that is given its part of what was split."""
    return dataclasses.replace(config, split=None, folds=1, refit_factor=1.0)


class Part(NamedTuple):
    """A fit to a part of the measurements.

    Attributes:
      problem: The part.
      fit: The validated fit to it.
    """

    problem: Problem
    fit: Fit


def refit(
    key: jax.Array,
    net: Any,
    problem: Problem,
    config: FitConfig,
    parts: Sequence[Part],
    *,
    clean: Any = None,
    folder: str | os.PathLike[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Fit:
    """Fit to all measurements for as long as fits to parts of them say.

    A split costs quality, for what validates is not fitted. So the rule decides
    on the split's part, and the same network is then fitted to everything, by the
    same program, for as many iterations in all: the mean over the folds, times the
    settings' `refit_factor`. The first `refit_from` of the first fold's iterations
    are those of its fit, which are not run again if the fit is at hand; the mean
    begins where the refit leaves them. So the noise that was added to the part is
    forgotten, while most of the way is not gone twice.

    Args:
      key: That of the parts' fits.
      net: That of the parts' fits.
      problem: All that is known of the image.
      config: Those of the parts' fits.
      parts: The fits to the folds' parts of the problem.
      clean: The clean image (H, W, C), for the PSNR curves only.
      folder: As for `cached_fit`.
      progress: As for `fit`.

    Returns:
      The fit, with curves of all iterations in order.
    """
    stops = [part.fit.restored_at + 1 for part in parts]
    iterations = max(1, round(config.refit_factor * sum(stops) / len(stops)))
    left_at = min(round(config.refit_from * stops[0]), iterations - 1)
    whole = dataclasses.replace(unsplit(config), refit_from=0.0, iterations=iterations - left_at)
    first = parts[0]

    def fitted(**options: Any) -> Fit:
        begun = _start(key, net, first, config, left_at, clean)._asdict() if left_at else {}
        options |= {"validation": nothing(problem), "clean": clean, "progress": progress}
        return fit(key, net, problem, whole, **begun, **options)

    of = {"key": key, "network": net, "problem": problem, "config": whole, "clean": clean}
    if left_at:
        of |= {"part": first.problem, "left_at": left_at}
    result = _stored(folder, of, fitted)
    curves: dict[str, Any] = {
        name: np.concatenate([before[:left_at], after])
        for name in ("loss", "psnr", "psnr_ema", "criterion")
        if (after := getattr(result, name)) is not None
        and (before := getattr(first.fit, name)) is not None
    }
    # What the rule kept does not count: it has nothing to validate with.
    return dataclasses.replace(
        result,
        restored=result.ema,
        restored_at=iterations - 1,
        parts=tuple(part.fit for part in parts),
        **curves,
    )


def _start(
    key: jax.Array, net: Any, part: Part, config: FitConfig, iterations: int, clean: Any
) -> Start:
    """Return the state of a part's fit after some iterations, recomputed if it is not at hand.

    The truth changes nothing but spares another program: the part's fit had one too.
    """
    if part.fit.start is not None:
        return part.fit.start
    again = dataclasses.replace(unsplit(config), refit_from=0.0, iterations=iterations)
    found = fit(key, net, part.problem, again, validation=nothing(part.problem), clean=clean)
    return Start(found.variables, found.optimizer_state)
