"""Splitting what is known into a part to fit and a part to validate with.

A split is a function, (key, problem) -> (fitted, validation): two problems of the
same image. The validation error of a restoration is `validation.error(image)`.
`SPLITS` makes splits from their one number; add your own.
"""

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from isnas_jax.problems.problem import Problem
from isnas_jax.registry import Registry

Split: TypeAlias = Callable[[jax.Array, Problem], tuple[Problem, Problem]]


@dataclasses.dataclass(frozen=True)
class HoldOut:
    """Leaves a share of the measurements out of the fit, in all channels.

    Measurements are pixels of the observation: known ones in inpainting, small
    ones in super-resolution. Exactly round(fraction * known) are left out.

    Attributes:
      fraction: That share, between 0 and 1.
    """

    fraction: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction {self.fraction} must be between 0 and 1, both excluded")

    def __call__(self, key: jax.Array, problem: Problem) -> tuple[Problem, Problem]:
        known = (problem.weights > 0).any(axis=-1)
        count = round(self.fraction * int(known.sum()))
        if count < 1:
            raise ValueError(
                f"a fraction of {self.fraction} of {int(known.sum())} measurements is none"
            )
        # Missing measurements come last in the order of the draw.
        drawn = jnp.where(known, jax.random.uniform(key, known.shape), 2.0)
        out = (drawn <= jnp.sort(drawn.ravel())[count - 1])[..., None]
        return (
            dataclasses.replace(problem, weights=problem.weights * ~out),
            dataclasses.replace(problem, weights=problem.weights * out),
        )


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

    def __call__(self, key: jax.Array, problem: Problem) -> tuple[Problem, Problem]:
        if problem.sigma is None:
            raise ValueError("the coupled bootstrap needs a problem that knows its sigma")
        noise = problem.sigma / 255 * jax.random.normal(key, problem.observed.shape)

        def noisier(factor: float) -> Problem:
            return dataclasses.replace(
                problem,
                observed=problem.observed + factor * noise,
                sigma=problem.sigma * (1 + factor**2) ** 0.5,
            )

        root = self.alpha**0.5
        return noisier(root), noisier(-1 / root)


def nothing(problem: Problem) -> Problem:
    """A validation problem without measurements: its error is nan."""
    return dataclasses.replace(problem, weights=jnp.zeros_like(problem.weights))


def hold_out(key: jax.Array, problem: Problem, fraction: float = 0.1) -> tuple[Problem, Problem]:
    """`HoldOut(fraction)` of a problem: (fitted, validation)."""
    return HoldOut(fraction)(key, problem)


SPLITS: Registry[Callable[[float], Split]] = Registry(
    "split", {"held-out": HoldOut, "bootstrap": CoupledBootstrap}
)
