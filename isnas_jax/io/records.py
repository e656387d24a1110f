"""What a run leaves on disk: written whole or not at all, and found only by what it is of.

A file that is found instead of computed carries a description of all it depends
on (see `identity`) and is refused if that is of something else. Files are data only,
without pickles; one that a disk damaged is noticed, said and computed again.
"""

import contextlib
import csv
import io
import json
import logging
import math
import os
import pathlib
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import filelock
import numpy as np

from isnas_jax.io import identity

# A folder's file that says what does the same again.
COMMAND = "command.txt"

_OF = "described"
# Bytes at the end of an .npz file: a comment's length, and the comment.
_SEAL = 2 + 16
_LOG = logging.getLogger(__name__)


class DamagedError(ValueError):
    """A file's content is not what was once written."""

    def __init__(self, path: str | os.PathLike[str], reason: object) -> None:
        super().__init__(f"{os.fspath(path)!r} is damaged: {reason}")


def warn_recomputed(error: DamagedError) -> None:
    """Says that what was damaged is computed again."""
    _LOG.warning("%s; it is computed again", error)


def warn_skipped(error: DamagedError) -> None:
    """Says that what was damaged is left out."""
    _LOG.warning("%s; it is left out", error)


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Replaces a file at once, so that no reader and no killed run ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, so that no reader of a folder takes it for data; no one else's on any host.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    _sync(path.parent)


def to_json(value: Any, indent: int | None = None) -> str:
    """Returns a value as JSON, in the order given.

    JSON has no number that is not finite: such a float becomes the string "inf", "-inf" or "nan",
    which `float` reads.
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    return value


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes indented JSON: see `to_json`."""
    write_bytes(path, (to_json(value, indent=2) + "\n").encode())


def read_json(path: pathlib.Path) -> Any:
    """Reads what `write_json` wrote; `DamagedError` for anything else."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise DamagedError(path, error) from None


def write_csv(path: pathlib.Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows that have the same columns; floats in the shortest form that reads back equal."""
    rows = list(rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


@contextlib.contextmanager
def file_lock(path: pathlib.Path, *, wait: bool = True) -> Iterator[bool]:
    """Holds what becomes of a file for one process or thread, until the end or its death.

    Args:
      path: The file; a hidden one beside it is locked meanwhile.
      wait: For whoever holds it now.

    Yields:
      Whether it is held; without waiting it may not be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.with_name(f".{path.name}.lock")
    lock = filelock.FileLock(place, timeout=-1 if wait else 0, thread_local=False)
    try:
        lock.acquire(poll_interval=0.2)
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        place.unlink(missing_ok=True)
        lock.release()


def check(path: pathlib.Path, before: Any, now: Any) -> None:
    """ValueError that names the difference, if what is in a file is of something else."""
    if found := identity.difference(before, now):
        raise ValueError(f"{str(path)!r} belongs to something else: {found}")


def read_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], Any]:
    """The arrays that `cached` wrote, and a description of what they are of.

    Raises:
      DamagedError: If its digest does not agree, or it is something else.
    """
    content = pathlib.Path(path).read_bytes()
    if _sealed(content[:-_SEAL]) != content:
        raise DamagedError(path, "its digest does not agree")
    with np.load(io.BytesIO(content)) as kept:
        found = dict(kept)
    return found, json.loads(str(found.pop(_OF)))


def _arrays(arrays: Mapping[str, Any], of: Any) -> bytes:
    """An .npz file's content."""
    content = io.BytesIO()
    np.savez(content, **{**arrays, _OF: np.array(json.dumps(of))})
    return _sealed(content.getvalue()[:-2])


def _sealed(archive: bytes) -> bytes:
    """A ZIP archive, without the length of its comment, with its digest as the comment."""
    seal = identity.digest(archive).encode()
    return archive + len(seal).to_bytes(2, "little") + seal


def cache_path(folder: str | os.PathLike[str], name: str, of: Mapping[str, Any]) -> pathlib.Path:
    """A folder's .npz file for `cached`: those of one name are told apart by what they are of."""
    return pathlib.Path(folder, f"{name}-{identity.digest(identity.of(of))}.npz")


def cached(
    path: str | os.PathLike[str] | None,
    of: Mapping[str, Any],
    compute: Callable[[], dict[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """The arrays in an .npz file, computed and written if it does not exist yet.

    A run that is started again thus finds what it had finished, and of two at
    work in one folder the second waits for what the first computes.

    Args:
      path: The file; None keeps nothing.
      of: What the arrays depend on, to be described.
      compute: The arrays by name.

    Raises:
      ValueError: If the file is of something else, naming the difference.
    """
    if path is None:
        return compute()
    path, described = pathlib.Path(path), identity.of(of)
    try:
        found, of_found = read_arrays(path)
    except (FileNotFoundError, DamagedError):
        with file_lock(path):
            found, of_found = _found_or_made(path, lambda: _arrays(compute(), described))
    check(path, of_found, described)
    return found


def _found_or_made(
    path: pathlib.Path, make: Callable[[], bytes]
) -> tuple[dict[str, np.ndarray], Any]:
    """What another has written meanwhile, or the content made now."""
    try:
        return read_arrays(path)
    except FileNotFoundError:
        pass
    except DamagedError as error:
        warn_recomputed(error)
    write_bytes(path, make())
    return read_arrays(path)


def claim_folder(
    path: str | os.PathLike[str],
    config: Mapping[str, Any],
    *,
    name: str = "config",
    recorded: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Makes a folder that of a run with these settings, or takes up what an equal run began.

    Args:
      path: The folder.
      config: All that the run depends on, to be described and compared.
      name: Of the JSON file that says so.
      recorded: What else to write down, once, without comparing it.

    Raises:
      ValueError: If the folder cannot be written, or belongs to a run with
        other settings; the difference is named.
    """
    folder = pathlib.Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(f"output folder {str(folder)!r} cannot be written: {error}") from None
    file, now = folder / f"{name}.json", identity.of(config)
    if not file.exists():
        with file_lock(file):
            if not file.exists():
                more = {**identity.worker_environment(), **(recorded or {})}
                write_json(file, {**now, "recorded": more})
    before = read_json(file)
    before.pop("recorded", None)
    if found := identity.difference(before, now):
        raise ValueError(
            f"output folder {str(folder)!r} belongs to a run with other settings: {found}"
        )
    return folder
