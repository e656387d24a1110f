r"""Stop scripts at random moments, and compare what they leave with unbroken runs.

    python -m experiments.interruptions --kills=100 --output_dir=out_kills

Each script is run once undisturbed. Then it is started again and again in
another folder and stopped at a random moment by SIGKILL, SIGTERM or SIGINT, until it ends
by itself; then the folder is emptied and all begins anew. After every stop
each finished file must be there as it was, and in the end all records, timings
apart, must be those of the unbroken run, byte for byte. About half an hour on
two cores; expected: 0 files lost, 0 records different.
"""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from absl import flags

from . import cli
from .kept import finished

FLAGS = flags.FLAGS

flags.DEFINE_integer("kills", 100, "How many, over all scripts.")
flags.DEFINE_integer("seed", 0, "Of the moments.")
cli.define_output_dir("out_kills", "Folder for the runs and log.txt.")

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
        *("--selection=closest", "--combine=selected"),
    ),
}
flags.DEFINE_list("scripts", list(SCRIPTS), "Whom to stop.")

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# What a script that one of these stopped exits with: Ctrl-C is heard once it has begun.
STOPPED = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 130)


def start(script: str, folder: pathlib.Path) -> subprocess.Popen:
    """The script at work in a folder."""
    cache = f"--compilation_cache={FLAGS.compilation_cache}"
    command = [sys.executable, "-m", f"{__package__}.{script}", *SMALL, *SCRIPTS[script], cache]
    quiet = subprocess.DEVNULL
    return subprocess.Popen([*command, f"--output_dir={folder}"], stdout=quiet, stderr=quiet)


def check(code: int) -> None:
    """An error unless a script ended well."""
    if code:
        raise ValueError(f"a script ended by itself with exit code {code}")


def main(_: Sequence[str]) -> None:
    """The story: run undisturbed, kill, compare."""
    place, draw = pathlib.Path(FLAGS.output_dir), random.Random(FLAGS.seed)
    place.mkdir(parents=True, exist_ok=True)
    log = open(place / "log.txt", "w", buffering=1)  # noqa: SIM115
    lost = different = runs = 0
    kills, most = dict.fromkeys(FLAGS.scripts, 0), FLAGS.kills // len(FLAGS.scripts)
    for script in FLAGS.scripts:
        shutil.rmtree(place / script, ignore_errors=True)
        check(start(script, place / script / "whole").wait())  # fills the compilation cache
        shutil.rmtree(place / script / "whole")
        begin = time.monotonic()
        check(start(script, place / script / "whole").wait())
        seconds, whole = time.monotonic() - begin, finished(place / script / "whole")
        print(f"{script}: {seconds:.1f} s undisturbed, {len(whole)} records", file=log)
        broken = place / script / "broken"
        # The last one runs to its end, whatever became of it before.
        while kills[script] < most or broken.exists():
            before = finished(broken) if broken.exists() else {}
            process = start(script, broken)
            enough = kills[script] >= most
            try:
                process.wait(None if enough else draw.uniform(0.1, 0.8) * seconds)
            except subprocess.TimeoutExpired:
                sent = draw.choice(SIGNALS)
                os.kill(process.pid, sent)
                kills[script] += 1
                print(f"{script}: {sent.name}", file=log)
            if process.wait() not in STOPPED:
                check(process.returncode)
            after = finished(broken) if broken.exists() else {}
            gone = [name for name, found in before.items() if after.get(name) != found]
            lost += len(gone)
            print(f"{script}: {len(before)} records, then {len(after)}, lost {gone}", file=log)
            if process.returncode == 0:
                wrong = [n for n in whole.keys() | after.keys() if whole.get(n) != after.get(n)]
                different += len(wrong)
                runs += 1
                print(f"{script}: ended; different from the unbroken run: {wrong}", file=log)
                shutil.rmtree(broken)
    print(
        f"{sum(kills.values())} stops, {runs} runs that ended in spite of them: {lost} finished "
        f"records lost, {different} different from an unbroken run's; see {place / 'log.txt'}"
    )


if __name__ == "__main__":
    cli.run(main)
