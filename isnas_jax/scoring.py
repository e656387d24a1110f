"""Scores of untrained networks: how well their random outputs fit an observation.

Everything is computed operation by operation outside of jit: an operation at
one shape is compiled once for the whole search space, whole networks never
are. Genotypes share their random numbers: initialisation k draws the same
weights for a module, and the same noise map, whichever genotype it is in.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from isnas_jax import records
from isnas_jax.fitting import draw_noise_map
from isnas_jax.genotypes import Genotype
from isnas_jax.metrics import Metric
from isnas_jax.networks import build_network
from isnas_jax.observations import Problem

WEIGHTS = ("fresh", "shared")
BLOCK = 50


def random_outputs(
    key: jax.Array,
    net: Any,
    shape: Sequence[int],
    num: int,
    *,
    weights: str = "fresh",
    vectorize: bool | None = None,
) -> jax.Array:
    """Outputs of an untrained network.

    Args:
      key: Random key; the first n of a longer draw are the draw of n.
      net: The network.
      shape: (H, W, C) of the image.
      num: How many outputs K.
      weights: "fresh" draws weights and z for each output; "shared" draws
        only z, the weights once, as the published dataset study did.
      vectorize: Run the K outputs as one batch instead of one by one; by
        default where there is an accelerator.

    Returns:
      (K, H, W, C).
    """
    if weights not in WEIGHTS:
        raise ValueError(f"weights {weights!r} is not a choice; choose from {', '.join(WEIGHTS)}")
    if num < 1:
        raise ValueError(f"the number of initialisations must be at least 1, not {num}")

    def output(index):
        z_key = jax.random.fold_in(jax.random.fold_in(key, 0), index)
        init_key = jax.random.fold_in(jax.random.fold_in(key, 1), index)
        if weights == "shared":
            init_key = jax.random.fold_in(jax.random.fold_in(key, 1), 0)
        image, _ = net.init_with_output(init_key, draw_noise_map(z_key, net, shape))
        return image[0, : shape[0], : shape[1]]

    if vectorize is None:
        vectorize = jax.default_backend() != "cpu"
    if vectorize:
        return jax.vmap(output)(jnp.arange(num))
    return jnp.stack([output(index) for index in range(num)])


def score(
    key: jax.Array,
    genotypes: Sequence[Genotype],
    problem: Problem,
    metrics: Mapping[str, Metric],
    *,
    num_inits: int = 1,
    channels: int = 128,
    weights: str = "fresh",
    vectorize: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Scores genotypes by comparing operator(random output) with the observation.

    Args:
      key: Random key.
      genotypes: N genotypes that are possible at this width.
      problem: The observation; no clean image comes near.
      metrics: Metrics by name.
      num_inits: Random outputs K of each genotype.
      channels: Width of the networks.
      weights: See `random_outputs`.
      vectorize: See `random_outputs`.
      progress: Called with the genotypes done and N.

    Returns:
      For each metric, (N, K) float32; lower is better. The mean over K is
      the score, the standard deviation its spread.
    """

    @jax.jit
    def evaluate(outputs, problem):
        views = jax.vmap(problem.operator)(outputs)
        return {
            name: jax.vmap(metric, (None, 0))(problem.observed, views)
            for name, metric in metrics.items()
        }

    values = []
    for done, genotype in enumerate(genotypes, start=1):
        net = build_network(genotype, out_channels=problem.shape[2], channels=channels)
        outputs = random_outputs(
            key, net, problem.shape, num_inits, weights=weights, vectorize=vectorize
        )
        values.append(jax.device_get(evaluate(outputs, problem)))
        if progress:
            progress(done, len(genotypes))
    return {name: np.stack([value[name] for value in values]) for name in metrics}


def score_in_blocks(
    key: jax.Array,
    genotypes: Sequence[Genotype],
    *arguments: Any,
    folder: pathlib.Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> dict[str, np.ndarray]:
    """`score`, block by block: finished blocks are kept in a folder and found there again."""
    blocks = []
    for start in range(0, len(genotypes), BLOCK):

        def report(done: int, _: int, start: int = start) -> None:
            if progress:
                progress(start + done, len(genotypes))

        def compute(start: int = start, report: Any = report) -> dict[str, np.ndarray]:
            block = genotypes[start : start + BLOCK]
            return score(key, block, *arguments, progress=report, **options)

        file = folder / f"scores_{start:05d}.npz" if folder else None
        blocks.append(records.once(file, compute))
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
