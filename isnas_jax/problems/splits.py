"""Splitting what is known into a part to fit and a part to validate with.

A split is a function, (key, problem, fold=0) -> (fitted, validation): two problems
of the same image. The validation error of a restoration is `validation.error(image)`.
Folds of one key validate with different measurements, or different noise. `SPLITS`
makes splits from their one number; add your own.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from isnas_jax import _keys
from isnas_jax.problems.problem import Problem
from isnas_jax.registry import Registry


class Split(Protocol):
    """See the module's docstring."""

    def __call__(
        self, key: jax.Array, problem: Problem, fold: int = 0
    ) -> tuple[Problem, Problem]: ...


@dataclasses.dataclass(frozen=True)
class HoldOut:
    """Leaves a share of the measurements out of the fit, in all channels.

    Measurements are pixels of the observation: known ones in inpainting, small
    ones in super-resolution. Each fold leaves out others: the first
    exactly round(fraction * known), later ones as many, give or take one.

    Attributes:
      fraction: That share, between 0 and 1.
    """

    fraction: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction {self.fraction} must be between 0 and 1, both excluded")

    def __call__(self, key: jax.Array, problem: Problem, fold: int = 0) -> tuple[Problem, Problem]:
        _keys.check(key)
        known = (problem.weights > 0).any(axis=-1)
        number = int(known.sum())
        first, end = (round(share * self.fraction * number) for share in (fold, fold + 1))
        if not first < end <= number:
            raise ValueError(
                f"fold {fold + 1} of {self.fraction} of {number} measurements is none; "
                f"there are {math.floor(1 / self.fraction + 1e-9)} folds of that, of 1 or more"
            )
        # Missing measurements come last in the order of the draw.
        order = jnp.argsort(
            jnp.where(known, jax.random.uniform(key, known.shape, jnp.float32), 2.0), axis=None
        )
        # Ranks instead of a part of the order, which would compile for each of its sizes.
        ranks = jnp.argsort(order)
        out = ((first <= ranks) & (ranks < end)).reshape(*known.shape, 1)
        return _of_these(problem, ~out), _of_these(problem, out)


def _of_these(problem: Problem, these: jax.Array) -> Problem:
    """A problem of some of the measurements; of the others there is nothing left to see."""
    weights = jnp.where(these, problem.weights, 0)
    observed = jnp.where(weights > 0, problem.observed, 0)
    return dataclasses.replace(problem, observed=observed, weights=weights)


@dataclasses.dataclass(frozen=True)
class CoupledBootstrap:
    """Two noisier observations, y + sqrt(alpha) w and y - w / sqrt(alpha), w ~ N(0, sigma^2).

    Their noises are independent if that of y is normal with this sigma, so that
    one can be fitted and the other validates it, without holes (Oliveira, Lei
    and Tibshirani, arXiv 2111.09447).

    Attributes:
      alpha: How much noise is added to what is fitted; more of it makes the
        validation more certain and the fit worse.
    """

    alpha: float = 0.15

    def __post_init__(self) -> None:
        if not 0 < self.alpha < float("inf"):
            raise ValueError(f"alpha {self.alpha} must be positive")

    def __call__(self, key: jax.Array, problem: Problem, fold: int = 0) -> tuple[Problem, Problem]:
        if problem.sigma is None:
            raise ValueError("the coupled bootstrap needs a problem that knows its sigma")
        _keys.check(key)
        key = jax.random.fold_in(key, fold) if fold else key
        noise = problem.sigma / 255 * jax.random.normal(key, problem.observed.shape, jnp.float32)

        def noisier(factor: float) -> Problem:
            return dataclasses.replace(
                problem,
                observed=problem.observed + factor * noise,
                sigma=problem.sigma * (1 + factor**2) ** 0.5,
            )

        root = self.alpha**0.5
        return noisier(root), noisier(-1 / root)


def nothing(problem: Problem) -> Problem:
    """A validation problem without measurements."""
    return dataclasses.replace(problem, weights=jnp.zeros_like(problem.weights))


def hold_out(
    key: jax.Array, problem: Problem, fraction: float = 0.1, fold: int = 0
) -> tuple[Problem, Problem]:
    """`HoldOut(fraction)` of a problem: (fitted, validation)."""
    return HoldOut(fraction)(key, problem, fold)


SPLITS: Registry[Callable[[float], Split]] = Registry(
    "split", {"held-out": HoldOut, "bootstrap": CoupledBootstrap}
)
