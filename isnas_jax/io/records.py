"""Read and write the files of a run: atomic writes, JSON, CSV and file locks.

A write replaces the whole file at once, so that a killed run never leaves half a file.
Files hold plain data, no pickles.
"""

import contextlib
import csv
import hashlib
import io
import json
import logging
import math
import os
import pathlib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import filelock

# The file in an output folder with the command that repeats the run.
COMMAND = "command.txt"

_LOG = logging.getLogger(__name__)


class DamagedError(ValueError):
    """The content of a file differs from the content that was written."""

    def __init__(self, path: str | os.PathLike[str], reason: object) -> None:
        super().__init__(f"{os.fspath(path)!r} is damaged: {reason}")


def warn(error: DamagedError, consequence: str) -> None:
    """Log that a file is damaged, and what follows, such as "skipped"."""
    _LOG.warning("%s; it is %s", error, consequence)


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Write or replace a file atomically, creating its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, so that it is not taken for data, and unique among all processes and hosts.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def digest(content: bytes) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 hash."""
    return hashlib.sha256(content).hexdigest()[:16]


def write_sealed(path: pathlib.Path, content: bytes) -> None:
    """Write content and its digest, which readers of ZIP archives ignore."""
    write_bytes(path, content + digest(content).encode())


def read_sealed(path: pathlib.Path) -> bytes:
    """Return the content of `write_sealed`, or raise DamagedError if the digest differs."""
    sealed = path.read_bytes()
    content, seal = sealed[:-16], sealed[-16:]
    if seal != digest(content).encode():
        raise DamagedError(path, "its digest does not agree")
    return content


def to_json(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON, with the keys in their order.

    JSON has no infinities or NaN. They become the strings "inf", "-inf" and "nan", which
    `float` converts back.
    """
    return json.dumps(_replace_nonfinite(value), indent=indent, allow_nan=False)


def _replace_nonfinite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _replace_nonfinite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_nonfinite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    return value


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write a value as indented JSON; see `to_json`."""
    write_bytes(path, (to_json(value, indent=2) + "\n").encode())


def read_json(path: pathlib.Path) -> Any:
    """Read a JSON file, or raise DamagedError if it is not valid JSON."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise DamagedError(path, error) from None


def write_csv(path: pathlib.Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows with equal columns; floats have the fewest digits that read back equal."""
    rows = list(rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


@contextlib.contextmanager
def file_lock(path: pathlib.Path, *, wait: bool = True) -> Iterator[bool]:
    """Lock a file against other threads and processes while the context is open.

    The lock is on a hidden, empty file in the same folder. The operating system releases it
    if the process dies; the file may then stay.

    Args:
      path: The file to lock; it need not exist.
      wait: Whether to wait until the lock is free.

    Yields:
      Whether the lock was acquired. Always True with `wait`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock_path = path.with_name(f".{path.name}.lock")
    lock = filelock.FileLock(lock_path, timeout=-1 if wait else 0, thread_local=False)
    try:
        lock.acquire(poll_interval=0.2)
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock_path.unlink(missing_ok=True)
        lock.release()
