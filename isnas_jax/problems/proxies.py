"""Smaller stand-ins for a problem, made from the observation alone.

A proxy takes a problem to another of the same task. `PROXIES` makes them from a
side in pixels of the observation; add your own.
"""

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from isnas_jax.problems.problem import Problem
from isnas_jax.registry import Registry

SMALLEST_SIDE = 16

Proxy: TypeAlias = Callable[[Problem], Problem]


@dataclasses.dataclass(frozen=True)
class Whole:
    """The problem itself."""

    def __call__(self, problem: Problem) -> Problem:
        return problem


@dataclasses.dataclass(frozen=True)
class _Sized:
    """A proxy of a given size.

    Attributes:
      size: Side in pixels of the observation.
    """

    size: int

    def __post_init__(self) -> None:
        if self.size < SMALLEST_SIDE:
            raise ValueError(
                f"a proxy of {self.size} pixels is too small; the smallest side is {SMALLEST_SIDE}"
            )


class Crop(_Sized):
    """The center, at most `size` pixels a side: noise and mask stay as they are."""

    def __call__(self, problem: Problem) -> Problem:
        def cut(pixels):
            top, left = (max(side - self.size, 0) // 2 for side in pixels.shape[:2])
            return pixels[top : top + self.size, left : left + self.size]

        return problem.cut(cut)


class Decimate(_Sized):
    """Evenly spaced rows and columns, the shorter side being `size`: nothing is blended."""

    def __call__(self, problem: Problem) -> Problem:
        def cut(pixels):
            scale = max(min(pixels.shape[:2]) / self.size, 1.0)
            rows, columns = (
                ((np.arange(round(side / scale)) + 0.5) * scale).astype(int).clip(max=side - 1)
                for side in pixels.shape[:2]
            )
            return pixels[rows][:, columns]

        return problem.cut(cut)


class Resize(_Sized):
    """An antialiased resize, the shorter side being `size`, as in the published code.

    It averages the noise away, so that its strength is not known any more.
    Missing pixels cannot be averaged: ValueError.
    """

    def __call__(self, problem: Problem) -> Problem:
        def cut(pixels):
            scale = max(min(pixels.shape[:2]) / self.size, 1.0)
            height, width = (round(side / scale) for side in pixels.shape[:2])
            with jax.enable_x64(False):  # its weights would else be float64
                size = height, width, pixels.shape[2]
                return jax.image.resize(pixels, size, "lanczos3").clip(0, 1)

        first = problem.weights[0, 0, 0]
        if bool((problem.weights != first).any()):
            raise ValueError(
                "a mask cannot be averaged: its weights stay only 0 and 1 in the proxies "
                "'full', 'crop' and 'decimate'"
            )
        small = problem.cut(cut)
        weights = jnp.full_like(small.weights, first)
        return dataclasses.replace(small, weights=weights, sigma=None)


def _whole(size: int) -> Whole:
    del size
    return Whole()


PROXIES: Registry[Callable[[int], Proxy]] = Registry(
    "proxy", {"full": _whole, "crop": Crop, "decimate": Decimate, "resize": Resize}
)
