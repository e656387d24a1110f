"""Runs of scripts in processes, and digests of their records to compare runs byte for byte."""

import hashlib
import pathlib
import subprocess
import sys
from typing import Any

from ..flags import FLAGS

# Files and folders that differ between runs with equal results.
EXCLUDED = ("timings.json", "report.html", "command.txt")


def start(script: str, *arguments: str, folder: pathlib.Path, **options: Any) -> subprocess.Popen:
    """Start a script that writes to a folder, silently unless the options of Popen differ."""
    package = __package__.rpartition(".")[0]
    cache = f"--compilation_cache={FLAGS.compilation_cache}"
    command = [sys.executable, "-m", f"{package}.{script}", *arguments, cache]
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | options
    return subprocess.Popen([*command, f"--output_dir={folder}"], **options)


def record_digests(folder: pathlib.Path) -> dict[str, str]:
    """Return SHA-256 digests of the finished records in a folder, by relative path.

    Hidden files, checkpoints and timings are excluded. A folder that does not exist has none.
    """
    # Before there is a result, restored.png is a preview.
    excluded = EXCLUDED if (folder / "result.json").exists() else (*EXCLUDED, "restored.png")
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {
        str(name): hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in names
        if not name.name.startswith(".")
        and name.suffix != ".checkpoint"
        and name.parts[0] not in excluded
    }


def different_records(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """Return the names of records that are missing or different in one of two runs."""
    return [name for name in first | second if first.get(name) != second.get(name)]
