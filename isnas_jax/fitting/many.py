"""Fitting many: one network to several observations, or genotypes of one cell, by one program."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from isnas_jax.fitting.loop import (
    Curves,
    FitState,
    Given,
    Progress,
    check_finite,
    chunk_program,
    finished,
    fit,
    start,
)
from isnas_jax.fitting.result import Fit
from isnas_jax.fitting.settings import FitSettings
from isnas_jax.networks import SearchedNetwork, cell_network, describe
from isnas_jax.problems import Problem


def fit_many(
    keys: Sequence[jax.Array] | jax.Array,
    nets: Any,
    problems: Sequence[Problem],
    settings: FitSettings,
    *,
    truths: Sequence[Any] | None = None,
    together: bool | None = None,
    progress: Callable[[int, Progress], None] | None = None,
    return_exceptions: bool = False,
) -> list[Fit | FloatingPointError]:
    """Fits networks to observations, each on its own, by one compiled program.

    Args:
      keys: A random key for each fit, F of them.
      nets: A network as for `fit`, or F of them: genotypes of one cell.
      problems: F problems of one task and size.
      settings: As for `fit`; each fit stops on its own.
      truths: F clean images, for the PSNR curves only.
      together: Run all fits as one batch, divided among all devices; by
        default where there is an accelerator or more than one device.
        Otherwise they run one after the other.
      progress: Called between chunks with a fit's position and where it is.
      return_exceptions: Return the error of a fit whose loss stops being
        finite in its place, the others going on.

    Returns:
      What `fit` would for each, up to rounding.

    Raises:
      ValueError: As `fit` does, and if problems or networks differ in size or kind.
      FloatingPointError: As `fit` does, unless errors are returned.
    """
    nets = list(nets) if isinstance(nets, Sequence) else [nets] * len(problems)
    truths = [None] * len(problems) if truths is None else truths
    if not len(keys) == len(problems) == len(truths) == len(nets) or not problems:
        raise ValueError(
            f"{len(keys)} keys, {len(nets)} networks, {len(problems)} problems and {len(truths)} "
            "truths; there must be one of each for every fit, and a fit at least"
        )
    if together is None:
        together = jax.default_backend() != "cpu" or jax.device_count() > 1
    fits = [_Fitting(*of) for of in zip(nets, keys, problems, truths, strict=True)]
    run = _run_together if together else _run_in_turn
    found = run(fits, settings, progress or (lambda *_: None))
    for result in found:
        if isinstance(result, FloatingPointError) and not return_exceptions:
            raise result
    return found


class _Fitting(NamedTuple):
    """What one fit is given."""

    net: Any
    key: jax.Array
    problem: Problem
    truth: Any


def _run_in_turn(
    fits: Sequence[_Fitting], settings: FitSettings, progress: Callable[[int, Progress], None]
) -> list[Any]:
    found: list[Any] = []
    for index, one in enumerate(fits):
        options = {"truth": one.truth, "progress": functools.partial(progress, index)}
        try:
            found.append(fit(one.key, one.net, one.problem, settings, **options))
        except FloatingPointError as error:
            found.append(error)
    return found


def _run_together(
    fits: Sequence[_Fitting], settings: FitSettings, progress: Callable[[int, Progress], None]
) -> list[Any]:
    structure, starts = _starts(fits, settings)
    devices = jax.devices()
    mesh = Mesh(np.array(devices), ("fits",))
    slots, (state, given) = _stacked(starts, len(devices))
    curves: list[list[Curves]] = [[] for _ in fits]
    before = np.zeros(len(slots), int)
    found: dict[int, Any] = {}
    while len(found) < len(fits):
        with chunk_program(structure, settings.chunk, state, given, mesh) as advance:
            state, latest = advance(state, given)
        # Fetched shard by shard: another program over all devices may wait for this one for ever.
        latest, iteration, stopped = jax.device_get((latest, state.iteration, state.stopped))
        ended: list[int] = []
        for slot, index in enumerate(slots):
            if index in found or index in slots[:slot]:
                continue
            done = Curves(*(values[slot][: iteration[slot] - before[slot]] for values in latest))
            curves[index].append(done)
            most = int(iteration[slot]) if stopped[slot] else settings.iterations
            last = float(done.loss[-1]), float(done.psnr_mean[-1])
            progress(index, Progress(int(iteration[slot]), most, *last))
            try:
                check_finite(fits[index].net, int(before[slot]), done.loss)
            except FloatingPointError as error:
                found[index] = error
                continue
            if iteration[slot] >= most:
                ended.append(slot)
        before = iteration
        alive = [
            slots.index(index)
            for index in dict.fromkeys(slots)
            if index not in found and slots.index(index) not in ended
        ]
        # A fit that has ended costs as much as any other: half a batch of them is left behind.
        compact = alive and _rounded_up(len(alive), len(devices)) <= len(slots) // 2
        if ended or compact:
            parts = jax.device_get((state, given))
        for slot in ended:
            one = slots[slot]
            its_state, its = _part(parts, slot)
            found[one] = _result(fits[one], settings, its_state, its, curves[one])
        if compact:
            places, (state, given) = _stacked([_part(parts, slot) for slot in alive], len(devices))
            taken = [alive[place] for place in places]
            slots, before = [slots[slot] for slot in taken], before[taken]
    return [found[index] for index in range(len(fits))]


def _starts(
    fits: Sequence[_Fitting], settings: FitSettings
) -> tuple[Any, list[tuple[FitState, Given]]]:
    """The structure of all fits, and the start of each."""
    nets = {one.net for one in fits}
    joint: Any = fits[0].net
    bits: list[Any] = [None] * len(fits)
    if len(nets) > 1:
        if not all(isinstance(net, SearchedNetwork) for net in nets):
            raise ValueError("different networks are fitted together if they are of one cell")
        both = [cell_network(one.net) for one in fits]
        joint, bits = both[0][0], [own for _, own in both]
        for (other, _), one in zip(both, fits, strict=True):
            if other != joint:
                raise ValueError(
                    f"{describe(fits[0].net)} and {describe(one.net)} differ in more than their "
                    "skips, and are not fitted together"
                )
    starts = []
    for one, own in zip(fits, bits, strict=True):
        structure, state, given = start(one.key, joint, one.problem, settings, truth=one.truth)
        if own is not None:
            variables = {**state.variables, "skips": {"bits": jnp.asarray(own)}}
            state = state._replace(variables=variables)
        starts.append((state, given))
    return structure, starts


def _rounded_up(number: int, devices: int) -> int:
    """The least multiple of the number of devices that is no smaller."""
    return -(-number // devices) * devices


def _part(stacked: Any, slot: int) -> Any:
    """What `_stacked` put there."""
    return jax.tree.map(lambda leaf: leaf[slot], stacked)


def _stacked(parts: Sequence[Any], devices: int) -> tuple[list[int], tuple[FitState, Given]]:
    """Parts along a first axis, as many on each device: the last again where they do not divide.

    Also returns which part lies where.
    """
    last = len(parts) - 1
    slots = [min(slot, last) for slot in range(_rounded_up(len(parts), devices))]
    try:
        return slots, jax.tree.map(lambda *leaves: jnp.stack(leaves), *(parts[i] for i in slots))
    except ValueError:
        shapes = ", ".join(sorted({str(given.problem.observed.shape) for _, given in parts}))
        raise ValueError(f"the problems differ in size or kind; their sizes: {shapes}") from None


def _result(
    one: _Fitting,
    settings: FitSettings,
    state: FitState,
    given: Given,
    curves: Sequence[Curves],
) -> Fit:
    """A fit that has ended, with the variables of its own network."""
    if "skips" in state.variables:
        wanted = jax.eval_shape(one.net.lazy_init, one.key, given.z)["params"]
        params = {name: state.variables["params"][name] for name in wanted}
        state = state._replace(variables={"params": params})
    return finished(settings, given, state, Curves(*map(np.concatenate, zip(*curves, strict=True))))
