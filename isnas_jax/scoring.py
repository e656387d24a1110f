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
from isnas_jax.networks import SearchedNetwork, build_network
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
        z = draw_noise_map(z_key, net, shape)
        if isinstance(net, SearchedNetwork):
            image = forward(net, Shared(init_key, z))
        else:
            image, _ = net.init_with_output(init_key, z)
        return image[0, : shape[0], : shape[1]]

    return jnp.concatenate([_over_inits(output, inits) for inits in _batches(num, batch)])


def evaluate(
    outputs: Any, problem: Problem, metrics: Mapping[str, Metric]
) -> dict[str, np.ndarray]:
    """Metrics of given outputs, in float64 on the host.

    `score` is faster, and as good for ranking. But a histogram of a dB
    spectrum hangs on its smallest values, which float32 does not resolve.

    Args:
      outputs: (K, H, W, C).
      problem: What to compare operator(output) with.
      metrics: Metrics by name.

    Returns:
      (K,) float64 for each metric.
    """

    def precise(leaf):
        leaf = np.asarray(leaf)
        return leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf

    host = jax.local_devices(backend="cpu")[0]
    with jax.enable_x64(True), jax.default_device(host):
        outputs, problem = jax.tree.map(precise, (outputs, problem))
        return jax.device_get(_evaluate(outputs, problem, tuple(metrics.items())))


@functools.partial(jax.jit, static_argnames="metrics")
def _evaluate(outputs, problem, metrics):
    views = jax.vmap(problem.operator)(outputs)
    return {name: jax.vmap(metric, (None, 0))(problem.observed, views) for name, metric in metrics}


def score(
    key: jax.Array,
    genotypes: Sequence[Genotype],
    problem: Problem,
    metrics: Mapping[str, Metric],
    *,
    num_inits: int = 1,
    channels: int = 128,
    weights: str = "fresh",
    batch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Scores genotypes by comparing operator(random output) with the observation.

    Args:
      key: Random key.
      genotypes: N genotypes that are possible at this width; it goes fastest
        if those of one cell follow each other.
      problem: The observation; no clean image comes near.
      metrics: Metrics by name.
      num_inits: Random outputs K of each genotype.
      channels: Width of the networks.
      weights: See `random_outputs`.
      batch: How many initialisations to compute together; by default 1 on
        CPUs, 16 elsewhere.
      progress: Called with the evaluations done and N K.

    Returns:
      For each metric, (N, K) float32; lower is better. The mean over K is
      the score, the standard deviation its spread.
    """
    nets = [
        build_network(genotype, out_channels=problem.shape[2], channels=channels)
        for genotype in genotypes
    ]

    @jax.jit
    def evaluate(output, problem):
        view = problem.operator(output[0, : problem.shape[0], : problem.shape[1]])
        return {name: metric(problem.observed, view) for name, metric in metrics.items()}

    done = 0

    def of_one_init(index):
        nonlocal done
        z_key, init_key = _keys(key, index, weights)
        shared = Shared(init_key, draw_noise_map(z_key, nets[0], problem.shape))
        values = []
        for net in nets:
            values.append(evaluate(forward(net, shared), problem))
            # Run ahead of the device by one network only: each holds memory.
            jax.block_until_ready(values[-2:-1])
            done += len(inits)
            if progress:
                progress(done, len(nets) * num_inits)
        return {name: jnp.stack([value[name] for value in values]) for name in metrics}

    scores = []
    for inits in _batches(num_inits, batch):
        scores.append(jax.device_get(_over_inits(of_one_init, inits)))
    return {name: np.concatenate([part[name] for part in scores]).T for name in metrics}


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
