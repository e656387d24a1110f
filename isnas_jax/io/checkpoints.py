"""The state of a long computation on disk, so that a killed one goes on where it was."""

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from flax import serialization

from isnas_jax.io import identity, records

Tree = TypeVar("Tree")


@dataclasses.dataclass
class Checkpoint:
    """A file that holds the latest state of one computation.

    The computation says what it depends on, so that the state of another is
    refused; it is the file's only writer.

    Attributes:
      path: The file; written whole or not at all.
      seconds: The least time between two writes.
    """

    path: pathlib.Path
    seconds: float = 60.0
    _of: Any = None
    _written: float = 0.0

    @contextlib.contextmanager
    def opened(self, of: Mapping[str, Any]) -> Iterator[None]:
        """Keeps others from writing meanwhile.

        Args:
          of: What the computation depends on, to be described.

        Raises:
          ValueError: If another process or thread is writing the file.
        """
        self.path = pathlib.Path(self.path)
        with records.file_lock(self.path, wait=False) as held:
            if not held:
                raise ValueError(f"checkpoint {str(self.path)!r} is in use by another computation")
            self._of = identity.of(of)
            del of  # as large as what is computed
            self._written = time.monotonic()
            yield

    def restore(self, tree: Tree) -> Tree:
        """What was saved last in the structure of `tree`, or `tree` if nothing usable was.

        Raises:
          ValueError: If it is of another computation, naming the difference.
        """
        if not self.path.exists():
            return tree
        digest, _, content = self.path.read_bytes().partition(b"\n")
        if digest.decode(errors="replace") != identity.digest(content):
            records.warn_recomputed(records.DamagedError(self.path, "its digest does not agree"))
            return tree
        described, _, state = content.partition(b"\n")
        records.check(self.path, json.loads(described), self._of)
        return serialization.from_bytes(tree, state)

    @property
    def due(self) -> bool:
        """Whether the last write is long enough ago for another."""
        return time.monotonic() - self._written >= self.seconds

    def save(self, tree: Any) -> None:
        """Writes a pytree of arrays."""
        content = json.dumps(self._of).encode() + b"\n" + serialization.to_bytes(tree)
        records.write_bytes(self.path, identity.digest(content).encode() + b"\n" + content)
        self._written = time.monotonic()
