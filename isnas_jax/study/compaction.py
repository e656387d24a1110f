"""Few files instead of many: finished units of a dataset, folded together beside running workers.

    fits/folded/DIGEST.parquet    the rows of many units; their files' names are in its metadata

A unit is in a file of its own, or in a folded one, or, for a moment or after a kill, in
both: whoever reads drops what is there twice. Needs pyarrow.
"""

import hashlib
import pathlib
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from isnas_jax.io import records
from isnas_jax.study import store

_NAMES = b"isnas_jax.units"


class Folded:
    """The units of a study that are in folded files, looked up as the files come.

    Args:
      folder: Of the dataset.
      study: The study's digest.

    Raises:
      ValueError: On looking up, if a file is of another study.
    """

    def __init__(self, folder: pathlib.Path, study: str) -> None:
        self._folder, self._study = folder, study
        self._names: dict[pathlib.Path, frozenset[str]] = {}

    def __contains__(self, name: pathlib.PurePosixPath) -> bool:
        inside = self._folder / name.parent / "folded"
        for path in inside.glob("*.parquet"):
            if path not in self._names:
                there = store.holds(path, self._study)
                self._names[path] = frozenset(_names(path) if there else ())
        return any(
            name.name in names for path, names in list(self._names.items()) if path.parent == inside
        )


def _names(path: pathlib.Path) -> list[str]:
    return (pq.read_schema(path).metadata or {})[_NAMES].decode().split("\n")


def compact(folder: pathlib.Path, *, most: int = 2**28) -> int:
    """Folds the finished units of a dataset into few files.

    Workers may be at it meanwhile, and a kill loses nothing.

    Args:
      folder: Of the dataset.
      most: Bytes of unit files to fold into one file.

    Returns:
      How many files of units there were.

    Raises:
      ValueError: If the folder is no dataset.
    """
    if not (folder / "study.json").exists():
        raise ValueError(f"{str(folder)!r} is no dataset: it holds no study.json")
    number = 0
    with records.file_lock(folder / "folding"):
        for part in ("fits", "scores"):
            units = _unfolded(folder, part)
            timings = {path.name: path for path in _unfolded(folder, f"timings/{part}")}
            for files in _batches(units, most):
                # Their timings first, for a unit that is there writes no other.
                _fold([timings[path.name] for path in files if path.name in timings])
                _fold(files)
                number += len(files)
    return number


def _unfolded(folder: pathlib.Path, part: str) -> list[pathlib.Path]:
    """The files of units that are in no folded one, for a kill may have left some; those go."""
    files = list(filter(_is_whole, sorted((folder / part).glob("*.parquet"))))
    folded = Folded(folder, store.study_of(files[0])) if files else ()
    twice = [path for path in files if pathlib.PurePosixPath(part, path.name) in folded]
    for path in twice:
        path.unlink()
    return [path for path in files if path not in twice]


def _is_whole(path: pathlib.Path) -> bool:
    """Whether a file is not damaged, which is said."""
    try:
        store.study_of(path)
    except records.DamagedError as error:
        records.warn_skipped(error)
        return False
    return True


def _batches(files: Sequence[pathlib.Path], most: int) -> Iterator[list[pathlib.Path]]:
    """The files in order, so many bytes at a time, or what is left."""
    batch: list[pathlib.Path] = []
    size = 0
    for path in files:
        batch.append(path)
        size += path.stat().st_size
        if size >= most:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _fold(files: Sequence[pathlib.Path]) -> None:
    if not files:
        return
    tables = [store.read(path) for path in files]
    names = "\n".join(path.name for path in files)
    # The first file's metadata says of which study all are: a folder holds one.
    metadata = {**(tables[0].schema.metadata or {}), _NAMES: names.encode()}
    rows = pa.concat_tables(tables).replace_schema_metadata(metadata)
    name = hashlib.sha256(names.encode()).hexdigest()[:16]
    store.write(files[0].parent / "folded" / f"{name}.parquet", rows, store.study_of(files[0]))
    for path in files:
        path.unlink()
