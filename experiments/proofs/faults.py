r"""Run a restoration under faults of the machine: full disks, no permission, few open files.

    python -m experiments.proofs.faults --output_dir=out_faults

A restoration meets each fault. Then the fault is removed and the same command runs again; its
records must equal those of an undisturbed run. Prints a table with one row per fault.
Needs root and Linux, since it mounts small file systems.
"""

import contextlib
import functools
import pathlib
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator

from tabulate import tabulate

from ..flags import define_output_dir
from ..main import FLAGS, run_script
from .runs import different_records, record_digests, start

RESTORE = (
    *("--image=sample:moon", "--size=64", "--gray", "--square", "--channels=4"),
    *("--architecture=dip", "--stopping=fixed", "--iterations=120"),
)


def run(folder: pathlib.Path, set_limits: Callable[[], None] | None = None) -> tuple[int, str]:
    """Restore into a folder and return the exit code and the last line of stderr."""
    process = start(
        "restore",
        *RESTORE,
        folder=folder,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=set_limits,
    )
    _, errors = process.communicate()
    last_line = (errors.strip().splitlines() or [""])[-1]
    prefix = "TRACEBACK " if "Traceback" in errors else ""
    return process.returncode, prefix + last_line


@contextlib.contextmanager
def mounted(path: pathlib.Path, options: str) -> Iterator[None]:
    """Mount a file system in memory until the block ends."""
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def define_flags() -> None:
    """Define the flags of this script."""
    define_output_dir("out_faults", "Folder for the runs.")


def main() -> None:
    """Run undisturbed, then with each fault and again without it."""
    root = pathlib.Path(FLAGS.output_dir)
    shutil.rmtree(root, ignore_errors=True)
    code, _message = run(root / "undisturbed")
    if code != 0:
        raise ValueError(f"the undisturbed run ended with exit code {code}")
    expected, rows = record_digests(root / "undisturbed"), []

    def rerun(fault: str, folder: pathlib.Path, code: int, message: str) -> None:
        """Run again without the fault and add a row to the table."""
        rerun_code, _message = run(folder)
        different = different_records(expected, record_digests(folder))
        rows.append((fault, code, message.replace(str(root), "..."), rerun_code, len(different)))

    sizes = ("16k", "64k", "256k", "1m")
    disks = [(f"disk of {size}", f"size={size}", "size=100m") for size in sizes]
    disks.append(("read-only folder", "size=100m,ro", "rw"))
    for fault, options, repaired in disks:
        disk = root / fault.replace(" ", "_")
        with mounted(disk, options):
            outcome = run(disk / "out")
            subprocess.run(["mount", "-o", f"remount,{repaired}", str(disk)], check=True)
            rerun(fault, disk / "out", *outcome)
    limits = [(f"{num} open files", resource.RLIMIT_NOFILE, num) for num in (12, 24, 48)]
    limits.append(("files of 20 kB", resource.RLIMIT_FSIZE, 20_000))
    for fault, kind, limit in limits:
        folder = root / fault.replace(" ", "_")
        rerun(
            fault, folder, *run(folder, functools.partial(resource.setrlimit, kind, (limit, limit)))
        )
    headers = ["fault", "exit code", "last line", "exit code without fault", "different records"]
    print(tabulate(rows, headers, tablefmt="github"))


if __name__ == "__main__":
    run_script(main, define_flags)
