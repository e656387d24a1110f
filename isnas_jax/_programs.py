"""Compiled programs: how they are compiled, and that a process keeps only a few.

Every program adds memory and mappings to its process for as long as it is kept
(a step of a fit about 1,250 mappings on a CPU, where Linux allows 65,530), and
people loop over thousands of networks.
"""

import collections
import contextlib
import ctypes
import functools
import gc
import pathlib
import sys
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

Jitted = TypeVar("Jitted")

_shared: list[Any] = []
# The folder of compiled programs and its most bytes, if there is one; workers get it too.
on_disk: list[tuple[str, int]] = []

_NARROW = {
    np.dtype(f"{kind}{2 * bits}"): np.dtype(f"{kind}{bits}")
    for kind, bits in (("float", 32), ("int", 32), ("uint", 32), ("complex", 64))
}


def shared(operation: Jitted) -> Jitted:
    """Marks a jitted operation that the programs of many networks are traced through.

    What JAX remembers of its traces would outlive those programs, some 10 MB a
    network; it is dropped with them.
    """
    _shared.append(operation)
    return operation


def _forget() -> None:
    """Gives back what programs that were dropped leave behind."""
    for operation in _shared:
        operation.clear_cache()
    _delete_oldest()
    gc.collect()
    # Compiling leaves some 0.3 GB of freed memory that glibc keeps.
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


@functools.cache
def compiler_options() -> dict[str, str] | None:
    """Options of XLA, for `jax.jit`, that measure better than its own (docs/performance.md)."""
    if jax.default_backend() != "cpu" or jax.__version_info__ < (0, 10):
        return None
    options = {
        # Without this pass, barriers last: what `remat` computes again is not found to be
        # the same, and the parts of a long sum stay apart.
        "xla_disable_hlo_passes": "cse_barrier_expander",
        # Compiles sooner; products are library calls and sums run no slower.
        "xla_backend_optimization_level": "1",
        # Programs are compiled side by side, and parts of one cost a fifth more together.
        "xla_cpu_parallel_codegen_split_count": "1",
    }
    if jax.__version_info__[:2] == (0, 10):
        # There, YNNPACK runs batches of small products on one core.
        options["xla_cpu_experimental_ynn_fusion_type"] = "LIBRARY_FUSION_TYPE_REDUCE"
    return options


class Programs:
    """The jitted functions used last, each of one program.

    Attributes:
      most: How many to keep.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._dropped = 0
        self._used: collections.Counter[Hashable] = collections.Counter()
        self._kept: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    @contextlib.contextmanager
    def use(self, key: Hashable, make: Callable[[], Any]) -> Iterator[Any]:
        """As `get`, for as long as others may ask for theirs meanwhile: it is not dropped."""
        with self._lock:
            self._used[key] += 1
        try:
            yield self.get(key, make)
        finally:
            with self._lock:
                self._used[key] -= 1
                self._used += collections.Counter()  # forgets what is at 0

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The function of this key, made by `make` unless it is there.

        Args:
          key: All that its program depends on, shapes included (see `shapes`).
          make: A jitted function that no one else holds.
        """
        with self._lock:
            if key not in self._kept:
                self._kept[key] = make()
            self._kept.move_to_end(key)
            found = self._kept[key]
            idle = [other for other in self._kept if not self._used[other] and other != key]
            dropped = [
                self._kept.pop(other) for other in idle[: max(0, len(self._kept) - self.most)]
            ]
        self._dropped += len(dropped)
        while dropped:
            dropped.pop().clear_cache()
        if self._dropped >= self.most:
            self._dropped = 0
            _forget()
        return found


def check_concrete(name: str, *trees: Any) -> None:
    """ValueError if an array of these is being traced, where its values are needed."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees)):
        raise ValueError(
            f"{name} must hold values: this cannot be called inside of jit, vmap or grad, "
            "while the methods of a Problem can"
        )


def in_32_bits(tree: Any) -> Any:
    """A pytree with arrays of 64 bits as the same kind of 32 bits."""

    def narrow(leaf):
        wide = isinstance(leaf, jax.Array | np.ndarray) and leaf.dtype in _NARROW
        return leaf.astype(_NARROW[leaf.dtype]) if wide else leaf

    return jax.tree.map(narrow, tree)


def shapes(*trees: Any) -> Hashable:
    """The structure of pytrees with the shapes and types of their arrays."""
    leaves, structure = jax.tree.flatten(trees)
    return structure, tuple(jax.typeof(leaf) for leaf in leaves)


def lower(function: Any, arguments: Sequence[Any], target: str | jax.Device) -> jax.stages.Lowered:
    """A jitted function lowered for other than this backend.

    Args:
      function: What `jax.jit` returned.
      arguments: Arrays, or what `jax.eval_shape` makes of them.
      target: A platform ("cuda", "tpu"), or a device of a described topology, for which
        it can be compiled without one.
    """
    platform = target
    if not isinstance(target, str):
        platform, there = target.platform, jax.sharding.SingleDeviceSharding(target)
        arguments = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=there), arguments
        )
    return function.trace(*arguments).lower(lowering_platforms=(platform,))


def use_compilation_cache(folder: str | None, *, most: int = 2**30) -> None:
    """Keep compiled programs on disk for the next process.

    JAX's own bound reads the whole folder for every program that it adds, which takes 0.2 s
    from 3000 programs on. Here the folder is read now, and when this process drops programs.

    Args:
      folder: The folder; None for no cache.
      most: Bytes on disk; the programs used longest ago are deleted first.
    """
    on_disk[:] = [(folder, most)] if folder else []
    _delete_oldest()
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_compilation_cache_max_size", -1)
    # Scoring has hundreds of programs that compile in a moment each.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _delete_oldest() -> None:
    """Delete the compiled programs used longest ago until the rest fits."""
    for folder, most in on_disk:
        found = []
        for path in pathlib.Path(folder).glob("*-cache"):
            with contextlib.suppress(FileNotFoundError):  # another process deleted it
                state = path.stat()
                found.append((max(state.st_atime, state.st_mtime), state.st_size, path))
        for _, size, path in sorted(found, reverse=True):
            most -= size
            if most < 0:
                path.unlink(missing_ok=True)
