"""Compiled programs: XLA options, a bounded in-memory cache and a bounded cache on disk.

A compiled program occupies memory and memory mappings of its process until it is dropped.
One step of a fit takes about 1,250 mappings on a CPU, and Linux allows 65,530 per process.
A loop over thousands of networks must therefore keep only the latest programs.
"""

import collections
import contextlib
import ctypes
import functools
import gc
import os
import pathlib
import sys
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

Jitted = TypeVar("Jitted")

_cleared_on_eviction: list[Any] = []
# Folder and size in bytes of the compilation cache: one entry or none. Workers copy it.
disk_caches: list[tuple[str, int]] = []

_TO_32_BITS = {
    np.dtype(f"{kind}{2 * bits}"): np.dtype(f"{kind}{bits}")
    for kind, bits in (("float", 32), ("int", 32), ("uint", 32), ("complex", 64))
}


def cleared_on_eviction(operation: Jitted) -> Jitted:
    """Clear a jitted operation's traces whenever a `ProgramCache` has dropped many programs.

    Decorate operations that the programs of many networks call. JAX keeps about 10 MB of
    traces per network otherwise, even after the network's programs are dropped.
    """
    _cleared_on_eviction.append(operation)
    return operation


def _free_memory() -> None:
    """Release the traces, files and heap memory that dropped programs leave behind."""
    for operation in _cleared_on_eviction:
        operation.clear_cache()
    _shrink_disk_caches()
    gc.collect()
    # glibc keeps about 0.3 GB of memory that compilation has freed.
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


@functools.cache
def compiler_options() -> dict[str, str] | None:
    """Return XLA options for `jax.jit` that are faster here (docs/performance.md), or None.

    The environment variable ISNAS_COMPILER_OPTIONS=off turns them off, for example with a version
    of XLA that does not know one of them.
    """
    off = os.environ.get("ISNAS_COMPILER_OPTIONS") == "off"
    if off or jax.default_backend() != "cpu" or jax.__version_info__ < (0, 10):
        return None
    options = {
        # Keep optimization barriers to the end. Otherwise XLA merges the computations that
        # `remat` repeats with the originals, and rejoins the parts of a long sum.
        "xla_disable_hlo_passes": "cse_barrier_expander",
        # Compiles faster. Matrix products are library calls, and sums run as fast.
        "xla_backend_optimization_level": "1",
        # Several programs compile in parallel; splitting each one costs a fifth more in total.
        "xla_cpu_parallel_codegen_split_count": "1",
    }
    if jax.__version_info__[:2] == (0, 10):
        # In JAX 0.10, YNNPACK runs batches of small matrix products on one core.
        options["xla_cpu_experimental_ynn_fusion_type"] = "LIBRARY_FUSION_TYPE_REDUCE"
    return options


class ProgramCache:
    """A least-recently-used cache of jitted functions that each hold one program.

    Attributes:
      max_size: Number of functions to keep. Functions in use are kept in any case.
    """

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size
        self._num_evicted = 0
        self._num_users: collections.Counter[Hashable] = collections.Counter()
        self._functions: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._functions)

    @contextlib.contextmanager
    def use(self, key: Hashable, make: Callable[[], Any]) -> Iterator[Any]:
        """Yield the function of a key like `get`, and keep it while the context is open."""
        key = _by_value(key)
        with self._lock:
            self._num_users[key] += 1
        try:
            yield self.get(key, make)
        finally:
            with self._lock:
                self._num_users[key] -= 1
                self._num_users += collections.Counter()  # removes counts of 0

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the cached function of a key, or make and cache it.

        The key is everything that the program depends on, including `shapes`. Nothing else may
        refer to a function that `make` returns: dropping it clears its compiled program.
        """
        key = _by_value(key)
        with self._lock:
            if key not in self._functions:
                self._functions[key] = make()
            self._functions.move_to_end(key)
            function = self._functions[key]
            unused = [
                other for other in self._functions if not self._num_users[other] and other != key
            ]
            num_excess = max(0, len(self._functions) - self.max_size)
            evicted = [self._functions.pop(other) for other in unused[:num_excess]]
        self._num_evicted += len(evicted)
        while evicted:
            evicted.pop().clear_cache()
        if self._num_evicted >= self.max_size:
            self._num_evicted = 0
            _free_memory()
        return function


def _by_value(key: Any) -> Hashable:
    """Replace each `functools.partial` in a key, which compares by identity, by its content."""
    if isinstance(key, functools.partial):
        content = key.func, _by_value(key.args), tuple(sorted(key.keywords.items()))
        with contextlib.suppress(TypeError):  # an argument is not hashable
            hash(content)
            return content
    return tuple(map(_by_value, key)) if isinstance(key, tuple) else key


def check_concrete(name: str, *trees: Any) -> None:
    """Raise ValueError if a pytree contains traced arrays; `name` is their name in the message."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees)):
        raise ValueError(
            f"{name} must be concrete arrays; this function cannot be called inside of "
            "jit, vmap or grad, but the methods of a Problem can"
        )


def in_32_bits(tree: Any) -> Any:
    """Return a pytree with its 64-bit arrays cast to 32 bits (complex128 to complex64)."""

    def cast(leaf):
        is_64_bit = isinstance(leaf, jax.Array | np.ndarray) and leaf.dtype in _TO_32_BITS
        return leaf.astype(_TO_32_BITS[leaf.dtype]) if is_64_bit else leaf

    return jax.tree.map(cast, tree)


def shapes(*trees: Any) -> Hashable:
    """Return the structure of pytrees with the shapes and dtypes of their leaves, hashable."""
    leaves, structure = jax.tree.flatten(trees)
    return structure, tuple(jax.typeof(leaf) for leaf in leaves)


def lower(function: Any, arguments: Sequence[Any], target: str | jax.Device) -> jax.stages.Lowered:
    """Lower a jitted function for hardware that this process need not have.

    Arguments are arrays, or their shapes as `jax.eval_shape` returns them. The target is a platform
    ("cuda", "tpu"), or a device of a topology description; the result for a device can also be
    compiled without the hardware.
    """
    platform = target
    if not isinstance(target, str):
        platform, sharding = target.platform, jax.sharding.SingleDeviceSharding(target)
        arguments = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), arguments
        )
    return function.trace(*arguments).lower(lowering_platforms=(platform,))


def use_compilation_cache(folder: str | None, *, max_bytes: int = 2**30) -> None:
    """Cache compiled programs on disk for later processes.

    JAX's own size limit reads the whole folder for every program that it adds, 0.2 s each
    with 3000 programs. Instead, the size is checked in this call and when this process
    drops programs from memory.

    Args:
      folder: The cache folder; None disables the cache.
      max_bytes: Size limit of the folder. The least recently used programs are deleted first.
    """
    disk_caches[:] = [(folder, max_bytes)] if folder else []
    _shrink_disk_caches()
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_compilation_cache_max_size", -1)
    # Scoring compiles hundreds of programs in a fraction of a second each.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _shrink_disk_caches() -> None:
    """Delete the least recently used programs on disk until the rest fits the limit."""
    for folder, max_bytes in disk_caches:
        programs = []
        for path in pathlib.Path(folder).glob("*-cache"):
            with contextlib.suppress(FileNotFoundError):  # another process deleted it
                stat = path.stat()
                programs.append((max(stat.st_atime, stat.st_mtime), stat.st_size, path))
        bytes_left = max_bytes
        for _, size, path in sorted(programs, reverse=True):
            bytes_left -= size
            if bytes_left < 0:
                path.unlink(missing_ok=True)
