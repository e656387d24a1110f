"""Metrics of untrained networks by one program per cell, for batches of genotypes and inits.

The skips of a genotype are data of the program, so that a few hundred programs serve the whole
space. Weights do not depend on the genotype, so the encoder of an initialization is computed once.
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

# Each is a whole network, used by all genotypes of its cell in turn.
PROGRAMS = _programs.ProgramCache(8)


def measure(
    net: CellNetwork,
    bits: Sequence[np.ndarray],
    keys: tuple[jax.Array, jax.Array],
    problem: Problem,
    metrics: Mapping[str, Metric],
) -> dict[str, jax.Array]:
    """Compute metrics (G, K) of operator(output), for G genotypes of a cell and K initializations.

    The bits are (25,) for each genotype. The keys are K keys of noise maps and K keys of weights.
    """
    arguments = (problem, jnp.stack(bits), *keys)
    key = (net, tuple(metrics.items()), _programs.shapes(arguments))

    def make():
        options = _programs.compiler_options()
        return jax.jit(_program(net, problem.shape, metrics), compiler_options=options)

    return PROGRAMS.get(key, make)(*arguments)


def lower_scores(
    net: SearchedNetwork,
    problem: Problem,
    metrics: Mapping[str, Metric],
    target: str | jax.Device,
    *,
    genotypes: int = 1,
    inits: int = 1,
) -> jax.stages.Lowered:
    """Lower the program that scores genotypes of a network's cell.

    Args:
      net: A network of the cell.
      problem: As for `score`.
      metrics: As for `score`.
      target: As for `isnas_jax.fitting.lower_steps`.
      genotypes: Number of genotypes in a batch.
      inits: Number of initializations in a batch.
    """
    joint, bits = cell_network(net)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), inits))
    batch = jax.ShapeDtypeStruct((genotypes, *bits.shape), bits.dtype)
    arguments = (jax.eval_shape(lambda: problem), batch, keys, keys)
    return _programs.lower(jax.jit(_program(joint, problem.shape, metrics)), arguments, target)


def _program(net: CellNetwork, shape: Sequence[int], metrics: Mapping[str, Metric]) -> Any:
    """Return a function (problem, bits (G, 25), keys (K,), keys (K,)) -> (G, K) per metric."""
    height, width = shape[:2]

    def evaluate_init(problem, bits, z_key, init_key):
        z = draw_noise_map(z_key, net, shape)
        weights = net.lazy_init(init_key, jax.ShapeDtypeStruct(z.shape, z.dtype))

        def evaluate_genotype(bits):
            output: Any = net.apply({**weights, "skips": {"bits": bits}}, z)
            image = problem.operator(output[0, :height, :width])
            return {name: metric(problem.observed, image) for name, metric in metrics.items()}

        return jax.vmap(evaluate_genotype)(bits)

    return jax.vmap(evaluate_init, (None, None, 0, 0), 1)
