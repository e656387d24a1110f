"""Scores of untrained networks: how well their random outputs fit an observation.

Genotypes share their random numbers: initialisation k draws the same weights
for a module, and the same noise map, whichever genotype it is in. So what
genotypes have in common is computed once; see `sharing`.
"""

import functools
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
from isnas_jax.sharing import Shared, forward

WEIGHTS = ("fresh", "shared")
BLOCK = 200
BATCH = 16


def _batches(num: int, batch: int | None) -> list[np.ndarray]:
    """Which initialisations to compute together."""
    if num < 1 or (batch is not None and batch < 1):
        raise ValueError(f"num_inits {num} and batch {batch} must be at least 1")
    if batch is None:
        batch = 1 if jax.default_backend() == "cpu" else BATCH
    return [np.arange(start, min(start + batch, num)) for start in range(0, num, batch)]


def _over_inits(function: Callable[[Any], Any], inits: np.ndarray) -> Any:
    """The function of each initialisation, stacked: one program for several, none for one."""
    if len(inits) > 1:
        return jax.vmap(function)(inits)
    return jax.tree.map(lambda value: value[None], function(inits[0]))


def _keys(key: jax.Array, index: Any, weights: str) -> tuple[jax.Array, jax.Array]:
    """The keys of the noise map and of the weights of one initialisation."""
    if weights not in WEIGHTS:
        raise ValueError(f"weights {weights!r} is not a choice; choose from {', '.join(WEIGHTS)}")
    z_key = jax.random.fold_in(jax.random.fold_in(key, 0), index)
    drawn = index if weights == "fresh" else 0
    return z_key, jax.random.fold_in(jax.random.fold_in(key, 1), drawn)


def random_outputs(
    key: jax.Array,
    net: Any,
    shape: Sequence[int],
    num: int,
    *,
    weights: str = "fresh",
    batch: int | None = None,
) -> jax.Array:
    """Outputs of an untrained network.

    Args:
      key: Random key; the first n of a longer draw are the draw of n.
      net: The network.
      shape: (H, W, C) of the image.
      num: How many outputs K.
      weights: "fresh" draws weights and z for each output; "shared" draws
        only z, the weights once, as the published dataset study did.
      batch: How many to compute together; by default 1 on CPUs, 16 elsewhere.

    Returns:
      (K, H, W, C).
    """

    def output(index):
        z_key, init_key = _keys(key, index, weights)
        image, _ = net.init_with_output(init_key, draw_noise_map(z_key, net, shape))
        return image[0, : shape[0], : shape[1]]

    return jnp.concatenate([_over_inits(output, inits) for inits in _batches(num, batch)])


@functools.partial(jax.jit, static_argnames="metrics")
def _evaluate(output, problem, metrics):
    view = problem.operator(output[0, : problem.shape[0], : problem.shape[1]])
    return {name: metric(problem.observed, view) for name, metric in metrics}


def score_many(
    key: jax.Array,
    genotypes: Sequence[Genotype],
    problems: Sequence[Problem],
    metrics: Mapping[str, Metric],
    *,
    num_inits: int = 1,
    channels: int = 128,
    weights: str = "fresh",
    batch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, np.ndarray]]:
    """`score` for several problems of images of one size, from the same random outputs."""
    shapes = {problem.shape for problem in problems}
    if len(shapes) != 1:
        raise ValueError(f"the problems' images must be of one size, not {sorted(shapes)}")
    (shape,) = shapes
    nets = [
        build_network(genotype, out_channels=shape[2], channels=channels) for genotype in genotypes
    ]
    done = 0

    def of_one_init(index):
        nonlocal done
        z_key, init_key = _keys(key, index, weights)
        shared = Shared(init_key, draw_noise_map(z_key, nets[0], shape))
        values = []
        for net in nets:
            output = forward(net, shared)
            values.append(
                [_evaluate(output, problem, tuple(metrics.items())) for problem in problems]
            )
            # Run ahead of the device by one network only: each holds memory.
            jax.block_until_ready(values[-2:-1])
            done += len(inits)
            if progress:
                progress(done, len(nets) * num_inits)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *values)

    scores = []
    for inits in _batches(num_inits, batch):
        scores.append(jax.device_get(_over_inits(of_one_init, inits)))
    return jax.tree.map(lambda *parts: np.concatenate(parts).T, *scores)


def score(
    key: jax.Array,
    genotypes: Sequence[Genotype],
    problem: Problem,
    metrics: Mapping[str, Metric],
    **options: Any,
) -> dict[str, np.ndarray]:
    """Scores genotypes by comparing operator(random output) with the observation.

    Args:
      key: Random key.
      genotypes: N genotypes that are possible at this width; it goes fastest
        if those of one cell follow each other.
      problem: The observation; no clean image comes near.
      metrics: Metrics by name.
      **options: `num_inits`, random outputs K of each genotype, 1 by default;
        `channels`, width of the networks, 128; `weights`, see
        `random_outputs`; `batch`, how many initialisations to compute
        together, by default 1 on CPUs, 16 elsewhere; `progress`, called with
        the evaluations done and N K.

    Returns:
      For each metric, (N, K) float32; lower is better. The mean over K is
      the score, the standard deviation its spread.
    """
    (values,) = score_many(key, genotypes, [problem], metrics, **options)
    return values


def score_in_blocks(
    key: jax.Array,
    genotypes: Sequence[Genotype],
    *arguments: Any,
    folder: pathlib.Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> dict[str, np.ndarray]:
    """`score` in blocks, cell by cell: finished blocks are kept in a folder and found there."""
    order = sorted(range(len(genotypes)), key=lambda index: genotypes[index])
    evaluations = len(genotypes) * options.get("num_inits", 1)
    blocks = []
    for start in range(0, len(order), BLOCK):
        block = [genotypes[index] for index in order[start : start + BLOCK]]
        before = evaluations * start // len(genotypes)

        def report(done: int, _: int, before: int = before) -> None:
            if progress:
                progress(before + done, evaluations)

        def compute(block: Any = block, report: Any = report) -> dict[str, np.ndarray]:
            return score(key, block, *arguments, progress=report, **options)

        file = folder / f"scores_{start:05d}.npz" if folder else None
        blocks.append(records.once(file, compute))
    back = np.argsort(order)
    return {name: np.concatenate([block[name] for block in blocks])[back] for name in blocks[0]}
