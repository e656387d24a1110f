"""What can be added to a problem's loss.

A term is a hashable callable, (output, problem) -> scalar, traceable; output is
the network's image (H, W, C). `REGULARIZERS` makes terms from a weight; add your own.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from isnas_jax.problems import Problem
from isnas_jax.registry import Registry


class Regularizer(Protocol):
    """See the module's docstring."""

    def __call__(self, output: jax.Array, problem: Problem) -> jax.Array: ...


@dataclasses.dataclass(frozen=True)
class TotalVariation:
    """weight * mean |x(i + 1) - x(i)|, summed over rows and columns (anisotropic).

    Added to a deep image prior by Liu et al., "Image Restoration Using Total
    Variation Regularized Deep Image Prior", ICASSP 2019.
    """

    weight: float

    def __call__(self, output: jax.Array, problem: Problem) -> jax.Array:
        del problem
        rows, columns = (jnp.abs(jnp.diff(output, axis=axis)).mean() for axis in (0, 1))
        return self.weight * (rows + columns)


REGULARIZERS: Registry[Callable[[float], Regularizer]] = Registry(
    "loss term", {"total variation": TotalVariation}
)
