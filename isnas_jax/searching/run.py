"""A run: the inputs and keys that its stages share, and its jobs."""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, as_completed
from itertools import chain
from typing import Any, NamedTuple

import jax
import numpy as np

from isnas_jax import _keys, _programs
from isnas_jax.fitting import (
    Fit,
    FitConfig,
    FitJob,
    FoldFit,
    cached_fit,
    needs_validation,
    refit,
    unsplit,
    validates,
)
from isnas_jax.problems import Problem, check_problem, pixels
from isnas_jax.running import Event, Pool, Progress, with_stage
from isnas_jax.searching.config import Config
from isnas_jax.searching.presets import quick


class Keys(NamedTuple):
    """The random keys of a run's stages."""

    strategy: jax.Array
    score: jax.Array
    cohort_selection: jax.Array
    split: jax.Array
    fit: jax.Array  # of all networks, each by its name


class FoldProblem(NamedTuple):
    """The problems of one split."""

    training: Problem
    validation: Problem | None


@dataclasses.dataclass
class Run:
    """The inputs that all stages of a run share.

    Attributes:
      problem: The problem to restore.
      config: The config of the run.
      keys: Random keys by stage.
      clean: The clean image, for the PSNR curves only, or None.
      folder: Caches scores and fits, or None.
      progress: Takes events, perhaps in other threads.
      lowest_error: The validation error of the best restoration shown so far.
    """

    problem: Problem
    config: Config
    keys: Keys
    clean: Any
    folder: str | os.PathLike[str] | None
    progress: Progress
    lowest_error: float = float("inf")

    @functools.cached_property
    def folds(self) -> "list[FoldProblem]":
        """The splits of the whole problem that choose the length of a restoration."""
        return split_folds(self.keys.split, self.config.fit, self.problem)

    def show(self, fits: Sequence[Fit]) -> None:
        """Report the image of a member's fits, unless an earlier member was better."""
        image = np.mean([fit.restored for fit in fits], axis=0)
        if image.shape != self.problem.shape:  # of a proxy
            return
        validated = [part for fit in fits for part in fit.fold_fits or (fit,)]
        errors = [
            fit.validation[fit.restored_at] for fit in validated if fit.validation is not None
        ]
        if not errors or np.mean(errors) <= self.lowest_error:
            self.lowest_error = float(np.mean(errors)) if errors else self.lowest_error
            self.progress(Event(("preview",), 1, 1, image=image))


def begin(
    key: jax.Array,
    problem: Problem,
    config: Config | None,
    clean: Any,
    folder: str | os.PathLike[str] | None,
    progress: Progress,
) -> Run:
    """Check the inputs of a run and derive its keys; ValueError for impossible inputs."""
    _keys.check(key)
    check_problem(problem)
    _programs.check_concrete("the inputs of a restoration", key, problem)
    if clean is not None:
        pixels.check_clean_image(clean, problem.shape)
    config = quick(problem) if config is None else config
    if not isinstance(config, Config):
        raise ValueError(
            f"{config!r} is not a Config; isnas_jax.presets.quick(problem) returns one"
        )
    # The first of three parts is reserved for corrupting the image by the same key.
    _, strategy_key, rest = jax.random.split(key, 3)
    keys = Keys(strategy_key, *jax.random.split(rest, 4))
    return Run(problem, config, keys, clean, folder, progress)


def split_folds(key: jax.Array, config: FitConfig, problem: Problem) -> list[FoldProblem]:
    """Split a problem once for each fold, or not at all.

    The key is that of the run, so that all members of a cohort have the same splits and their
    errors are paired.
    """
    if config.split:
        splits = (config.split(key, problem, fold) for fold in range(config.folds))
        folds = [FoldProblem(*split) for split in splits]
    elif needs_validation(config.stopping):
        raise ValueError(f"{type(config.stopping).__name__} needs a split to validate with")
    else:
        folds = [FoldProblem(problem, None)]
    for number, fold in enumerate(folds, start=1):
        if not all((part.weights > 0).any() for part in fold if part):
            raise ValueError(f"fold {number} leaves no measurements to fit or to validate with")
    return folds


def submit_fold_fits(
    run: Run,
    pool: Pool,
    member: Any,
    net: Any,
    folds: Sequence[FoldProblem],
    config: FitConfig,
    stages: Sequence[tuple],
) -> list[Future]:
    """Submit a network's fit of each fold; the stages name the folds' events."""
    # A clean image of another size than the problem's cannot evaluate.
    clean = run.clean if folds[0].training.shape == run.problem.shape else None
    key = _keys.fold_in_names(run.keys.fit, member)
    return [
        pool.submit(
            _fit_fold,
            FitJob(key, net, fold.training, clean, fold.validation),
            unsplit(config),
            run.folder,
            stage,
        )
        for fold, stage in zip(folds, stages, strict=True)
    ]


def _fit_fold(progress: Progress, job: FitJob, config: FitConfig, folder: Any, stage: tuple) -> Fit:
    return cached_fit(job, config, folder, with_stage(progress, *stage))


def submit_validation(
    run: Run, pool: Pool, member: Any, net: Any, number: int = 1, count: int = 1
) -> list[Future]:
    """Submit the validated fits that choose the length of a restoration's refit, if there are any.

    Args:
      run: The run.
      pool: Runs the jobs.
      member: The architecture, which names the key.
      net: Its network.
      number: Its number among the networks to restore with, from 1.
      count: Their number.
    """
    config = run.config.fit
    if not validates(config):
        return []
    first = (number - 1) * config.folds
    stages = [("validate", first + i + 1, count * config.folds) for i in range(config.folds)]
    return submit_fold_fits(run, pool, member, net, run.folds, config, stages)


def submit_restoration(
    run: Run,
    pool: Pool,
    member: Any,
    net: Any,
    fold_fits: Sequence[Fit],
    number: int = 1,
    count: int = 1,
) -> Future:
    """Submit a network's fit to the whole problem, as long as its validated fits chose.

    Arguments are as for `submit_validation`.
    """
    config, stage = run.config.fit, ("restore", number, count)
    if not validates(config):
        folds = split_folds(run.keys.split, unsplit(config), run.problem)
        (future,) = submit_fold_fits(run, pool, member, net, folds, config, [stage])
        return future
    parts = [FoldFit(fold.training, fit) for fold, fit in zip(run.folds, fold_fits, strict=True)]
    job = FitJob(_keys.fold_in_names(run.keys.fit, member), net, run.problem, run.clean)
    return pool.submit(_refit, job, config, parts, run.folder, stage)


def _refit(
    progress: Progress,
    job: FitJob,
    config: FitConfig,
    fold_fits: Sequence[FoldFit],
    folder: Any,
    stage: tuple,
) -> Fit:
    return refit(job, config, fold_fits, folder, with_stage(progress, *stage))


def collect(run: Run, submitted: Mapping[Any, Sequence[Future]]) -> dict[Any, list[Fit]]:
    """Wait for the fits of several members; show those of each as soon as they have ended."""

    def fits(futures: Sequence[Future]) -> list[Fit]:
        return [future.result() for future in futures]

    waiting = dict(submitted)
    for ended in as_completed(chain(*submitted.values())):
        ended.result()  # raises an error without waiting for the member's other fits
        for name in [n for n, futures in waiting.items() if all(f.done() for f in futures)]:
            if finished := fits(waiting.pop(name)):
                run.show(finished)
    return {name: fits(futures) for name, futures in submitted.items()}
