"""Restoration with one architecture, without a search."""

import os
from typing import Any

import jax

from isnas_jax.fitting import Fit
from isnas_jax.networks import dip, network_for
from isnas_jax.problems import Problem
from isnas_jax.running import Progress, Runner, Threads, ignore
from isnas_jax.searching.config import Config
from isnas_jax.searching.run import begin, collect, submit_restoration, submit_validation


def restore(
    key: jax.Array,
    problem: Problem,
    architecture: Any = dip,
    config: Config | None = None,
    *,
    clean: Any = None,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress = ignore,
    runner: Runner = Threads,
) -> Fit:
    """Restore with one architecture; `fit.restored` is the image.

    If the config's fit validates, `fit.fold_fits` are the validated fits that chose the number
    of iterations: see `refit`. The fits equal those of a search with the same key that has the
    architecture in its cohort.

    Args:
      key: Random key of everything.
      problem: The problem to restore.
      architecture: A genotype of the config's space, or a baseline such as `isnas_jax.dip`.
      config: Its network and fit count; by default `presets.quick(problem)`.
      clean: The clean image (H, W, C), for the PSNR curves only.
      folder: Caches fits on disk.
      progress: Takes an `Event` now and then, perhaps in other threads: the stages "validate" and
        "restore", and in this thread "preview" with the best image so far.
      runner: Runs the fits.

    Raises:
      ValueError: For impossible inputs.
      FloatingPointError: If the loss becomes infinite or nan.
    """
    run = begin(key, problem, config, clean, folder, progress)
    net = network_for(problem, architecture, run.config.network, run.config.search.space)
    with runner(progress) as pool:
        futures = submit_validation(run, pool, architecture, net)
        validated = collect(run, {"validated": futures})["validated"]
        future = submit_restoration(run, pool, architecture, net, validated)
        return collect(run, {"restored": [future]})["restored"][0]
