r"""Make a dataset of fits and scores: genotypes x images x tasks x seeds.

    python -m experiments.make_dataset --images=sample:camera,sample:retina \
        --tasks=denoising:450:900,inpainting:1000:1500 --stopping=fixed \
        --size=64 --square --gray --num_genotypes=100 --num_inits=4 --output_dir=dataset

denoising:450:900 restores by --stopping in 450 iterations and follows the fit until iteration 900.
The folder holds Parquet files; see `isnas_jax.study`. A killed run resumes, and --shard=0/2 and
--shard=1/2 divide the work between two processes. Units that failed are listed at the end, with
exit code 3; --retry_failed runs them again. --dry_run estimates the cost by trying a few
architectures for some steps. --benchmark adds the fits to a folder that
`isnas_jax.benchmark.load` reads.
"""

import dataclasses
import re
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from absl import flags

import isnas_jax as isnas
from isnas_jax import benchmark, study
from isnas_jax.io import images
from isnas_jax.registries import BASELINES, METRICS, PUBLISHED_METRICS, TASKS
from isnas_jax.running import Event

from . import building, progress
from .flags import check_seeds, define, define_images, refuse_unused
from .main import FLAGS, open_folder, run_script

# Flags that the content of the folder does not depend on.
IGNORED = (
    "benchmark",
    "shard",
    "runner",
    "job_fits",
    "job_cpus",
    "job_gpus",
    "retry_failed",
    "dry_run",
)


def define_flags() -> None:
    """Define the flags of this script."""
    define("run", "network", "fit", "scores", "runner")
    FLAGS.set_default("space", "free")
    define_images()
    flags.DEFINE_list(
        "tasks",
        ["denoising"],
        "NAME, NAME:N for N iterations instead of --iterations, or NAME:N:M to follow until M.",
    )
    flags.DEFINE_list("baselines", ["dip", "nas-dip"], "Networks to fit in addition.")
    flags.DEFINE_integer("num_seeds", 1, "Fits of an architecture to an image.")
    flags.DEFINE_integer("first_seed", 0, "Seed of the first of them.", lower_bound=0)
    flags.DEFINE_list("metrics", [], "Metrics to score by; all by default; random always.")
    flags.DEFINE_boolean(
        "shared_weights", False, "Draw one set of weights for all random outputs; only z differs."
    )
    flags.DEFINE_boolean("retry_failed", False, "Run failed units again.")
    flags.DEFINE_string("benchmark", None, "Folder of a benchmark to add the finished fits to.")
    flags.DEFINE_boolean("dry_run", False, "Estimate the cost, and compute nothing.")
    flags.DEFINE_integer(
        "job_fits", None, "Largest number of fits of one program in a job.", lower_bound=1
    )
    flags.DEFINE_string("shard", "0/1", "I/N: every N-th architecture from the I-th on.")


def parse_tasks() -> dict[str, list[int]]:
    """Return the iterations that --tasks gives for each task."""
    result = {}
    for text in FLAGS.tasks:
        task, *numbers = text.split(":")
        TASKS[task]  # refuses an unknown name
        if len(numbers) > 2 or not all(map(str.isdecimal, numbers)):
            raise ValueError(f"task {text!r}: write NAME, NAME:ITERATIONS or NAME:ITERATIONS:UNTIL")
        result[task] = [int(number) for number in numbers]
    return result


def study_fit(config: isnas.FitConfig) -> isnas.FitConfig:
    """Return how a study fits: all measurements, equation 4, ES-WMV, unless flags differ."""
    defaults = {"split": None, "stopping": isnas.WindowedVariance(), "debias": False}
    changes: Any = {name: value for name, value in defaults.items() if FLAGS[name].value is None}
    return dataclasses.replace(config, folds=1, refit_factor=1.0, refit_from=0.0, **changes)


def print_plan(plan: study.Plan) -> None:
    """Print the estimated cost."""
    print(f"{plan.fits} fits of {plan.iterations:,} iterations together, {plan.scores} scores")
    print(f"{plan.programs} programs to compile, {plan.workers} units at a time")
    if plan.trials:
        columns = [
            "GB of memory of a fit",
            "s to compile a program",
            "s of a step",
            "s to score an architecture",
        ]
        costs = pd.DataFrame(np.array(plan.trials) / (1e9, 1, 1, 1), columns=columns)
        print(costs.agg(["min", "max"]).T.to_string(float_format="{:.3g}".format))
    print(f"about {plan.hours:.2g} hours, {plan.hours * plan.workers:.2g} of one worker")


