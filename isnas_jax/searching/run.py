"""A run: the inputs and keys that its stages share, and its fits."""

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from isnas_jax import _keys, _programs
from isnas_jax.fitting import Fit, FitConfig, FitJob, cached_fit, refit
from isnas_jax.problems import Problem, check_problem, pixels
from isnas_jax.running import Event, Pool, Progress, with_stage
from isnas_jax.searching.config import Config
from isnas_jax.searching.presets import quick

# The training problem and the validation problem of a fold; without a split, problem and None.
FoldProblems: TypeAlias = tuple[Problem, Problem | None]


class Keys(NamedTuple):
    """The random keys of a run's stages."""

    strategy: jax.Array
    score: jax.Array
    cohort_selection: jax.Array
    split: jax.Array
    fit: jax.Array  # of all networks, each by its name


@dataclasses.dataclass
class Run:
    """The inputs that all stages of a run share; see `search`."""

    problem: Problem
    config: Config
    keys: Keys
    clean: Any
    folder: str | os.PathLike[str] | None
    progress: Progress
    lowest_error: float = float("inf")  # validation error of the best restoration shown so far

    @functools.cached_property
    def folds(self) -> list[FoldProblems]:
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


def split_folds(key: jax.Array, config: FitConfig, problem: Problem) -> list[FoldProblems]:
    """Split a problem once for each fold, or not at all.

    The key is that of the run, so that all members of a cohort have the same splits and their
    errors are paired.
    """
    folds: list[FoldProblems] = [(problem, None)]
    if config.split:
        folds = [config.split(key, problem, fold) for fold in range(config.folds)]
    for number, fold in enumerate(folds, start=1):
        if not all((part.weights > 0).any() for part in fold if part):
            raise ValueError(f"fold {number} leaves no measurements to fit or to validate with")
    return folds


def _run_stage(progress: Progress, stage: tuple, fit: Callable[..., Fit], *args: Any) -> Fit:
    """Job of a pool: fit, and report events under a stage."""
    return fit(*args, progress=with_stage(progress, *stage))


def _job(run: Run, name: str, net: Any, problem: Problem, validation: Problem | None) -> FitJob:
    # A clean image of another size than the problem's cannot evaluate.
    clean = run.clean if problem.shape == run.problem.shape else None
    return FitJob(_keys.fold_in_names(run.keys.fit, name), net, problem, clean, validation)


def submit_fits(
    run: Run,
    pool: Pool,
    networks: Mapping[str, Any],
    folds: Sequence[FoldProblems],
    config: FitConfig,
    stages: Iterator[tuple],
) -> dict[str, list[Future]]:
    """Submit the fits of networks, by their names, to each fold; each fit takes a stage."""
    return {
        name: [
            pool.submit(
                _run_stage,
                next(stages),
                cached_fit,
                _job(run, name, net, *fold),
                config.unsplit(),
                run.folder,
            )
            for fold in folds
        ]
        for name, net in networks.items()
    }


def numbered(kind: str, count: int) -> Iterator[tuple]:
    """Yield the stages of fits of one kind; a custom cohort may have more than planned."""
    return ((kind, number, count) for number in itertools.count(1))


def fit_whole(
    run: Run,
    pool: Pool,
    networks: Mapping[str, Any],
    validated: Mapping[str, Sequence[Fit]] | None = None,
) -> dict[str, Fit]:
    """Fit networks, by their names, to the whole problem, as long as validated fits chose.

    The validated fits of each network, one per fold, are computed unless they are given.
    """
    config, stages = run.config.fit, numbered("restore", len(networks))
    if config.validates:
        if validated is None:
            parts = numbered("validate", len(networks) * config.folds)
            futures = submit_fits(run, pool, networks, run.folds, config, parts)
            validated = collect(run, futures)
        training, _ = run.folds[0]
        futures = {
            name: [
                pool.submit(
                    _run_stage,
                    next(stages),
                    refit,
                    _job(run, name, net, run.problem, None),
                    config,
                    validated[name],
                    training,
                    run.folder,
                )
            ]
            for name, net in networks.items()
        }
    else:
        futures = submit_fits(run, pool, networks, [(run.problem, None)], config, stages)
    return {name: fit for name, (fit,) in collect(run, futures).items()}


def collect(run: Run, submitted: Mapping[str, Sequence[Future]]) -> dict[str, list[Fit]]:
    """Wait for the fits of networks; show those of each as soon as they have ended."""
    fits: dict[str, list[Fit]] = {}
    for ended in as_completed(itertools.chain(*submitted.values())):
        ended.result()  # raises an error without waiting for the network's other fits
        for name, futures in submitted.items():
            if name not in fits and all(future.done() for future in futures):
                fits[name] = [future.result() for future in futures]
                run.show(fits[name])
    return fits
