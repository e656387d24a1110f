"""Splits of a problem into a training problem to fit and a validation problem.

A split is a function (key, problem, fold=0) -> (training, validation). The validation error of
a restoration is `validation.error(image)`. Folds with the same key validate with different
measurements, or with different noise.
"""

import dataclasses
import math
from typing import Protocol

import jax
import jax.numpy as jnp

from isnas_jax import _keys
from isnas_jax.problems.problem import Problem


class Split(Protocol):
    """A function from a key, a problem and a fold to (training, validation)."""

    def __call__(
        self, key: jax.Array, problem: Problem, fold: int = 0
    ) -> tuple[Problem, Problem]: ...


@dataclasses.dataclass(frozen=True)
class HoldOut:
    """Hold out a random fraction of the measurements, in all channels.

    Measurements are the known pixels of the observation. Folds hold out disjoint sets: fold 0
    exactly round(fraction * known), later folds the same number up to one.

    Attributes:
      fraction: Fraction to hold out, between 0 and 1, exclusive.
    """

    fraction: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction {self.fraction} must be between 0 and 1, exclusive")

    def __call__(self, key: jax.Array, problem: Problem, fold: int = 0) -> tuple[Problem, Problem]:
        _keys.check(key)
        known = (problem.weights > 0).any(axis=-1)
        num_known = int(known.sum())
        start, end = (round(index * self.fraction * num_known) for index in (fold, fold + 1))
        if not start < end <= num_known:
            raise ValueError(
                f"fold {fold} of fraction {self.fraction} is not available from {num_known} "
                f"measurements; choose from 0 to {math.floor(1 / self.fraction + 1e-9) - 1}, or "
                "a larger fraction"
            )
        # All folds are parts of one random order, in which missing measurements are last.
        position = jax.random.uniform(jax.random.clone(key), known.shape, jnp.float32)
        order = jnp.argsort(jnp.where(known, position, 2.0), axis=None)
        # Comparing ranks avoids a slice of the order, which would compile for every size.
        ranks = jnp.argsort(order)
        held_out = ((start <= ranks) & (ranks < end)).reshape(*known.shape, 1)
        return _restrict(problem, ~held_out), _restrict(problem, held_out)


def _restrict(problem: Problem, mask: jax.Array) -> Problem:
    """Set weights and observed values outside of a mask (h, w, 1) to 0."""
    weights = jnp.where(mask, problem.weights, 0)
    observed = jnp.where(weights > 0, problem.observed, 0)
    return dataclasses.replace(problem, observed=observed, weights=weights)


@dataclasses.dataclass(frozen=True)
class CoupledBootstrap:
    """Add noise twice: y + sqrt(alpha) w for training, y - w / sqrt(alpha) for validation.

    Here w ~ N(0, sigma^2). If the noise of y is normal with this sigma, the noises of the two
    problems are independent (Oliveira, Lei and Tibshirani, arXiv 2111.09447). No measurement
    is lost, but sigma must be known.

    Attributes:
      alpha: Variance of the noise added for training, relative to sigma^2. A larger alpha
        makes the validation error more precise and the fit worse.
    """

    alpha: float = 0.15

    def __post_init__(self) -> None:
        if not 0 < self.alpha < float("inf"):
            raise ValueError(f"alpha {self.alpha} must be positive and finite")

    def __call__(self, key: jax.Array, problem: Problem, fold: int = 0) -> tuple[Problem, Problem]:
        if problem.sigma is None:
            raise ValueError("the coupled bootstrap needs a problem with a known sigma")
        _keys.check(key)
        key = jax.random.fold_in(key, fold)
        noise = problem.sigma / 255 * jax.random.normal(key, problem.observed.shape, jnp.float32)

        def add_noise(factor: float) -> Problem:
            return dataclasses.replace(
                problem,
                observed=problem.observed + factor * noise,
                sigma=problem.sigma * (1 + factor**2) ** 0.5,
            )

        root = self.alpha**0.5
        return add_noise(root), add_noise(-1 / root)


def without_measurements(problem: Problem) -> Problem:
    """Return a copy of the problem with all weights 0."""
    return dataclasses.replace(problem, weights=jnp.zeros_like(problem.weights))
