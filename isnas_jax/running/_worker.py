"""The state that jobs in other processes need, and errors that cross a process boundary."""

import importlib
import pickle
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from isnas_jax import _programs

# Number of processes that a job may bring down before it fails.
TRIES = 3


class WorkerDiedError(RuntimeError):
    """The process of a job died repeatedly, for example for lack of memory."""


class Reference(NamedTuple):
    """Stands for a value that is sent to each process once."""

    number: int


class Environment(NamedTuple):
    """The state of this process that workers copy.

    Attributes:
      path: Folders to search for modules.
      modules: Extensions to import, because jobs look them up by name.
      config: Values of JAX's configuration.
      cache: The folder of compiled programs and its largest size in bytes, if there is one.
    """

    path: tuple[str, ...]
    modules: tuple[str, ...]
    config: Mapping[str, Any]
    cache: Sequence[tuple[str, int]]

    @classmethod
    def current(cls, modules: Sequence[str]) -> "Environment":
        """Return that of this process."""
        plain = (bool, int, float, str, type(None))
        values = jax.config.values.items()
        config = {name: value for name, value in values if isinstance(value, plain)}
        return cls(tuple(sys.path), tuple(modules), config, tuple(_programs.disk_caches))

    def apply(self) -> None:
        """Copy the state to this process."""
        sys.path += [folder for folder in self.path if folder not in sys.path]
        for name, value in self.config.items():
            if jax.config.values.get(name) != value:
                jax.config.update(name, value)
        for folder, most in set(self.cache) - set(_programs.disk_caches):
            _programs.use_compilation_cache(folder, max_bytes=most)
        for module in self.modules:
            importlib.import_module(module)


def picklable_error(error: Exception) -> Exception:
    """Return an error as it is, or a RuntimeError with its message if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
