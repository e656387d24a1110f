"""Checkpoints: the state of a long computation on disk, to resume after an interruption."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from flax import serialization

from isnas_jax.io import cache, identity, records

Tree = TypeVar("Tree")


@dataclasses.dataclass
class Checkpoint:
    """A file with the latest state of one computation.

    The file stores the inputs of the computation, so that only an equal computation
    resumes from it. One computation at a time may use the file.

    Attributes:
      path: The file, replaced as a whole.
      interval_seconds: Minimum time between two writes.
    """

    path: pathlib.Path
    interval_seconds: float = 60.0
    _inputs: Any = None
    _saved_at: float = 0.0

    @contextlib.contextmanager
    def open(self, inputs: Mapping[str, Any]) -> Iterator[None]:
        """Lock the file for a computation with these inputs while the context is open.

        Args:
          inputs: Everything that the computation depends on, by name.

        Raises:
          ValueError: If another process or thread uses the file.
        """
        self.path = pathlib.Path(self.path)
        with records.file_lock(self.path, wait=False) as acquired:
            if not acquired:
                raise ValueError(f"checkpoint {str(self.path)!r} is in use by another computation")
            self._inputs = identity.describe_inputs(inputs)
            del inputs  # the arrays can be large
            self._saved_at = time.monotonic()
            yield

    def restore(self, tree: Tree) -> Tree:
        """Return the saved state in the structure of `tree`.

        Returns `tree` itself if the file is missing or damaged.

        Raises:
          ValueError: If the file belongs to other inputs, naming the difference.
        """
        try:
            arrays, stored = cache.read_arrays(self.path)
        except FileNotFoundError:
            return tree
        except records.DamagedError as error:
            records.warn(error, "computed again")
            return tree
        cache.check_inputs(self.path, stored, self._inputs)
        return serialization.from_bytes(tree, arrays["state"].tobytes())

    @property
    def due(self) -> bool:
        """Whether `interval_seconds` have passed since the last write."""
        return time.monotonic() - self._saved_at >= self.interval_seconds

    def save(self, tree: Any) -> None:
        """Replace the file with the state, a pytree of arrays."""
        state = np.frombuffer(serialization.to_bytes(tree), np.uint8)
        cache.write_arrays(self.path, {"state": state}, self._inputs)
        self._saved_at = time.monotonic()
