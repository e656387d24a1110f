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
from isnas_jax.networks import CellNetwork, SearchedNetwork, cell_network
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
    given = (problem, jnp.stack(bits), *drawn)
    key = (net, tuple(metrics.items()), _programs.shapes(given))

    def make():
        options = _programs.compiler_options()
        return jax.jit(_program(net, problem.shape, metrics), compiler_options=options)

    return PROGRAMS.get(key, make)(*given)


def lower_scores(
    net: SearchedNetwork,
    problem: Problem,
    metrics: Mapping[str, Metric],
    target: str | jax.Device,
    *,
    genotypes: int = 1,
    inits: int = 1,
) -> jax.stages.Lowered:
    """The program that scores a network's cell, to be compiled and looked at.

    Args:
      net: A network of the cell.
      problem: What outputs are compared with.
      metrics: Metrics by name.
      target: As for `isnas_jax.fitting.lower_steps`.
      genotypes: How many at a time.
      inits: Random outputs of each.
    """
    joint, bits = cell_network(net)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), inits))
    several = jax.ShapeDtypeStruct((genotypes, *bits.shape), bits.dtype)
    given = (jax.eval_shape(lambda: problem), several, keys, keys)
    return _programs.lower(jax.jit(_program(joint, problem.shape, metrics)), given, target)


def _program(net: CellNetwork, shape: Sequence[int], metrics: Mapping[str, Metric]) -> Any:
    """From a problem, bits (G, 25) and two times keys (K,) to (G, K) for each metric."""
    height, width = shape[:2]

    def of_draw(problem, bits, z_key, init_key):
        z = draw_noise_map(z_key, net, shape)
        weights = net.lazy_init(init_key, jax.ShapeDtypeStruct(z.shape, z.dtype))

        def of_genotype(own):
            output: Any = net.apply({**weights, "skips": {"bits": own}}, z)
            seen = problem.operator(output[0, :height, :width])
            return {name: metric(problem.observed, seen) for name, metric in metrics.items()}

        return jax.vmap(of_genotype)(bits)

    return jax.vmap(of_draw, (None, None, 0, 0), 1)