def common_config(configs: Mapping[str, isnas.Config]) -> isnas.Config:
    """Return a config whose networks and candidates are those of all tasks; ValueError if none."""
    config = next(iter(configs.values()))
    for flag, value in (
        ("channels", lambda config: config.network.channels),
        ("num_genotypes", lambda config: building.num_genotypes(config.search.strategy)),
    ):
        by_task = {task: value(config) for task, config in configs.items()}
        if len(set(by_task.values())) > 1:
            raise ValueError(f"the preset differs between tasks, {by_task}; give --{flag}")
    return config


def build_study() -> study.Study:
    """Return the study of the flags, every problem posed."""
    iterations = parse_tasks()
    tasks = {name: TASKS[name] for name in iterations}
    building.check_corruption(f"--tasks={','.join(tasks)}", list(tasks.values()))
    check_seeds(FLAGS.num_seeds)
    clean_images = images.load_all(
        building.find_images(),
        lambda path: {name: building.load_clean(path, name) for name in tasks},
    )
    cases = [
        building.pose(FLAGS.seed, image, clean, tasks[name])
        for image, by_task in clean_images.items()
        for name, clean in by_task.items()
    ]
    refuse_unused(
        {
            "where all --tasks have numbers": ("iterations",) if all(iterations.values()) else (),
            "with --dry_run": ("job_fits", "benchmark") if FLAGS.dry_run else (),
        }
    )
    problems = {case.task: case.problem for case in cases}
    configs = {name: building.config(problems[name], *iterations[name][:1]) for name in tasks}
    fit = {name: study_fit(config.fit) for name, config in configs.items()}
    config = common_config(configs)
    chosen = FLAGS.metrics or [*METRICS, *PUBLISHED_METRICS]
    metrics: Any = {name: METRICS[name] for name in dict.fromkeys([*chosen, "random"])}
    return study.Study(
        seed=FLAGS.seed,
        cases=cases,
        genotypes=building.genotypes(study.key_of(FLAGS.seed, "genotypes"), config),
        baselines=[BASELINES[name] for name in FLAGS.baselines],
        seeds=range(FLAGS.first_seed, FLAGS.first_seed + FLAGS.num_seeds),
        network=config.network,
        fit=fit,
        follow={name: (iterations[name] or [fit[name].iterations])[-1] for name in tasks},
        metrics=metrics,
        inits=config.search.inits,
        space=config.search.space,
    )


def select_units(whole: study.Study) -> list[study.Unit]:
    """Return the units of --shard."""
    if not (shard := re.fullmatch(r"(\d+)/(\d+)", FLAGS.shard)):
        raise ValueError(f"shard {FLAGS.shard!r} is not of the form I/N")
    return study.shard(study.units(whole), int(shard[1]), int(shard[2]))


def main() -> None:
    """Pose every problem, list the units, and compute those of the shard."""
    whole = build_study()
    if FLAGS.benchmark:
        benchmark.check(whole)
    todo = select_units(whole)
    runner = building.runner()
    if FLAGS.dry_run:
        left = study.unfinished(whole, FLAGS.output_dir, todo, retry_failed=FLAGS.retry_failed)
        print_plan(study.plan(whole, left, runner=runner))
        return
    folder = open_folder((*IGNORED, "images"), candidates=whole.genotypes)

    # Failed units too, because they are listed again.
    left = study.unfinished(whole, folder, todo, retry_failed=True)
    progress_of = dict.fromkeys((unit.name for unit in left), 0.0)
    with progress.shown() as status:

        def count() -> None:
            done = len(todo) - len(left) + sum(progress_of.values())
            status(Event(("units",), done, len(todo)))

        def report(event: Event) -> None:
            progress_of[event.stage] = event.done / event.total
            if event.done < event.total:
                status(event)
            count()

        count()
        failed = study.run(
            whole,
            folder,
            left,
            runner=runner,
            progress=report,
            retry_failed=FLAGS.retry_failed,
            job_fits=FLAGS.job_fits,
        )
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    if failed:
        sys.exit(3)
    if FLAGS.benchmark:
        strengths = {"denoising": FLAGS.sigma, "inpainting": FLAGS.missing}
        strengths["super_resolution"] = FLAGS.factor
        with progress.shown() as status:
            paths = benchmark.pack(whole, folder, FLAGS.benchmark, strengths, progress=status)
        print(f"{len(paths)} cases added to {FLAGS.benchmark}")


if __name__ == "__main__":
    run_script(main, define_flags)
