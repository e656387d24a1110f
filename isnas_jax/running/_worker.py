"""The state that jobs in other processes need, and errors that cross a process boundary."""

import importlib
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
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
    """The state of this process that workers copy."""

    path: tuple[str, ...]  # folders to search for modules
    modules: tuple[str, ...]  # extensions to import, because jobs look them up by name
    config: Mapping[str, Any]  # of JAX
    caches: Sequence[tuple[str, int]]  # folders of compiled programs, and their sizes in bytes

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
        for folder, most in set(self.caches) - set(_programs.disk_caches):
            _programs.use_compilation_cache(folder, max_bytes=most)
        for module in self.modules:
            importlib.import_module(module)


def pickled(value: Any, dumps: Callable[[Any], bytes] = pickle.dumps) -> bytes:
    """Pickle a value; ValueError if it cannot be sent."""
    try:
        return dumps(value)
    except Exception as error:
        raise ValueError(f"this cannot be sent to another process: {error}") from error


def picklable_error(error: Exception) -> Exception:
    """Return an error as it is, or a RuntimeError with its message if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
