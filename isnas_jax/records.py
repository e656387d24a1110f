"""What a run leaves on disk: written whole or not at all, equal for equal runs."""

import csv
import importlib.metadata
import io
import json
import os
import pathlib
import platform
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

_PACKAGES = ("isnas_jax", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", "pillow")


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Replaces a file at once, so that a reader or a killed run never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, so that no reader of a folder takes it for data; its own, if two write the same.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON, indented, in the order given."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: pathlib.Path) -> Any:
    """Reads what `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_csv(path: pathlib.Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows that have the same columns; floats in the shortest form that reads back equal."""
    rows = list(rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def once(
    path: pathlib.Path | None, compute: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays in an .npz file, computed and written if it does not exist yet.

    A run that is started again thus finds what it had finished. Without a path
    nothing is kept.
    """
    if path is None:
        return compute()
    if not path.exists():
        content = io.BytesIO()
        np.savez(content, **compute())  # type: ignore[arg-type]
        write_bytes(path, content.getvalue())
    with np.load(path) as arrays:
        return dict(arrays)


def versions() -> dict[str, str]:
    """Versions and backend: what, beside settings and seed, a run's numbers depend on."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), "backend": jax.default_backend(), **found}


def open_folder(path: str | os.PathLike[str], settings: Mapping[str, Any]) -> pathlib.Path:
    """Makes an output folder for a run, or takes up the one an equal run has begun.

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
    file = folder / "settings.json"
    if not file.exists():
        write_json(file, settings)
    before, now = read_json(file), json.loads(json.dumps(settings))
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise ValueError(
                f"output folder {str(folder)!r} belongs to a run with other settings: {name} was "
                f"{before.get(name)!r} and is now {now.get(name)!r}"
            )
    return folder
