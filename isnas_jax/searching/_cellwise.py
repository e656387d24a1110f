"""Metrics of untrained networks by one program a cell: genotypes and draws in one batch.

Which skips a genotype has is data to the program, so that a few hundred serve
the whole space, and a device has as much to do at once as it holds. Weights do
not depend on the genotype: a draw's encoder is computed once for all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from isnas_jax import _programs
from isnas_jax.fitting import draw_noise_map
from isnas_jax.networks import CellNetwork
from isnas_jax.problems import Problem
from isnas_jax.searching.metrics import Metric

# Each is a whole network, used by all of its cell's genotypes in turn.
PROGRAMS = _programs.Programs(8)


def measure(
    net: CellNetwork,
    bits: Sequence[np.ndarray],
    drawn: tuple[jax.Array, jax.Array],
    problem: Problem,
    metrics: Mapping[str, Metric],
) -> dict[str, jax.Array]:
    """Metrics of operator(output).

    Args:
      net: The network of a cell.
      bits: Of G genotypes, (25,) each.
      drawn: Keys of noise map and weights, K each.
      problem: What to compare with.
      metrics: Metrics by name.

    Returns:
      (G, K) for each metric.
    """
    height, width, _ = problem.shape

    def of_draw(problem, bits, z_key, init_key):
        z = draw_noise_map(z_key, net, problem.shape)
        weights = net.lazy_init(init_key, jax.ShapeDtypeStruct(z.shape, z.dtype))

        def of_genotype(own):
            output: Any = net.apply({**weights, "skips": {"bits": own}}, z)
            seen = problem.operator(output[0, :height, :width])
            return {name: metric(problem.observed, seen) for name, metric in metrics.items()}

        return jax.vmap(of_genotype)(bits)

    def make():
        return jax.jit(
            jax.vmap(of_draw, (None, None, 0, 0), 1),
            compiler_options=_programs.compiler_options(),
        )

    given = (problem, jnp.stack(bits), *drawn)
    return PROGRAMS.get((net, tuple(metrics.items()), _programs.shapes(given)), make)(*given)
