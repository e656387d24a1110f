"""Scores of untrained networks: metrics of their random outputs, compared with an observation.

All networks share their random numbers: initialization k draws the same noise map, and the same
weights for a module, whichever network contains it. So the parts that genotypes have in common are
computed once (`_shared_forward`); on request, genotypes of one cell run in batches instead
(`_cell_programs`). Images are float32 (H, W, C) in [0, 1].
"""

import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

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
from isnas_jax.searching._shared_forward import PROGRAMS, Shared
from isnas_jax.searching.initializations import BATCH, RandomInits, stacked, untrained_output
from isnas_jax.searching.metrics import Metric
from isnas_jax.searching.network_metrics import NetworkMetric, score_network

AnyMetric: TypeAlias = Metric | NetworkMetric

# Networks with scores in one cached file.
BLOCK = 200
# Networks that a batch of outputs may run ahead of the device: each holds memory.
_RUN_AHEAD = 20


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
        if isinstance(metric, NetworkMetric):
            continue
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
    metrics: Mapping[str, AnyMetric],
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
      metrics: Metrics by name; those of images are fast, those of networks take about as long as
        a few gradients.
      inits: The random initializations, K of them.
      folder: Caches scores on disk, in blocks of 200 networks.
      progress: Called with the stage ("score",) and the evaluations done, of N K for metrics of
        images and as many for those of networks.
      batched: Compute genotypes of a cell in batches, by one program per cell. This pays on an
        accelerator for about a thousand evaluations per cell (docs/accelerators.md).

    Returns:
      (N, K) float32 for each metric; lower is better. The mean over K is the score, the standard
      deviation its spread.

    Raises:
      ValueError: Without networks or metrics, or if one of them is of another type.
    """
    options: Any = {"folder": folder, "progress": progress, "batched": batched}
    return score_problems(key, nets, [problem], metrics, inits, **options)[0]


def score_problems(
    key: jax.Array,
    nets: Sequence[Any],
    problems: Sequence[Problem],
    metrics: Mapping[str, AnyMetric],
    inits: RandomInits = RandomInits(),
    *,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress = ignore,
    batched: bool = False,
) -> list[dict[str, np.ndarray]]:
    """Run `score` for several problems of one shape, which share the random outputs."""
    _keys.check(key)
    for problem in problems:
        check_problem(problem)
        check_metrics(metrics, problem)
        if problem.shape != problems[0].shape:
            raise ValueError(f"problems of shapes {problems[0].shape} and {problem.shape} differ")
    if not isinstance(nets, Sequence) or not nets:
        raise ValueError(f"nets must be a list of at least one network, not {short_repr(nets)}")
    for net in nets:
        check_network(net)
    _programs.check_concrete("the inputs of a score", key, *problems)
    problems = _programs.in_32_bits(tuple(problems))
    order = sorted(range(len(nets)), key=lambda index: describe(nets[index]))
    num_kinds = len({isinstance(metric, NetworkMetric) for metric in metrics.values()})
    total = len(nets) * inits.num * num_kinds
    blocks, begin = [], time.perf_counter()
    for first in range(0, len(order), BLOCK):
        block = [nets[index] for index in order[first : first + BLOCK]]

        def report(done: int, before: int = first * inits.num * num_kinds) -> None:
            progress(Event(("score",), before + done, total, seconds=time.perf_counter() - begin))

        def compute(block: Any = block, report: Any = report) -> dict[str, np.ndarray]:
            with jax.enable_x64(False):
                return _score_kinds(key, block, problems, metrics, inits, report, batched)

        inputs = {"key": key, "networks": block, "problems": problems}
        inputs |= {"metrics": metrics, "inits": inits}
        file = cache.cache_path(folder, "scores", inputs) if folder else None
        blocks.append(cache.cached(file, inputs, compute))
    original = np.argsort(order)
    scores = {name: np.hstack([block[name] for block in blocks])[:, original] for name in metrics}
    return [
        {name: array[position] for name, array in scores.items()}
        for position in range(len(problems))
    ]


def _score_kinds(
    key: jax.Array,
    nets: Sequence[Any],
    problems: Sequence[Problem],
    metrics: Mapping[str, AnyMetric],
    inits: RandomInits,
    report: Callable[[int], None],
    batched: bool,
) -> dict[str, np.ndarray]:
    """Return (P, N, K) scores of P problems, by metrics of images and of networks."""
    of_networks: Any = {
        name: metric for name, metric in metrics.items() if isinstance(metric, NetworkMetric)
    }
    of_images: Any = {name: metrics[name] for name in metrics if name not in of_networks}
    scores: dict[str, np.ndarray] = {}
    if of_networks:
        rows = []
        for done, net in enumerate(nets, start=1):
            rows.append(score_network(key, net, problems, of_networks, inits))
            report(done * inits.num)
        scores |= {name: np.stack([row[name] for row in rows], axis=1) for name in of_networks}
    before = (len(nets) if of_networks else 0) * inits.num

    def report_images(done: int) -> None:
        report(before + done)

    if of_images and batched:
        each = [_score_cells(key, nets, one, of_images, inits, report_images) for one in problems]
        scores |= {name: np.stack([values[name] for values in each]) for name in of_images}
    elif of_images:
        scores |= _score_block(key, nets, problems, of_images, inits, report_images)
    return scores


def _score_block(
    key: jax.Array,
    nets: Sequence[Any],
    problems: Sequence[Problem],
    metrics: Mapping[str, Metric],
    inits: RandomInits,
    report: Callable[[int], None],
) -> dict[str, np.ndarray]:
    shape = problems[0].shape
    done = 0

    def evaluate_init(index: Any, nets: Sequence[Any], count: int) -> dict[str, jax.Array]:
        """Evaluate networks at one initialization, or at a traced batch of so many."""
        nonlocal done
        z_key, init_key = inits.keys(key, index)
        shared: dict[int, Shared] = {}
        values: list[dict[str, jax.Array]] = []
        for net in nets:
            if net.in_channels not in shared:
                z = draw_noise_map(jax.random.clone(z_key), net, shape)
                shared[net.in_channels] = Shared(init_key, z)
            output = untrained_output(net, shared[net.in_channels])[:, : shape[0], : shape[1]]
            each = [_measure(output, problem, metrics) for problem in problems]
            values.append({name: jnp.stack([one[name] for one in each]) for name in metrics})
            jax.block_until_ready(values[-2:-1])  # run ahead by one network; no effect if traced
            done += count
            report(done)
        return {name: jnp.hstack([value[name] for value in values]) for name in metrics}

    size = len(problems), len(nets), inits.num
    scores = {name: np.zeros(size, np.float32) for name in metrics}
    for indices in inits.batches():
        at_once = len(nets) if len(indices) == 1 else _RUN_AHEAD
        for first in range(0, len(nets), at_once):
            rows = slice(first, first + at_once)
            evaluate = functools.partial(evaluate_init, nets=nets[rows], count=len(indices))
            for name, array in jax.device_get(stacked(evaluate, indices)).items():
                scores[name][:, rows, indices] = np.moveaxis(array, 0, -1)
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
        single = _score_block(key, rest, [problem], metrics, inits, lambda n: report(done + n))
        for name, array in single.items():
            scores[name][others] = array[0]
    return scores
