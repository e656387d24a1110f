"""Scores of untrained networks: metrics of their random outputs, compared with an observation.

All networks share their random numbers: initialization k draws the same noise map, and the same
weights for a module, whichever network contains it. So the parts that genotypes have in common are
computed once (`_shared_forward`); on request, genotypes of one cell run in batches instead
(`_cell_programs`). Images are float32 (H, W, C) in [0, 1].
"""

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from isnas_jax import _keys, _programs
from isnas_jax.fitting import draw_noise_map
from isnas_jax.io import cache
from isnas_jax.networks import SearchedNetwork, cell_network, check_network, describe
from isnas_jax.problems import Problem, check_problem
from isnas_jax.registry import short_repr
from isnas_jax.running import Event, Progress, ignore
from isnas_jax.searching._cell_programs import measure
from isnas_jax.searching._shared_forward import PROGRAMS, Shared, forward
from isnas_jax.searching.metrics import Metric

# Networks with scores in one cached file.
BLOCK = 200
# Outputs that an accelerator computes together.
BATCH = 16
# Networks that a batch of outputs may run ahead of the device: each holds memory.
_RUN_AHEAD = 20


@dataclasses.dataclass(frozen=True)
class RandomInits:
    """The random initializations at which an untrained network is evaluated.

    Attributes:
      num: Number of initializations, K. The first n of a longer list are the list of n.
      shared_weights: Draw the weights once for all K outputs, so that only the noise map z
        differs between them, as the published dataset study did.
      batch: Number of outputs computed together; by default 1 on CPUs, 16 elsewhere.

    Raises:
      ValueError: If a number is below 1.
    """

    num: int = 1
    shared_weights: bool = False
    batch: int | None = None

    def __post_init__(self) -> None:
        if self.num < 1 or (self.batch is not None and self.batch < 1):
            raise ValueError(
                f"the number of initializations {self.num} and the batch {self.batch} must be at "
                "least 1"
            )

    def batches(self) -> list[np.ndarray]:
        """Return the indices of the initializations, by batch."""
        size = self.batch or (1 if jax.default_backend() == "cpu" else BATCH)
        return [np.arange(first, min(first + size, self.num)) for first in range(0, self.num, size)]

    def keys(self, key: jax.Array, index: Any) -> tuple[jax.Array, jax.Array]:
        """Return the keys of the noise map and of the weights of one initialization."""
        z_key = jax.random.fold_in(jax.random.fold_in(key, 0), index)
        drawn = 0 if self.shared_weights else index
        return z_key, jax.random.fold_in(jax.random.fold_in(key, 1), drawn)


def _stacked(function: Callable[[Any], Any], indices: np.ndarray) -> Any:
    """Apply a function to each index and stack the results; vectorized for several."""
    if len(indices) > 1:
        return jax.vmap(function)(indices)
    return jax.tree.map(lambda value: value[None], function(indices[0]))


def _output(net: Any, shared: Shared) -> jax.Array:
    """Return the output (1, H', W', C) of an untrained network."""
    if isinstance(net, SearchedNetwork):
        return forward(net, shared)

    def make():
        return jax.jit(lambda key, z: net.init_with_output(key, z)[0])

    arguments = shared.key, shared.z
    return PROGRAMS.get((net, _programs.shapes(*arguments)), make)(*arguments)


def random_outputs(
    key: jax.Array, net: Any, shape: Sequence[int], inits: RandomInits = RandomInits()
) -> jax.Array:
    """Return outputs (K, H, W, C) of an untrained network.

    Args:
      key: Random key of noise maps and weights.
      net: A network.
      shape: (H, W, C) of the images.
      inits: The random initializations, K of them.
    """
    _keys.check(key)
    check_network(net)

    def output(index):
        z_key, init_key = inits.keys(key, index)
        shared = Shared(init_key, draw_noise_map(z_key, net, shape))
        return _output(net, shared)[0, : shape[0], : shape[1]]

    with jax.enable_x64(False):
        return jnp.concatenate([_stacked(output, indices) for indices in inits.batches()])


