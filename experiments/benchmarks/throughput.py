r"""Time a small study by several runners, compilation included: fits in an hour of a core.

    python -m experiments.benchmarks.throughput --channels=16 --num_iterations=900
    python -m experiments.benchmarks.throughput --channels=128 --num_iterations=100 --num_images=2

Each runner has a process of its own and no compilation cache; the first is
taken again at the end, for machines whose speed varies. Ratios are of one run.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import jax
from absl import flags

import isnas_jax as isnas
from isnas_jax import study
from isnas_jax.io import records
from isnas_jax.running import Runner, Threads, cores

from .. import cli
from . import machine

FLAGS = flags.FLAGS

flags.DEFINE_integer("channels", 16, "Width of the networks.")
flags.DEFINE_integer("size", 64, "Side of the images in pixels.")
flags.DEFINE_integer("num_genotypes", 3, "How many of them to draw.")
flags.DEFINE_integer("num_images", 3, "How many of the photographs to fit.")
flags.DEFINE_integer("num_iterations", 900, "Of each fit.")
flags.DEFINE_list("runners", ["one at a time", "threads", "processes"], "Whom to compare.")
flags.DEFINE_string("json", None, "File to write the figures to.")
flags.DEFINE_string("only", None, "Time this runner, in this process.")

PHOTOGRAPHS = ("camera", "coffee", "chelsea", "astronaut", "rocket", "cat")


def runner(name: str) -> Runner:
    """One of the registered, or one that does a unit after the other, as long ago."""
    if name == "one at a time":
        return lambda progress: Threads(progress, workers=1)
    return isnas.RUNNERS[name]


def timed(name: str) -> float:
    """Seconds of the study by a runner."""
    key = jax.random.key(0)
    cases = []
    for image in PHOTOGRAPHS[: FLAGS.num_images]:
        clean = machine.photograph(image, FLAGS.size)
        cases.append(study.pose(0, image, clean, "denoising", sigma=25))
    whole = study.Study(
        seed=0,
        cases=cases,
        genotypes=isnas.SPACES["free"].sample(key, FLAGS.num_genotypes, FLAGS.channels),
        baselines=[],
        seeds=1,
        network=isnas.NetworkConfig(FLAGS.channels),
        fit={"denoising": isnas.FitConfig(FLAGS.num_iterations)},
        follow={"denoising": FLAGS.num_iterations},
        metrics={},
    )
    todo = [unit for unit in study.units(whole) if isinstance(unit, study.FitUnit)]
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        failed = study.run(whole, folder, todo, runner=runner(name))
        seconds = time.perf_counter() - begun
    if failed:
        raise ValueError(f"fits failed: {failed}")
    return seconds


def main(_: Sequence[str]) -> None:
    """The story: the same study by each runner, in a process of its own."""
    if FLAGS.only:
        print(json.dumps(timed(FLAGS.only)))
        return
    number, rows = FLAGS.num_genotypes * FLAGS.num_images, []
    for name in [*FLAGS.runners, FLAGS.runners[0]]:
        command = [sys.executable, "-m", f"{__package__}.throughput", *sys.argv[1:]]
        command += [f"--only={name}", "--compilation_cache="]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        seconds = json.loads(done.stdout)
        rows.append({"runner": name, "seconds": seconds})
        ratio = rows[0]["seconds"] / seconds
        print(
            f"{name}: {number} fits in {seconds:.0f} s on {len(cores())} cores, "
            f"{number / seconds * 3600 / len(cores()):.0f} in an hour of a core; {ratio:.2f} times",
            flush=True,
        )
    if FLAGS.json:
        record = machine.describe() | {"fits": number, "channels": FLAGS.channels, "runs": rows}
        records.write_json(pathlib.Path(FLAGS.json), record)


if __name__ == "__main__":
    cli.run(main)
