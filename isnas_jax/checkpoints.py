"""The state of a long computation on disk, so that a killed one goes on where it was."""

import dataclasses
import pathlib
import time
from typing import Any, TypeVar

from flax import serialization

from isnas_jax import records

Tree = TypeVar("Tree")


@dataclasses.dataclass
class Checkpoint:
    """A file that holds the latest state of one computation.

    The caller sees to it that a file is not used again with other settings.

    Attributes:
      path: The file; written whole or not at all.
      seconds: The least time between two writes.
    """

    path: pathlib.Path
    seconds: float = 60.0
    _written: float = dataclasses.field(default_factory=time.monotonic)

    def restore(self, tree: Tree) -> Tree:
        """What was saved last in the structure of `tree`, or `tree` if nothing was."""
        if not self.path.exists():
            return tree
        return serialization.from_bytes(tree, self.path.read_bytes())

    def save(self, tree: Any) -> None:
        """Writes a pytree of arrays unless the last write is too recent."""
        if time.monotonic() - self._written >= self.seconds:
            records.write_bytes(self.path, serialization.to_bytes(tree))
            self._written = time.monotonic()
