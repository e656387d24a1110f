"""Fit many: one network to several observations, or genotypes of one cell, by one program."""

import contextlib
import functools
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from isnas_jax import _programs
from isnas_jax.fitting.config import FitConfig
from isnas_jax.fitting.loop import (
    Curves,
    FitState,
    Given,
    Progress,
    check_finite,
    chunk_program,
    finished,
    fit,
    kept_in,
    program_memory,
    recorded,
    start,
)
from isnas_jax.fitting.result import Fit
from isnas_jax.io import Checkpoint
from isnas_jax.networks import SearchedNetwork, cell_network, describe
from isnas_jax.problems import Problem

# Takes a fit's position and where it is.
Heard: TypeAlias = Callable[[int, Progress], None]

# Bytes of each device that a fit in a batch takes, as planned for the last of its kind.
_NEEDED: dict[Hashable, float] = {}

# Batches are planned for all the memory there is.
_DEVICES = threading.RLock()


class FitJob(NamedTuple):
    """One of many fits: what `fit` is given.

    Attributes:
      key: Random key.
      net: The network.
      problem: What is known of the image.
      clean: The clean image, for the PSNR curves only.
      checkpoint: Where to keep its state, and to resume from. That of a fit of `fit`,
        unless different genotypes are fitted together.
    """

    key: jax.Array
    net: Any
    problem: Problem
    clean: Any = None
    checkpoint: Checkpoint | None = None


def fit_many(
    fits: Sequence[FitJob],
    config: FitConfig,
    *,
    together: bool | None = None,
    memory: int | None = None,
    progress: Heard | None = None,
) -> list[Fit]:
    """Fits networks to observations, each on its own, by one compiled program.

    Args:
      fits: What to fit: observations of one task and size by one network, or by
        genotypes of one cell.
      config: As for `fit`; each fit stops on its own.
      together: Run fits in batches, divided among all devices; by default where
        there is an accelerator or more than one device. Otherwise they run one
        after the other.
      memory: Bytes that a batch may take of each device; by default what is
        free, where the device says so. One that needs more by the compiler's plan
        is made smaller, and halved where memory does not suffice after all.
      progress: Called between chunks with a fit's position and where it is.

    Returns:
      What `fit` would for each, up to rounding.

    Raises:
      ValueError: As `fit` does, and if problems or networks differ in size or kind.
      FloatingPointError: As `fit` does; the others are lost, while `fit_stream` goes on.
    """
    found: dict[int, Fit] = {}
    for index, result in fit_stream(
        fits, config, together=together, memory=memory, progress=progress
    ):
        if isinstance(result, FloatingPointError):
            raise result
        found[index] = result
    return [found[index] for index in range(len(fits))]


def fit_stream(
    fits: Sequence[FitJob],
    config: FitConfig,
    *,
    together: bool | None = None,
    memory: int | None = None,
    progress: Heard | None = None,
) -> Iterator[tuple[int, Fit | FloatingPointError]]:
    """`fit_many`, each with its position as soon as it has ended.

    A fit whose loss stops being finite gives its FloatingPointError, and the others go on.
    In batches all devices are its own until the last fit is taken.
    """
    heard: Heard = progress or (lambda *_: None)
    if fits and (batched_by_default() if together is None else together):
        yield from _in_batches(fits, config, heard, memory)
        return
    for index, one in enumerate(fits):
        options = {"clean": one.clean, "checkpoint": one.checkpoint}
        news = functools.partial(heard, index)
        try:
            yield index, fit(one.key, one.net, one.problem, config, progress=news, **options)
        except FloatingPointError as error:
            yield index, error


def batched_by_default() -> bool:
    """Whether many fits run in batches by default: with an accelerator or several devices."""
    return jax.default_backend() != "cpu" or jax.device_count() > 1


class _TooManyError(Exception):
    """A batch does not fit into memory.

    Attributes:
      most: How many fits may.
    """

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most


