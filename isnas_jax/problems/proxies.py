"""Proxies: smaller problems of the same task, computed from the observation alone.

A proxy is a function from a problem to a problem.
"""

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from isnas_jax.problems.problem import Problem

MIN_SIDE = 16

Proxy: TypeAlias = Callable[[Problem], Problem]


@dataclasses.dataclass(frozen=True)
class _SizedProxy:
    """A proxy with a given size.

    Attributes:
      size: Side of the observation in pixels, at least 16.
    """

    size: int

    def __post_init__(self) -> None:
        if self.size < MIN_SIDE:
            raise ValueError(
                f"a proxy of {self.size} pixels is too small; the smallest side is {MIN_SIDE}"
            )


class Crop(_SizedProxy):
    """The center, with sides of at most `size`; noise and mask are unchanged."""

    def __call__(self, problem: Problem) -> Problem:
        def crop(pixels):
            top, left = (max(side - self.size, 0) // 2 for side in pixels.shape[:2])
            return pixels[top : top + self.size, left : left + self.size]

        return problem.shrink(crop)


class Decimate(_SizedProxy):
    """Evenly spaced rows and columns, `size` along the shorter side, without averaging."""

    def __call__(self, problem: Problem) -> Problem:
        def decimate(pixels):
            scale = max(min(pixels.shape[:2]) / self.size, 1.0)
            rows, columns = (
                ((np.arange(round(side / scale)) + 0.5) * scale).astype(int).clip(max=side - 1)
                for side in pixels.shape[:2]
            )
            return pixels[rows][:, columns]

        return problem.shrink(decimate)


class Resize(_SizedProxy):
    """An antialiased resize, `size` along the shorter side, as in the published code.

    Averaging reduces the noise, so the proxy's sigma is None. It raises ValueError for
    problems with missing pixels, since a mask cannot be averaged.
    """

    def __call__(self, problem: Problem) -> Problem:
        def resize(pixels):
            scale = max(min(pixels.shape[:2]) / self.size, 1.0)
            height, width = (round(side / scale) for side in pixels.shape[:2])
            with jax.enable_x64(False):  # else the resampling weights would be float64
                shape = height, width, pixels.shape[2]
                return jax.image.resize(pixels, shape, "lanczos3").clip(0, 1)

        weight = problem.weights[0, 0, 0]
        if bool((problem.weights != weight).any()):
            raise ValueError(
                "the proxy 'resize' cannot average a mask, because its weights must stay 0 or 1; "
                "choose from full, crop, decimate"
            )
        proxy = problem.shrink(resize)
        return dataclasses.replace(proxy, weights=jnp.full_like(proxy.weights, weight), sigma=None)