def score_outputs(
    outputs: Any, problem: Problem, metrics: Mapping[str, Metric]
) -> dict[str, np.ndarray]:
    """Compute metrics of given outputs in float64, on the host if it has a CPU backend.

    `score` is faster and ranks as well. But a histogram of a dB spectrum depends on its smallest
    values, which float32 does not resolve.

    Args:
      outputs: (K, H, W, C).
      problem: Its observation is compared with operator(output).
      metrics: Metrics by name.

    Returns:
      (K,) float64 for each metric.
    """
    check_metrics(metrics, problem)

    def precise(leaf):
        leaf = np.asarray(leaf)
        return leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf

    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
        host = jax.local_devices()[0]
    with jax.enable_x64(True), jax.default_device(host):
        outputs, problem = jax.tree.map(precise, (outputs, problem))
        return jax.device_get(_measure(outputs, problem, metrics))


def check_metrics(metrics: Any, problem: Problem) -> None:
    """Raise ValueError unless these are metrics by name that accept this observation."""
    if not isinstance(metrics, Mapping) or not metrics or not all(map(callable, metrics.values())):
        raise ValueError(
            f"metrics {short_repr(metrics)} must be a dictionary of at least one function by name, "
            'such as {"mine": isnas_jax.psd_db_mse}'
        )
    for name, metric in metrics.items():
        value = jax.eval_shape(metric, problem.observed, problem.observed)
        if getattr(value, "shape", None) != ():
            raise ValueError(f"metric {name!r} returns {value}; it must return a scalar")


def _measure(
    outputs: jax.Array, problem: Problem, metrics: Mapping[str, Metric]
) -> dict[str, jax.Array]:
    """Compute metrics of operator(output) by one program; outputs are (K, H, W, C)."""

    def measure(outputs, problem):
        views = jax.vmap(problem.operator)(outputs)
        return {
            name: jax.vmap(metric, (None, 0))(problem.observed, views)
            for name, metric in metrics.items()
        }

    key = (tuple(metrics.items()), _programs.shapes(outputs, problem))
    return PROGRAMS.get(key, lambda: jax.jit(measure))(outputs, problem)


def score(
    key: jax.Array,
    nets: Sequence[Any],
    problem: Problem,
    metrics: Mapping[str, Metric],
    inits: RandomInits = RandomInits(),
    *,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress = ignore,
    batched: bool = False,
) -> dict[str, np.ndarray]:
    """Score networks by comparing operator(random output) with the observation.

    Args:
      key: Random key.
      nets: N networks.
      problem: The problem; scores see its observation, never a clean image.
      metrics: Metrics by name.
      inits: The random initializations, K of them.
      folder: Caches scores on disk, in blocks of 200 networks.
      progress: Called with the stage ("score",) and the evaluations done, of N K.
      batched: Compute genotypes of a cell in batches, by one program per cell. This pays on an
        accelerator for about a thousand evaluations per cell (docs/accelerators.md).

    Returns:
      (N, K) float32 for each metric; lower is better. The mean over K is the score, the standard
      deviation its spread.

    Raises:
      ValueError: Without networks or metrics, or if one of them is of another type.
    """
    _keys.check(key)
    check_problem(problem)
    check_metrics(metrics, problem)
    if not isinstance(nets, Sequence) or not nets:
        raise ValueError(f"nets must be a list of at least one network, not {short_repr(nets)}")
    for net in nets:
        check_network(net)
    _programs.check_concrete("the inputs of a score", key, problem)
    problem = _programs.in_32_bits(problem)
    order = sorted(range(len(nets)), key=lambda index: describe(nets[index]))
    total = len(nets) * inits.num
    score_block = _score_cells if batched else _score_block
    blocks, begin = [], time.perf_counter()
    for first in range(0, len(order), BLOCK):
        block = [nets[index] for index in order[first : first + BLOCK]]

        def report(done: int, before: int = first * inits.num) -> None:
            progress(Event(("score",), before + done, total, seconds=time.perf_counter() - begin))

        def compute(block: Any = block, report: Any = report) -> dict[str, np.ndarray]:
            with jax.enable_x64(False):
                return score_block(key, block, problem, metrics, inits, report)

        inputs = {"key": key, "networks": block, "problem": problem}
        inputs |= {"metrics": metrics, "inits": inits}
        file = cache.cache_path(folder, "scores", inputs) if folder else None
        blocks.append(cache.cached(file, inputs, compute))
    original = np.argsort(order)
    return {name: np.concatenate([block[name] for block in blocks])[original] for name in metrics}


