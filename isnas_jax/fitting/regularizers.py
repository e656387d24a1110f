"""Regularizers: terms added to a problem's loss.

A regularizer is a hashable function (output, problem) -> scalar that JAX can trace; output is
the network's image, float32 (H, W, C).
"""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp

from isnas_jax.problems import Problem


class Regularizer(Protocol):
    """See the module's docstring."""

    def __call__(self, output: jax.Array, problem: Problem) -> jax.Array: ...


@dataclasses.dataclass(frozen=True)
class TotalVariation:
    """Anisotropic total variation: weight * mean(abs(x(i + 1) - x(i))), rows plus columns.

    Liu et al., "Image Restoration Using Total Variation Regularized Deep Image Prior", ICASSP
    2019.

    >>> isnas.FitConfig(600, regularizers=(isnas.TotalVariation(0.01),)).regularizers
    (TotalVariation(weight=0.01),)
    """

    weight: float

    def __call__(self, output: jax.Array, problem: Problem) -> jax.Array:
        del problem
        rows, columns = (jnp.abs(jnp.diff(output, axis=axis)).mean() for axis in (0, 1))
        return self.weight * (rows + columns)
