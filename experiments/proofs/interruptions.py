r"""Stop scripts at random moments and compare their records with undisturbed runs.

    python -m experiments.proofs.interruptions --kills=100 --output_dir=out_kills

Each script runs once undisturbed. Then it starts again and again in another folder and is
stopped at a random moment by SIGKILL, SIGTERM or SIGINT, until it finishes; then it starts over in
an empty folder. After each stop, all finished records must be unchanged. After each finished
run, all records except timings must equal those of the undisturbed run, byte for byte.
Takes about half an hour on two cores. Expected: 0 records lost, 0 records different.
"""

import functools
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

from absl import flags

from ..flags import define_output_dir
from ..main import FLAGS, run_script
from .runs import different_records, record_digests, start

SMALL = ("--size=64", "--gray", "--square", "--channels=4", "--stopping=fixed")
SCRIPTS = {
    "search": (
        *("--image=sample:moon", "--num_genotypes=5", "--cohort=2"),
        *("--cohort_iterations=60", "--iterations=100", "--proxy=full"),
    ),
    "make_dataset": (
        *("--images=sample:moon", "--tasks=denoising:20:60,inpainting:60"),
        *("--num_genotypes=1", "--metrics=psd_db_mse", "--num_inits=2", "--baselines="),
    ),
    "compare": (
        *("--images=sample:moon", "--num_seeds=2", "--methods=DIP,ISNAS-DIP", "--extra_members="),
        *("--num_genotypes=3", "--cohort=1", "--cohort_iterations=60", "--iterations=60"),
        *("--selection=closest", "--combination=selected"),
    ),
}

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# Exit codes of a script that a signal stopped; 130 if it handled Ctrl-C itself.
STOPPED = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 130)
log = functools.partial(print, flush=True)


def run_small(script: str, folder: pathlib.Path) -> subprocess.Popen:
    """Start a script with small settings that writes to a folder."""
    return start(script, *SMALL, *SCRIPTS[script], folder=folder)


def check_exit_code(code: int) -> None:
    """Raise ValueError unless the exit code is 0."""
    if code:
        raise ValueError(f"a script ended by itself with exit code {code}")


def run_undisturbed(script: str, folder: pathlib.Path) -> tuple[float, dict[str, str]]:
    """Run a script and return its duration in seconds and the digests of its records."""
    shutil.rmtree(folder, ignore_errors=True)
    check_exit_code(run_small(script, folder).wait())  # fills the compilation cache
    shutil.rmtree(folder)
    begin = time.monotonic()
    check_exit_code(run_small(script, folder).wait())
    return time.monotonic() - begin, record_digests(folder)


def run_interrupted(
    script: str, root: pathlib.Path, num_kills: int, rng: random.Random
) -> tuple[int, int, int, int]:
    """Stop a script several times; count stops, finished runs, lost and different records."""
    seconds, expected = run_undisturbed(script, root / script / "undisturbed")
    log(f"{script}: {seconds:.1f} s undisturbed, {len(expected)} records")
    folder = root / script / "interrupted"
    shutil.rmtree(folder, ignore_errors=True)
    kills = runs = lost = different = 0
    while kills < num_kills or folder.exists():
        before = record_digests(folder)
        process = run_small(script, folder)
        try:
            process.wait(rng.uniform(0.1, 0.8) * seconds if kills < num_kills else None)
        except subprocess.TimeoutExpired:
            sent = rng.choice(SIGNALS)
            os.kill(process.pid, sent)
            kills += 1
            log(f"{script}: {sent.name}")
        if process.wait() not in STOPPED:
            check_exit_code(process.returncode)
        after = record_digests(folder)
        lost_names = [name for name, digest in before.items() if after.get(name) != digest]
        lost += len(lost_names)
        log(f"{script}: {len(before)} records before, {len(after)} after, lost {lost_names}")
        if process.returncode == 0:
            different_names = different_records(expected, after)
            different += len(different_names)
            runs += 1
            log(f"{script}: finished; different from the undisturbed run: {different_names}")
            shutil.rmtree(folder)
    return kills, runs, lost, different


def define_flags() -> None:
    """Define the flags of this script."""
    flags.DEFINE_integer("kills", 100, "Number of stops, divided equally among the scripts.")
    flags.DEFINE_integer("seed", 0, "Seed of the random moments and signals.")
    define_output_dir("out_kills", "Folder for the runs.")
    flags.DEFINE_list("scripts", list(SCRIPTS), "Scripts to stop.")


def main() -> None:
    """Stop each script, compare its records, print the totals."""
    root, rng = pathlib.Path(FLAGS.output_dir), random.Random(FLAGS.seed)
    num_kills = FLAGS.kills // len(FLAGS.scripts)
    totals = [run_interrupted(script, root, num_kills, rng) for script in FLAGS.scripts]
    kills, runs, lost, different = map(sum, zip(*totals, strict=True))
    print(
        f"{kills} stops, {runs} finished runs: {lost} finished records lost, {different} records "
        "different from an undisturbed run"
    )


if __name__ == "__main__":
    run_script(main, define_flags)