def _score_block(
    key: jax.Array,
    nets: Sequence[Any],
    problem: Problem,
    metrics: Mapping[str, Metric],
    inits: RandomInits,
    report: Callable[[int], None],
) -> dict[str, np.ndarray]:
    height, width, _ = problem.shape
    done = 0

    def evaluate_init(index: Any, nets: Sequence[Any], count: int) -> dict[str, jax.Array]:
        """Evaluate networks at one initialization, or at a traced batch of so many."""
        nonlocal done
        z_key, init_key = inits.keys(key, index)
        shared: dict[int, Shared] = {}
        values: list[dict[str, jax.Array]] = []
        for net in nets:
            if net.in_channels not in shared:
                z = draw_noise_map(jax.random.clone(z_key), net, problem.shape)
                shared[net.in_channels] = Shared(init_key, z)
            output = _output(net, shared[net.in_channels])[:, :height, :width]
            values.append(_measure(output, problem, metrics))
            jax.block_until_ready(values[-2:-1])  # run ahead by one network; no effect if traced
            done += count
            report(done)
        return {name: jnp.concatenate([value[name] for value in values]) for name in metrics}

    scores = {name: np.zeros((len(nets), inits.num), np.float32) for name in metrics}
    for indices in inits.batches():
        at_once = len(nets) if len(indices) == 1 else _RUN_AHEAD
        for first in range(0, len(nets), at_once):
            rows = slice(first, first + at_once)
            evaluate = functools.partial(evaluate_init, nets=nets[rows], count=len(indices))
            for name, array in jax.device_get(_stacked(evaluate, indices)).items():
                scores[name][rows, indices] = array.T
    return scores


def _score_cells(
    key: jax.Array,
    nets: Sequence[Any],
    problem: Problem,
    metrics: Mapping[str, Metric],
    inits: RandomInits,
    report: Callable[[int], None],
) -> dict[str, np.ndarray]:
    """Compute `_score_block` by one program per cell."""
    scores = {name: np.zeros((len(nets), inits.num), np.float32) for name in metrics}
    cells: dict[Any, list[tuple[int, np.ndarray]]] = {}
    others = []
    for position, net in enumerate(nets):
        if isinstance(net, SearchedNetwork):
            joint, bits = cell_network(net)
            cells.setdefault(joint, []).append((position, bits))
        else:
            others.append(position)
    done = 0
    for joint, members in cells.items():
        for indices in inits.batches():
            keys = jax.vmap(functools.partial(inits.keys, key))(indices)
            at_once = min(len(members), max(1, BATCH // len(indices)))
            for first in range(0, len(members), at_once):
                batch = members[first : first + at_once]
                # The last genotype fills up the batch, so that one program serves all.
                filled = batch + batch[-1:] * (at_once - len(batch))
                values = measure(joint, [bits for _, bits in filled], keys, problem, metrics)
                rows = np.array([position for position, _ in batch])
                for name, array in jax.device_get(values).items():
                    scores[name][np.ix_(rows, indices)] = array[: len(batch)]
                done += len(batch) * len(indices)
                report(done)
    if others:
        rest = [nets[position] for position in others]
        single = _score_block(key, rest, problem, metrics, inits, lambda n: report(done + n))
        for name, array in single.items():
            scores[name][others] = array
    return scores
