"""What jobs in other processes have in common: what they take along, and what becomes of errors."""

import importlib
import pickle
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from isnas_jax import _programs

# How often a job may take its process with it before it is given up.
TRIES = 3


class WorkerDiedError(RuntimeError):
    """The process of a job ended again and again: for want of memory, say, or at its start."""


class Shared(NamedTuple):
    """Stands for a value that is sent to a process once."""

    number: int


class WorkerEnvironment(NamedTuple):
    """What a process is to be like.

    Attributes:
      path: Where it finds modules besides, folders.
      modules: What jobs call by name, to be imported first.
      config: JAX's settings.
      cache: The folder of compiled programs and its most bytes, if there is one.
    """

    path: tuple[str, ...]
    modules: tuple[str, ...]
    config: Mapping[str, Any]
    cache: Sequence[tuple[str, int]]

    def settle(self) -> None:
        """Makes this process so."""
        sys.path += [folder for folder in self.path if folder not in sys.path]
        for name, value in self.config.items():
            if jax.config.values.get(name) != value:
                jax.config.update(name, value)
        for folder, most in set(self.cache) - set(_programs.on_disk):
            _programs.use_compilation_cache(folder, most=most)
        for module in self.modules:
            importlib.import_module(module)


def worker_environment(modules: Sequence[str]) -> WorkerEnvironment:
    """Those of this process, as far as they are numbers and texts."""
    plain = (bool, int, float, str, type(None))
    config = {name: of for name, of in jax.config.values.items() if isinstance(of, plain)}
    return WorkerEnvironment(tuple(sys.path), tuple(modules), config, tuple(_programs.on_disk))


def sendable(error: Exception) -> Exception:
    """An error, or what can be said of one that cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
