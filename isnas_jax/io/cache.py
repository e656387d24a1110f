"""Cache results on disk by their inputs, and claim output folders for one run.

A result is stored with a description of the inputs that it depends on (see `identity`) and
is used only for equal inputs. Files hold a digest of their content; a damaged file is
detected, reported and computed again.
"""

import io
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from isnas_jax.io import identity, records

# The array in an .npz file that holds the description of the inputs.
_INPUTS = "described"
# A ZIP archive ends with the length of its comment, 2 bytes, and the comment, here a digest.
_SEAL_BYTES = 2 + 16


def check_inputs(path: pathlib.Path, stored: Any, current: Any) -> None:
    """Raise ValueError if a file was computed from other inputs, naming the difference."""
    if difference := identity.first_difference(stored, current):
        raise ValueError(f"{str(path)!r} belongs to other inputs: {difference}")


def read_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], Any]:
    """Read a file that `cached` wrote.

    Returns:
      The arrays by name, and the description of the inputs that they were computed from.

    Raises:
      DamagedError: If the file's digest differs from its content, or is missing.
    """
    content = pathlib.Path(path).read_bytes()
    if _seal(content[:-_SEAL_BYTES]) != content:
        raise records.DamagedError(path, "its digest does not agree")
    with np.load(io.BytesIO(content)) as archive:
        arrays = dict(archive)
    return arrays, json.loads(str(arrays.pop(_INPUTS)))


def _seal(archive: bytes) -> bytes:
    """Append the digest of a ZIP archive as its comment; the input ends before its length."""
    seal = identity.digest(archive).encode()
    return archive + len(seal).to_bytes(2, "little") + seal


def cache_path(
    folder: str | os.PathLike[str], name: str, inputs: Mapping[str, Any]
) -> pathlib.Path:
    """Return the path for `cached` in a folder: the name and a digest of the inputs."""
    digest = identity.digest(identity.describe_inputs(inputs))
    return pathlib.Path(folder, f"{name}-{digest}.npz")


def cached(
    path: str | os.PathLike[str] | None,
    inputs: Mapping[str, Any],
    compute: Callable[[], dict[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Return the arrays in an .npz file, computing and writing them if the file is missing.

    A restarted run thus skips finished results. If several processes need the same file,
    one computes it and the others wait.

    Args:
      path: The file; None computes without a cache.
      inputs: Everything that the arrays depend on, by name.
      compute: Returns the arrays by name.

    Raises:
      ValueError: If the file was computed from other inputs, naming the difference.
    """
    if path is None:
        return compute()
    path, current = pathlib.Path(path), identity.describe_inputs(inputs)
    try:
        arrays, stored = read_arrays(path)
    except (FileNotFoundError, records.DamagedError):
        with records.file_lock(path):
            arrays, stored = _read_or_write(path, current, compute)
    check_inputs(path, stored, current)
    return arrays


def _read_or_write(
    path: pathlib.Path, inputs: Any, compute: Callable[[], dict[str, np.ndarray]]
) -> tuple[dict[str, np.ndarray], Any]:
    """Read the file, which another process may have written meanwhile, or write it first."""
    try:
        return read_arrays(path)
    except FileNotFoundError:
        pass
    except records.DamagedError as error:
        records.warn(error, "computed again")
    arrays: dict[str, Any] = {**compute(), _INPUTS: np.array(json.dumps(inputs))}
    content = io.BytesIO()
    np.savez(content, **arrays)
    records.write_bytes(path, _seal(content.getvalue()[:-2]))
    return read_arrays(path)


def claim_folder(
    path: str | os.PathLike[str], config: Mapping[str, Any], *, name: str = "config"
) -> pathlib.Path:
    """Create an output folder for a run, or continue in one with an equal config.

    Args:
      path: The folder.
      config: Everything that the run depends on; described and compared.
      name: Stem of the JSON file that stores the description.

    Returns:
      The folder.

    Raises:
      ValueError: If the folder cannot be written, or belongs to a run with another
        config; the message names the difference.
    """
    folder = pathlib.Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(f"output folder {str(folder)!r} cannot be written: {error}") from None
    file, current = folder / f"{name}.json", identity.describe_inputs(config)
    if not file.exists():
        with records.file_lock(file):
            if not file.exists():
                recorded = identity.recorded_versions()
                records.write_json(file, {**current, "recorded": recorded})
    stored = records.read_json(file)
    stored.pop("recorded", None)
    if difference := identity.first_difference(stored, current):
        raise ValueError(
            f"output folder {str(folder)!r} belongs to a run with another config: "
            f"{difference}; choose another folder"
        )
    return folder
