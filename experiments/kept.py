"""The records that a run left in its folder, to be compared with those of another."""

import hashlib
import pathlib

# Of runs under way, or different in runs whose results are equal.
APART = ("timings", "timings.json", "report.html", "command.txt")


def finished(folder: pathlib.Path) -> dict[str, str]:
    """Digests of the records in a folder, by name: no hidden files, checkpoints or timings."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    # A run without a result shows the best restoration so far.
    apart = APART if (folder / "result.json").exists() else (*APART, "restored.png")
    kept = [
        name
        for name in names
        if not name.name.startswith(".")
        and name.suffix != ".checkpoint"
        and name.parts[0] not in apart
    ]
    return {str(n): hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in sorted(kept)}
