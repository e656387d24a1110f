"""Whole recipes by name.

A preset is a function of the problem, which decides as a rule by its task. The
numbers that others follow from are its keywords. `PRESETS` holds ours; add
your own.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

from isnas_jax.fitting import STOPPING, FitConfig
from isnas_jax.fitting.stopping import StoppingRule
from isnas_jax.networks import SPACES, NetworkConfig
from isnas_jax.problems import (
    PROXIES,
    TASKS,
    CoupledBootstrap,
    HoldOut,
    Problem,
    Proxy,
    Split,
)
from isnas_jax.registry import Registry
from isnas_jax.searching.cohort import top_half
from isnas_jax.searching.combination import Stack
from isnas_jax.searching.config import Config, SearchConfig
from isnas_jax.searching.selection import least_validation
from isnas_jax.searching.strategies import RandomSearch


class Preset(Protocol):
    """See the module's docstring.

    Args:
      problem: What is known of the image.
      iterations: Of the restoration.
      cohort_iterations: Of a fit of the cohort.
      stopping: Makes the stopping rule of either from its iterations.
    """

    def __call__(
        self,
        problem: Problem,
        *,
        iterations: int | None = None,
        cohort_iterations: int | None = None,
        stopping: Callable[[int], StoppingRule] | None = None,
    ) -> Config: ...


def _proxy(problem: Problem, name: str) -> Proxy:
    """A proxy of 64 pixels, or the whole where an operator cannot be cut."""
    return PROXIES[name if hasattr(problem.operator, "cut") else "full"](64)


def validating(problem: Problem) -> Split:
    """The coupled bootstrap where the noise is known, else held-out measurements."""
    return CoupledBootstrap() if problem.sigma else HoldOut()


def _longest(problem: Problem) -> int:
    """The most iterations that `quick` gives a fit (docs/decisions.md, "When to stop")."""
    return min(2400, max(800, round(20000 / float(problem.sigma)))) if problem.sigma else 800


def quick(
    problem: Problem,
    *,
    iterations: int | None = None,
    cohort_iterations: int | None = None,
    stopping: Callable[[int], StoppingRule] | None = None,
) -> Config:
    """Small enough for two cores: a few genotypes, of which the better half is fitted.

    Each is fitted to what a split leaves of the problem until its validation
    error is least, then to everything, and the result is the mean whose
    validation error is least. Under noise two of four light genotypes, 16 channels wide,
    and the observation are members, and the refit goes on from halfway. In inpainting and
    super-resolution two of eight genotypes, 32 channels wide, DIP and NAS-DIP are members,
    three folds decide, and the whole is fitted from the start, 1.5 times as long as the
    parts. Fits run 800 iterations at most; the less noise there is, the longer, 20000 / sigma.
    docs/decisions.md, "The fast default", has the measurements.
    """
    stopping = stopping or STOPPING["validation"]
    whole = _longest(problem) if iterations is None else iterations
    part = whole if cohort_iterations is None else cohort_iterations
    noisy = problem.task not in ("inpainting", "super_resolution")
    fit = FitConfig(
        whole,
        stopping(whole),
        split=validating(problem),
        folds=1 if noisy else 3,
        refit_factor=0.9 if noisy else 1.5,
        refit_from=0.5 if noisy else 0.0,
        debias=True,
    )
    return Config(
        NetworkConfig(channels=16 if noisy else 32),
        fit,
        SearchConfig(
            strategy=RandomSearch(4 if noisy else 8),
            cohort=2,
            space=SPACES["light" if noisy else "free"],
            cohort_selection=top_half,
            extra_members=("observed",) if noisy else ("dip", "nas-dip"),
            proxy=PROXIES["full"](64),
            fit=dataclasses.replace(fit, iterations=part, stopping=stopping(part)),
            selection=least_validation,
            combination=Stack(),
        ),
    )


def published(
    problem: Problem,
    *,
    iterations: int | None = None,
    cohort_iterations: int | None = None,
    stopping: Callable[[int], StoppingRule] | None = None,
) -> Config:
    """The paper's numbers: 128 channels, 5000 genotypes, a cohort of 15, fixed iterations.

    The cohort is fitted to the image resized to 64 pixels in denoising, every
    n-th row and column in inpainting (a mask cannot be averaged), and the whole
    in super-resolution.
    """
    stopping = stopping or STOPPING["fixed"]
    whole = TASKS[problem.task].iterations if iterations is None else iterations
    proxy, part = {
        "inpainting": ("decimate", 1200),
        "super_resolution": ("full", whole),
    }.get(problem.task, ("resize", 1200))
    part = part if cohort_iterations is None else cohort_iterations
    return Config(
        NetworkConfig(channels=128),
        FitConfig(whole, stopping(whole)),
        SearchConfig(
            strategy=RandomSearch(5000),
            cohort=15,
            proxy=_proxy(problem, proxy),
            fit=FitConfig(part, stopping(part)),
        ),
    )


PRESETS: Registry[Preset] = Registry("preset", {"quick": quick, "published": published})
