r"""Time a small study with several runners, as fits per core and hour, with compilation.

    python -m experiments.benchmarks.throughput --channels=16 --num_iterations=900
    python -m experiments.benchmarks.throughput --channels=128 --num_iterations=100 --num_images=2

Each runner runs in its own process without a compilation cache. The first runner runs again at
the end, to show how much the speed of the machine varies.
"""

import functools
import subprocess
import sys
import tempfile
import time

import jax
from absl import flags

import isnas_jax as isnas
from isnas_jax import registries, study
from isnas_jax.running import Runner, Threads, cores

from ..main import FLAGS, run_script
from . import machine

PHOTOGRAPHS = ("camera", "coffee", "chelsea", "astronaut", "rocket", "cat")


def time_study(name: str) -> float:
    """Return the seconds of the study with a runner."""
    single_thread: Runner = functools.partial(Threads, workers=1)
    runner = single_thread if name == "one at a time" else registries.RUNNERS[name]
    key, cases = jax.random.key(0), []
    for image in PHOTOGRAPHS[: FLAGS.num_images]:
        clean = machine.load_photograph(image, FLAGS.size)
        cases.append(study.pose(0, image, clean, registries.TASKS["denoising"], sigma=25))
    small_study = study.Study(
        seed=0,
        cases=cases,
        genotypes=isnas.free_space.sample(key, FLAGS.num_genotypes, FLAGS.channels),
        baselines=[],
        seeds=1,
        network=isnas.NetworkConfig(FLAGS.channels),
        fit={"denoising": isnas.FitConfig(FLAGS.num_iterations)},
        follow={"denoising": FLAGS.num_iterations},
        metrics={},
    )
    units = [unit for unit in study.units(small_study) if isinstance(unit, study.FitUnit)]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        failed = study.run(small_study, folder, units, runner=runner)
        seconds = time.perf_counter() - start
    if failed:
        raise ValueError(f"fits failed: {failed}")
    return seconds


def define_flags() -> None:
    """Define the flags of this script."""
    machine.define_size(64, 16)
    flags.DEFINE_integer("num_genotypes", 3, "Number of genotypes to draw.")
    flags.DEFINE_integer("num_images", 3, "Number of photographs to fit, at most 6.")
    flags.DEFINE_integer("num_iterations", 900, "Iterations per fit.")
    flags.DEFINE_list("runners", ["one at a time", "threads", "processes"], "Runners to compare.")
    flags.DEFINE_string("only", None, "Time only this runner, in this process.")


def main() -> None:
    """Run the same study with each runner in its own process and print the throughput."""
    if FLAGS.only:
        print(time_study(FLAGS.only))
        return
    num_fits, all_seconds = FLAGS.num_genotypes * FLAGS.num_images, []
    for name in [*FLAGS.runners, FLAGS.runners[0]]:
        command = [sys.executable, "-m", f"{__package__}.throughput", *sys.argv[1:]]
        command += [f"--only={name}", "--compilation_cache="]
        process = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        seconds = float(process.stdout)
        all_seconds.append(seconds)
        print(
            f"{name}: {num_fits} fits in {seconds:.0f} s on {len(cores())} cores: "
            f"{num_fits / seconds * 3600 / len(cores()):.0f} per core and hour, "
            f"{all_seconds[0] / seconds:.2f} times the first runner",
            flush=True,
        )


if __name__ == "__main__":
    run_script(main, define_flags)
