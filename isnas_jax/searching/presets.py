"""Presets: configs that fit a problem.

A preset is a function (problem) -> Config, which usually depends on the task only. Change a config
with `dataclasses.replace`.
"""

import dataclasses
from typing import Any, Protocol

from isnas_jax.fitting import FitConfig, LeastValidation
from isnas_jax.networks import Baseline, NetworkConfig, dip, free_space, light_space, nas_dip
from isnas_jax.problems import (
    Classical,
    CoupledBootstrap,
    Decimate,
    HoldOut,
    Problem,
    Resize,
    Split,
    observed,
)
from isnas_jax.searching.cohort import top_half
from isnas_jax.searching.config import Config, SearchConfig
from isnas_jax.searching.portfolios import Portfolio
from isnas_jax.searching.selection import Stack, lowest_validation
from isnas_jax.searching.strategies import RandomSearch, Strategy

# Published iterations of the restoration and of a cohort fit, by task.
PUBLISHED_ITERATIONS = {"inpainting": (9500, 1200), "super_resolution": (4500, 4500)}
# Members of the quick cohort that exist for a task.
_EXTRA_MEMBERS: dict[str, tuple[Baseline | Classical, ...]] = {
    "denoising": (observed,),
    "inpainting": (dip, nas_dip),
    "super_resolution": (dip, nas_dip),
}


class Preset(Protocol):
    """See the module's docstring."""

    def __call__(self, problem: Problem) -> Config: ...


def validation_split(problem: Problem) -> Split:
    """Return the coupled bootstrap if the noise is known, else held-out measurements."""
    return CoupledBootstrap() if problem.sigma else HoldOut()


def _longest(problem: Problem) -> int:
    """Return the largest number of iterations of `quick` (docs/decisions.md, "When to stop")."""
    return min(2400, max(800, round(20000 / float(problem.sigma)))) if problem.sigma else 800


def quick(problem: Problem, **fit_changes: Any) -> Config:
    """Return the default: a small cohort, for two cores.

    Every network is fitted to a part of the measurements until its validation error is lowest,
    for at most 800 iterations (20000 / sigma, up to 2400, if that is more), then refitted to
    all. The result is the combination with the lowest validation error. In denoising the cohort
    has the first three genotypes of the portfolio, 16 channels wide, and the observation; the
    refit starts halfway. In inpainting and super-resolution it has two of eight genotypes, 32
    channels wide, DIP and NAS-DIP; three folds decide, and the refit starts from the
    initialization and takes 1.5 times as long. docs/decisions.md has the measurements. Other tasks
    are treated as denoising, with three of four light genotypes and without the observation.

    Args:
      problem: The problem to restore.
      **fit_changes: Fields of `FitConfig` that replace those of the preset.
    """
    noisy = problem.task not in ("inpainting", "super_resolution")
    fit = FitConfig(
        _longest(problem),
        LeastValidation(),
        split=validation_split(problem),
        folds=1 if noisy else 3,
        refit_factor=0.9 if noisy else 1.5,
        refit_from=0.5 if noisy else 0.0,
        debias=True,
    )
    strategy: Strategy = RandomSearch(4 if noisy else 8)
    if problem.task == "denoising":
        strategy = Portfolio()
    search = SearchConfig(
        strategy=strategy,
        cohort=3 if noisy else 2,
        space=light_space if noisy else free_space,
        cohort_selection=top_half,
        extra_members=_EXTRA_MEMBERS.get(problem.task, ()),
        selection=lowest_validation,
        combination=Stack(),
    )
    network = NetworkConfig(channels=16 if noisy else 32)
    return Config(network, dataclasses.replace(fit, **fit_changes), search)


def published(problem: Problem, **fit_changes: Any) -> Config:
    """Return the paper's config: 128 channels, 5000 genotypes, a cohort of 15, fixed iterations.

    The cohort is fitted to the image resized to 64 pixels in denoising, to every n-th row and
    column in inpainting (a mask cannot be averaged), and to the whole in super-resolution.

    Args:
      problem: The problem to restore.
      **fit_changes: Fields of `FitConfig` that replace those of the restoration and the cohort.
    """
    whole, part = PUBLISHED_ITERATIONS.get(problem.task, (1200, 1200))
    proxy = {"inpainting": Decimate(64), "super_resolution": None}.get(problem.task, Resize(64))
    if not hasattr(problem.operator, "shrink"):
        proxy = None
    fit = FitConfig(whole)
    search = SearchConfig(
        strategy=RandomSearch(5000),
        cohort=15,
        proxy=proxy,
        fit=dataclasses.replace(FitConfig(part), **fit_changes) if proxy else None,
    )
    return Config(NetworkConfig(channels=128), dataclasses.replace(fit, **fit_changes), search)
