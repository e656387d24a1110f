"""Scores of untrained networks: how well their random outputs fit an observation.

Networks share their random numbers: initialization k draws the same weights
for a module, and the same noise map, whichever network it is in. So what
genotypes have in common is computed once (see `_sharing`); on request, the genotypes
of a cell are taken in batches instead (see `_cellwise`). Images are float32
(H, W, C) in [0, 1].
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from isnas_jax import _keys, _programs
from isnas_jax.fitting import draw_noise_map
from isnas_jax.io import records
from isnas_jax.networks import SearchedNetwork, cell_network, check_network, describe
from isnas_jax.problems import Problem, check_problem
from isnas_jax.registry import shown
from isnas_jax.searching._cellwise import measure
from isnas_jax.searching._sharing import PROGRAMS, Shared, forward
from isnas_jax.searching.metrics import Metric

BLOCK = 200
BATCH = 16


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
        """Indices of the draws, by what is computed together."""
        size = self.batch or (1 if jax.default_backend() == "cpu" else BATCH)
        return [np.arange(first, min(first + size, self.num)) for first in range(0, self.num, size)]

    def keys(self, key: jax.Array, index: Any) -> tuple[jax.Array, jax.Array]:
        """The keys of the noise map and of the weights of one draw."""
        z_key = jax.random.fold_in(jax.random.fold_in(key, 0), index)
        drawn = 0 if self.shared_weights else index
        return z_key, jax.random.fold_in(jax.random.fold_in(key, 1), drawn)


def _stacked(function: Callable[[Any], Any], indices: np.ndarray) -> Any:
    """The function of each index, stacked: one program for several, none for one."""
    if len(indices) > 1:
        return jax.vmap(function)(indices)
    return jax.tree.map(lambda value: value[None], function(indices[0]))


def _output(net: Any, shared: Shared) -> jax.Array:
    """(1, H', W', C) of an untrained network."""
    if isinstance(net, SearchedNetwork):
        return forward(net, shared)

    def make():
        return jax.jit(lambda key, z: net.init_with_output(key, z)[0])

    drawn = shared.key, shared.z
    return PROGRAMS.get((net, _programs.shapes(*drawn)), make)(*drawn)


def random_outputs(
    key: jax.Array, net: Any, shape: Sequence[int], inits: RandomInits = RandomInits()
) -> jax.Array:
    """Outputs (K, H, W, C) of an untrained network for images of a shape (H, W, C)."""
    _keys.check(key)
    check_network(net)

    def output(index):
        z_key, init_key = inits.keys(key, index)
        shared = Shared(init_key, draw_noise_map(z_key, net, shape))
        return _output(net, shared)[0, : shape[0], : shape[1]]

    with jax.enable_x64(False):
        return jnp.concatenate([_stacked(output, indices) for indices in inits.batches()])


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
    check_metrics(metrics, problem)

    def precise(leaf):
        leaf = np.asarray(leaf)
        return leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf

    host = jax.local_devices(backend="cpu")[0]
    with jax.enable_x64(True), jax.default_device(host):
        outputs, problem = jax.tree.map(precise, (outputs, problem))
        return jax.device_get(_measure(outputs, problem, metrics))


def check_metrics(metrics: Any, problem: Problem) -> None:
    """ValueError unless these are metrics by name that can compare with this observation."""
    if not isinstance(metrics, Mapping) or not metrics or not all(map(callable, metrics.values())):
        raise ValueError(
            f"metrics are a dictionary of functions by name, at least one, not {shown(metrics)}; "
            "{name: isnas_jax.METRICS[name]} is one"
        )
    for metric in metrics.values():
        jax.eval_shape(metric, problem.observed, problem.observed)


def _measure(
    outputs: jax.Array, problem: Problem, metrics: Mapping[str, Metric]
) -> dict[str, jax.Array]:
    """Metrics of operator(output), by one program; outputs (K, H, W, C)."""

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
    progress: Callable[[int, int], None] | None = None,
    together: bool = False,
) -> dict[str, np.ndarray]:
    """Scores networks by comparing operator(random output) with the observation.

    They are worked off in blocks, those of one cell after each other, whatever
    their order here.

    Args:
      key: Random key.
      nets: N networks.
      problem: The observation; no clean image comes near.
      metrics: Metrics by name.
      inits: Which random outputs of each network, K of them.
      folder: Where to keep finished blocks, and to find them; others may be there too.
      progress: Called with the evaluations done and N K.
      together: Compute genotypes of a cell in batches, by one program a cell, which
        pays on an accelerator for a thousand evaluations a cell (docs/accelerators.md).

    Returns:
      For each metric, (N, K) float32; lower is better. The mean over K is
      the score, the standard deviation its spread.

    Raises:
      ValueError: For no networks, no metrics, or what is none.
    """
    _keys.check(key)
    check_problem(problem)
    check_metrics(metrics, problem)
    if not isinstance(nets, Sequence) or not nets:
        raise ValueError(f"networks are a list of at least one, not {shown(nets)}")
    for net in nets:
        check_network(net)
    _programs.check_concrete("what is scored", key, problem)
    problem = _programs.in_32_bits(problem)
    order = sorted(range(len(nets)), key=lambda index: describe(nets[index]))
    total = len(nets) * inits.num
    score_block = _score_cells if together else _score_block
    blocks = []
    for first in range(0, len(order), BLOCK):
        block = [nets[index] for index in order[first : first + BLOCK]]

        def report(done: int, before: int = first * inits.num) -> None:
            if progress:
                progress(before + done, total)

        def compute(block: Any = block, report: Any = report) -> dict[str, np.ndarray]:
            with jax.enable_x64(False):
                return score_block(key, block, problem, metrics, inits, report)

        of = {"key": key, "networks": block, "problem": problem, "metrics": metrics, "inits": inits}
        file = records.cache_path(folder, "scores", of) if folder else None
        blocks.append(records.cached(file, of, compute))
    back = np.argsort(order)
    return {name: np.concatenate([block[name] for block in blocks])[back] for name in metrics}


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

    def of_one_draw(index):
        nonlocal done
        z_key, init_key = inits.keys(key, index)
        shared: dict[int, Shared] = {}
        values = []
        for net in nets:
            entering = net.in_channels
            if entering not in shared:
                z = draw_noise_map(z_key, net, problem.shape)
                shared[entering] = Shared(init_key, z)
            output = _output(net, shared[entering])[:, :height, :width]
            values.append(_measure(output, problem, metrics))
            # Run ahead of the device by one network only: each holds memory.
            jax.block_until_ready(values[-2:-1])
            done += len(indices)
            report(done)
        return {name: jnp.concatenate([value[name] for value in values]) for name in metrics}

    scores = []
    for indices in inits.batches():
        scores.append(jax.device_get(_stacked(of_one_draw, indices)))
    return {name: np.concatenate([part[name] for part in scores]).T for name in metrics}


def _score_cells(
    key: jax.Array,
    nets: Sequence[Any],
    problem: Problem,
    metrics: Mapping[str, Metric],
    inits: RandomInits,
    report: Callable[[int], None],
) -> dict[str, np.ndarray]:
    """`_score_block` by one program a cell."""
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
            drawn = jax.vmap(functools.partial(inits.keys, key))(indices)
            at_once = min(len(members), max(1, BATCH // len(indices)))
            for first in range(0, len(members), at_once):
                batch = members[first : first + at_once]
                # All batches of one size, for one program: the last genotype again.
                filled = batch + batch[-1:] * (at_once - len(batch))
                values = measure(joint, [bits for _, bits in filled], drawn, problem, metrics)
                rows = np.array([position for position, _ in batch])
                for name, found in jax.device_get(values).items():
                    scores[name][np.ix_(rows, indices)] = found[: len(batch)]
                done += len(batch) * len(indices)
                report(done)
    if others:
        rest = [nets[position] for position in others]
        found = _score_block(key, rest, problem, metrics, inits, lambda more: report(done + more))
        for name in metrics:
            scores[name][others] = found[name]
    return scores
