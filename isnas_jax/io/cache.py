"""Cache results on disk by their inputs, and claim output folders for one run.

A result is stored with a description of the inputs that it depends on (see `identity`) and
is used only for equal inputs. Files hold a digest of their content; a damaged file is
detected, reported and computed again.
"""

import io
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from isnas_jax.io import identity, records

# The array in an .npz file that holds the description of the inputs.
_INPUTS = "described"


def check_inputs(path: pathlib.Path, stored: Any, current: Any) -> None:
    """Raise ValueError if a file was computed from other inputs, naming the difference."""
    if difference := identity.first_difference(stored, current):
        raise ValueError(f"{str(path)!r} belongs to other inputs: {difference}")


def read_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], Any]:
    """Read a file of `write_arrays`.

    Returns:
      The arrays by name, and the description of the inputs that they were computed from.

    Raises:
      DamagedError: If the file's digest differs from its content, or is missing.
    """
    with np.load(io.BytesIO(records.read_sealed(pathlib.Path(path)))) as archive:
        arrays = dict(archive)
    return arrays, json.loads(str(arrays.pop(_INPUTS)))


def write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray], inputs: Any) -> None:
    """Write arrays and the description of their inputs to an .npz file with a digest."""
    content = io.BytesIO()
    entries: dict[str, Any] = {**arrays, _INPUTS: np.array(json.dumps(inputs))}
    np.savez(content, **entries)
    records.write_sealed(path, content.getvalue())


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
    with records.file_lock(path):
        try:
            arrays, stored = read_arrays(path)
        except (FileNotFoundError, records.DamagedError) as error:
            if isinstance(error, records.DamagedError):
                records.warn(error, "computed again")
            write_arrays(path, compute(), current)
            arrays, stored = read_arrays(path)
    check_inputs(path, stored, current)
    return arrays


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
    file, current = folder / f"{name}.json", identity.describe_inputs(config)
    try:
        with records.file_lock(file):
            if not file.exists():
                recorded = identity.recorded_versions()
                records.write_json(file, {**current, "recorded": recorded})
    except OSError as error:
        raise ValueError(f"output folder {str(folder)!r} cannot be written: {error}") from None
    stored = records.read_json(file)
    stored.pop("recorded", None)
    if difference := identity.first_difference(stored, current):
        raise ValueError(
            f"output folder {str(folder)!r} belongs to a run with another config: "
            f"{difference}; choose another folder"
        )
    return folder