def _in_batches(
    fits: Sequence[FitJob], config: FitConfig, heard: Heard, memory: int | None
) -> Iterator[tuple[int, Fit | FloatingPointError]]:
    """`fit_stream` in batches that fit into memory."""
    devices, nets = jax.device_count(), _joint(fits)
    left = list(range(len(fits)))
    most, kind = len(left), _kind(fits[0], config)
    while left:
        with _DEVICES:
            room = _free() if memory is None else memory
            if room is not None and kind in _NEEDED:
                most = min(most, max(devices, int(room / _NEEDED[kind]) // devices * devices))
            batch = {index: _Member(fits[index], *nets[index]) for index in left[:most]}
            try:
                for index, result in _run(batch, config, heard, room):
                    left.remove(index)
                    yield index, result
            except _TooManyError as error:
                most = max(devices, error.most // devices * devices)


def _kind(one: FitJob, config: FitConfig) -> Hashable:
    """What the memory of a fit depends on most."""
    rules = config.stopping, config.optimizer, config.regularizers
    shapes = _programs.shapes(one.problem, one.clean)
    return getattr(one.net, "channels", None), rules, shapes


def _free() -> int | None:
    """Bytes that the first device has left; None if it does not say."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0) if "bytes_limit" in stats else None


def _joint(fits: Sequence[FitJob]) -> list[tuple[Any, np.ndarray | None]]:
    """For each fit the network that serves all, and the bits that make it its own, or None."""
    if len({one.net for one in fits}) == 1:
        return [(one.net, None) for one in fits]
    if not all(isinstance(one.net, SearchedNetwork) for one in fits):
        raise ValueError("different networks are fitted together if they are of one cell")
    found: list[Any] = [cell_network(one.net) for one in fits]
    for (net, _), one in zip(found, fits, strict=True):
        if net != found[0][0]:
            raise ValueError(
                f"{describe(fits[0].net)} and {describe(one.net)} differ in more than their "
                "skips, and are not fitted together"
            )
    return found


class _Member(NamedTuple):
    """A fit of a batch.

    Attributes:
      one: What was asked for.
      net: The network that serves the whole batch.
      bits: The skips that make it the fit's own; None if it is.
    """

    one: FitJob
    net: Any
    bits: np.ndarray | None


def _run(
    batch: Mapping[int, _Member], config: FitConfig, heard: Heard, memory: int | None
) -> Iterator[tuple[int, Fit | FloatingPointError]]:
    """A batch's fits by their positions, as they end; `_TooManyError` if it does not fit."""
    devices = jax.device_count()
    mesh = Mesh(np.array(jax.devices()), ("fits",))
    running, new = list(batch), True
    with contextlib.ExitStack() as stack:
        locks = {index: stack.enter_context(contextlib.ExitStack()) for index in batch}
        with _enough_memory(len(batch)):
            structure, parts, curves = _begun(locks, batch, config)
            slots, (state, given) = _stacked(parts, mesh)
        del parts
        while running:
            with (
                _enough_memory(len(slots)),
                chunk_program(structure, config.chunk, state, given, mesh) as advance,
            ):
                if new and memory is not None and len(slots) > devices:
                    with jax.enable_x64(False):
                        needed = program_memory(advance.lower(state, given).compile())
                    _NEEDED[_kind(batch[running[0]].one, config)] = needed / len(slots)
                    if needed > memory:
                        raise _TooManyError(int(len(slots) * memory / needed))
                new = False
                with jax.enable_x64(False):
                    state, latest = advance(state, given)
                # Shard by shard: another program over all devices may wait for this one for ever.
                latest, iteration, stopped = jax.device_get(
                    (latest, state.iteration, state.stopped)
                )
            ended: dict[int, FloatingPointError | None] = {}
            for index in running:
                slot, before = slots.index(index), len(curves[index].loss)
                done = recorded(_part(latest, slot), iteration[slot] - before)
                curves[index] = Curves(*map(np.append, curves[index], done))
                most = int(iteration[slot]) if stopped[slot] else config.iterations
                last = float(curves[index].loss[-1]), float(curves[index].psnr_ema[-1])
                heard(index, Progress(int(iteration[slot]), most, *last))
                try:
                    check_finite(batch[index].one.net, before, done.loss)
                except FloatingPointError as error:
                    ended[index] = error
                else:
                    if iteration[slot] >= most:
                        ended[index] = None
            running = [index for index in running if index not in ended]
            due = [
                (index, checkpoint)
                for index in running
                if (checkpoint := batch[index].one.checkpoint) and checkpoint.due
            ]
            # A fit that has ended costs as much as any other: half a batch of them is left behind.
            compact = running and _rounded_up(len(running), devices) <= len(slots) // 2
            if ended or compact or due:
                fetched = jax.device_get((state, given))
                parts = {
                    index: _part(fetched, slots.index(index)) for index in dict.fromkeys(slots)
                }
            for index, checkpoint in due:
                checkpoint.save((parts[index][0], curves[index]))
            if compact:
                alive = {index: parts[index] for index in running}
                with _enough_memory(len(alive)):
                    slots, (state, given) = _stacked(alive, mesh)
            for index, failed in ended.items():
                one = batch[index].one
                locks[index].close()
                yield index, failed or _result(one, config, *parts[index], curves[index])


def _begun(
    locks: Mapping[int, contextlib.ExitStack], batch: Mapping[int, _Member], config: FitConfig
) -> tuple[Any, dict[int, tuple[FitState, Given]], dict[int, Curves]]:
    """The structure of all fits, and where each is: at its start or its checkpoint; on the host."""
    structure: Any = None
    parts, curves = {}, {}
    for index, (one, net, bits) in batch.items():
        structure, state, given = start(one.key, net, one.problem, config, clean=one.clean)
        if bits is not None:
            variables = {**state.variables, "skips": {"bits": jnp.asarray(bits, jnp.float32)}}
            state = state._replace(variables=variables)
        kept = locks[index], one.checkpoint, net, config, state, given
        state, curves[index] = kept_in(*kept)
        parts[index] = jax.device_get((state, given))
    return structure, parts, curves


@contextlib.contextmanager
def _enough_memory(fits: int) -> Iterator[None]:
    """`_TooManyError` for what a device says when a batch of several asks for too much memory."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) or fits <= jax.device_count():
            raise
        raise _TooManyError(fits // 2) from None


def _rounded_up(number: int, devices: int) -> int:
    """The least multiple of the number of devices that is no smaller."""
    return -(-number // devices) * devices


def _stacked(
    parts: Mapping[int, tuple[FitState, Given]], mesh: Mesh
) -> tuple[list[int], tuple[FitState, Given]]:
    """Parts along a first axis, as many on each device: the last again where they do not divide.

    Also returns which part lies where.
    """
    slots = list(parts)
    slots += slots[-1:] * (_rounded_up(len(slots), mesh.size) - len(slots))
    try:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(parts.get, slots))
        return slots, jax.device_put(stacked, NamedSharding(mesh, PartitionSpec("fits")))
    except ValueError:
        sizes = {str(given.problem.observed.shape) for _, given in parts.values()}
        raise ValueError(
            f"the problems differ in size or kind; their sizes: {', '.join(sorted(sizes))}"
        ) from None


def _part(stacked: Any, slot: int) -> Any:
    """What `_stacked` put there."""
    return jax.tree.map(lambda leaf: leaf[slot], stacked)


def _result(one: FitJob, config: FitConfig, state: FitState, given: Given, curves: Curves) -> Fit:
    """A fit that has ended, with the variables of its own network."""
    if "skips" in state.variables:
        wanted = jax.eval_shape(one.net.lazy_init, one.key, given.z)["params"]
        params = {name: state.variables["params"][name] for name in wanted}
        state = state._replace(variables={"params": params})
    return finished(config, given, state, curves)
