"""Batches of fits: stacked states, divided among all devices."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from isnas_jax.fitting.job import FitJob
from isnas_jax.fitting.step import FitInputs, FitState
from isnas_jax.networks import SearchedNetwork, cell_network, describe

# A batch is as large as memory allows, so that only one may run at a time.
LOCK = threading.RLock()


def batched_by_default() -> bool:
    """Return whether many fits run in batches: with an accelerator or several devices."""
    return jax.default_backend() != "cpu" or jax.device_count() > 1


def shared_networks(jobs: Sequence[FitJob]) -> list[tuple[Any, np.ndarray | None]]:
    """Return for each job the network that serves the batch, and its skip bits if they differ.

    Raises ValueError if the networks differ in more than their skips.
    """
    if len({job.net for job in jobs}) == 1:
        return [(job.net, None) for job in jobs]
    if not all(isinstance(job.net, SearchedNetwork) for job in jobs):
        raise ValueError("different networks can be fitted in a batch only if they share a cell")
    networks: list[Any] = [cell_network(job.net) for job in jobs]
    for (net, _), job in zip(networks, jobs, strict=True):
        if net != networks[0][0]:
            raise ValueError(
                f"{describe(jobs[0].net)} and {describe(job.net)} differ in more than their "
                "skips and cannot be fitted in a batch"
            )
    return networks


def with_bits(state: FitState, bits: np.ndarray | None) -> FitState:
    """Add the skip bits of a genotype to a state of its cell's network."""
    if bits is None:
        return state
    skips = {"bits": jnp.asarray(bits, jnp.float32)}
    return state._replace(variables={**state.variables, "skips": skips})


def without_bits(state: FitState, job: FitJob, z: jax.Array) -> FitState:
    """Return a state with the variables of the job's own network."""
    if "skips" not in state.variables:
        return state
    wanted = jax.eval_shape(job.net.lazy_init, job.key, z)["params"]
    params = {name: state.variables["params"][name] for name in wanted}
    return state._replace(variables={"params": params})


def round_up(number: int, devices: int) -> int:
    """Return the smallest multiple of the number of devices that is no smaller."""
    return -(-number // devices) * devices


def stack(
    parts: Mapping[int, tuple[FitState, FitInputs]], mesh: Mesh | None
) -> tuple[list[int], tuple[FitState, FitInputs]]:
    """Return the index of the fit in each slot, and the state and inputs of all, stacked.

    They are stacked along a first axis over all devices; the last fit fills up where they do not
    divide. Without a mesh, the only fit stays as it is.
    """
    if mesh is None:
        ((index, part),) = parts.items()
        return [index], part
    slots = list(parts)
    slots += slots[-1:] * (round_up(len(slots), mesh.size) - len(slots))
    try:
        stacked = jax.tree.map(_stack_leaves, *map(parts.get, slots))
        return slots, jax.device_put(stacked, NamedSharding(mesh, PartitionSpec(*mesh.axis_names)))
    except ValueError:
        sizes = {str(inputs.problem.observed.shape) for _, inputs in parts.values()}
        raise ValueError(
            f"the problems differ in size or kind; their sizes: {', '.join(sorted(sizes))}"
        ) from None


def _stack_leaves(*leaves: Any) -> Any:
    is_key = isinstance(leaves[0], jax.Array) and jnp.issubdtype(
        leaves[0].dtype, jax.dtypes.prng_key
    )
    return jnp.stack(leaves) if is_key else np.stack(leaves)


def unstack(stacked: Any, slot: int, mesh: Mesh | None) -> Any:
    """Return a copy of what lies in a slot."""
    if mesh is None:
        return stacked
    # A view would keep the whole batch in memory.
    return jax.tree.map(
        lambda leaf: leaf[slot].copy() if isinstance(leaf, np.ndarray) else leaf[slot], stacked
    )
