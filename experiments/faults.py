r"""What a restoration does where the machine fails it: no room, no permission, no handles.

    python -m experiments.faults --output_dir=out_faults

Needs root and Linux, for small file systems are mounted. Each fault is met by a
restoration; then it is taken away, and the same command must end with the records of an
undisturbed run. Prints a row a fault: the exit code, the last line, and what differs.
"""

import contextlib
import pathlib
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

from absl import flags
from tabulate import tabulate

from . import cli
from .kept import finished

FLAGS = flags.FLAGS

cli.define_output_dir("out_faults", "Folder for the runs.")

RESTORE = (
    *("--image=sample:moon", "--size=64", "--gray", "--square", "--channels=4"),
    *("--architecture=dip", "--stopping=fixed", "--iterations=120"),
)


def run(folder: pathlib.Path, prepare: Callable[[], None] | None = None) -> tuple[int, str]:
    """A restoration into a folder: its exit code and its last line of errors."""
    command = [sys.executable, "-m", f"{__package__}.restore", *RESTORE, f"--output_dir={folder}"]
    command.append(f"--compilation_cache={FLAGS.compilation_cache}")
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=prepare, check=False)
    traced = "Traceback" in done.stderr
    lines = done.stderr.strip().splitlines() or [""]
    return done.returncode, f"TRACEBACK {lines[-1]}" if traced else lines[-1]


@contextlib.contextmanager
def mounted(place: pathlib.Path, options: str) -> Iterator[None]:
    """A file system in memory."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def again(place: pathlib.Path, options: str) -> None:
    """The same file system with other options."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


def limited(what: int, most: int) -> Callable[[], None]:
    """Gives a process so much of something."""
    return lambda: resource.setrlimit(what, (most, most))


def main(_: Sequence[str]) -> None:
    """The story: an undisturbed run, then fault after fault, and each taken away."""
    place = pathlib.Path(FLAGS.output_dir)
    shutil.rmtree(place, ignore_errors=True)
    whole = place / "whole"
    if (code := run(whole)[0]) != 0:
        raise ValueError(f"the undisturbed run ended with exit code {code}")
    expected, rows = finished(whole), []

    def row(fault: str, met: tuple[int, str], folder: pathlib.Path) -> None:
        code, _ = run(folder)
        found = finished(folder)
        differ = [name for name in expected | found if expected.get(name) != found.get(name)]
        rows.append((fault, met[0], met[1].replace(str(place), "..."), code, len(differ)))

    for size in ("16k", "64k", "256k", "1m"):
        with mounted(place / f"disk_{size}", f"size={size}"):
            met = run(place / f"disk_{size}" / "out")
            again(place / f"disk_{size}", "size=100m")
            row(f"disk of {size}", met, place / f"disk_{size}" / "out")
    with mounted(place / "read_only", "size=100m,ro"):
        met = run(place / "read_only" / "out")
        again(place / "read_only", "rw")
        row("read-only folder", met, place / "read_only" / "out")
    for number in (12, 24, 48):
        met = run(place / f"files_{number}", limited(resource.RLIMIT_NOFILE, number))
        row(f"{number} open files", met, place / f"files_{number}")
    met = run(place / "size", limited(resource.RLIMIT_FSIZE, 20_000))
    row("files of 20 kB", met, place / "size")
    heads = ["fault", "exit code", "said", "without it, exit code", "records that differ"]
    print(tabulate(rows, heads, tablefmt="github"))


if __name__ == "__main__":
    cli.run(main)
