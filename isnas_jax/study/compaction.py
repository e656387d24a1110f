"""Fold the many small files of a dataset into few large ones.

    fits/folded/DIGEST.parquet    rows of many units, with the names of their files as metadata

Workers may compute other units at the same time. A unit is in its own file, in a folded file, or,
briefly or after a kill, in both: readers drop duplicate rows. Needs pyarrow.
"""

import pathlib
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from isnas_jax.io import identity, records
from isnas_jax.study import store

_NAMES = b"isnas_jax.units"


class Folded:
    """The units of a study that are in folded files; new files are read when they appear.

    `name in folded` raises ValueError if a folded file belongs to another study.
    """

    def __init__(self, folder: pathlib.Path, study: str) -> None:
        self._folder, self._study = folder, study
        self._names: dict[pathlib.Path, frozenset[str]] = {}

    def __contains__(self, name: pathlib.PurePosixPath) -> bool:
        paths = list((self._folder / name.parent / "folded").glob("*.parquet"))
        for path in paths:
            if path not in self._names:
                undamaged = store.holds(path, self._study)
                names = pq.read_schema(path).metadata[_NAMES].decode() if undamaged else ""
                self._names[path] = frozenset(names.split("\n"))
        return any(name.name in self._names[path] for path in paths)


def compact(folder: pathlib.Path, *, most: int = 500) -> int:
    """Fold the finished units of a dataset into few files.

    Workers may run at the same time, and a kill loses no rows. Each file takes the rows of at
    most so many unit files.

    Returns:
      The number of unit files that were folded.

    Raises:
      ValueError: If the folder is not a dataset.
    """
    if not (folder / "study.json").exists():
        raise ValueError(f"{str(folder)!r} is no dataset: it holds no study.json")
    number = 0
    with records.file_lock(folder / "folding"):
        for part in ("fits", "scores"):
            units = _unfolded(folder, part)
            for first in range(0, len(units), most):
                _fold(units[first : first + most])
            number += len(units)
    return number


def _unfolded(folder: pathlib.Path, part: str) -> list[pathlib.Path]:
    """Return the undamaged unit files that are in no folded file; delete others, left by a kill."""
    files, folded = [], None
    for path in sorted((folder / part).glob("*.parquet")):
        try:
            study = store.study_of(path)
        except records.DamagedError as error:
            records.warn(error, "skipped")
            continue
        folded = folded or Folded(folder, study)
        if pathlib.PurePosixPath(part, path.name) in folded:
            path.unlink()
        else:
            files.append(path)
    return files


def _fold(files: Sequence[pathlib.Path]) -> None:
    """Write the rows of unit files to a folded file, then delete the unit files."""
    tables = [store.read(path) for path in files]
    names = "\n".join(path.name for path in files)
    # All files have the study of the first, because a folder holds one study.
    metadata = {**(tables[0].schema.metadata or {}), _NAMES: names.encode()}
    rows = pa.concat_tables(tables).replace_schema_metadata(metadata)
    path = files[0].parent / "folded" / f"{identity.digest(names.encode())}.parquet"
    store.write(path, rows, store.study_of(files[0]))
    for path in files:
        path.unlink()
