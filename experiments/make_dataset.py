r"""Make a dataset of fits and scores: genotypes x images x tasks x seeds.

    python -m experiments.make_dataset --images=sample:camera,sample:retina \
        --tasks=denoising:450:900,inpainting:1000:1500 --stopping=fixed \
        --size=64 --square --gray --num_genotypes=100 --num_inits=4 --output_dir=dataset

denoising:450:900 is what --stopping restores in 450 iterations, the fit being
followed until 900. The folder holds Parquet files; see `isnas_jax.study`. A killed
run started again goes on where it was, and --shard=0/2 and --shard=1/2 share
the work between two processes. Units that failed are listed at the end, with exit
code 3; --retry_failed tries them again. --dry_run says what it would take, by trying
out a few architectures for some steps.
"""

import dataclasses
import re
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

import isnas_jax as isnas
from isnas_jax import study
from isnas_jax.fitting import Progress
from isnas_jax.io import images

from . import cli, progress

FLAGS = flags.FLAGS

cli.define_run_flags()
cli.define_network_flags()
FLAGS.set_default("space", "free")
cli.define_fit_flags()
cli.define_score_flags()
cli.define_runner_flags()
flags.DEFINE_list("images", None, "Clean images: files, folders or sample:NAME.")
flags.DEFINE_list(
    "tasks",
    ["denoising"],
    "NAME, NAME:N for N iterations instead of --iterations, or NAME:N:M to go on until M.",
)
flags.DEFINE_list("baselines", ["dip", "nas-dip"], "Networks to fit beside the genotypes.")
flags.DEFINE_integer("num_seeds", 1, "Fits of an architecture to an image.")
flags.DEFINE_list("metrics", [], "Metrics to score by, beside the random one; all by default.")
flags.DEFINE_boolean(
    "shared_weights", False, "Draw one set of weights for all random outputs; only z differs."
)
flags.DEFINE_boolean("retry_failed", False, "Try again what failed before.")
flags.DEFINE_boolean("dry_run", False, "Say what it would take, and do nothing.")
flags.DEFINE_integer(
    "job_fits", None, "Fits of one program that a worker takes at once, at most.", lower_bound=1
)
flags.DEFINE_string("shard", "0/1", "I/N: every N-th architecture from the I-th on is ours.")


def tasks() -> dict[str, list[int]]:
    """The tasks with the numbers that were given for them."""
    found = {}
    for text in FLAGS.tasks:
        task, *numbers = text.split(":")
        isnas.TASKS[task]
        if len(numbers) > 2 or not all(map(str.isdecimal, numbers)):
            raise ValueError(f"task {text!r}: write NAME, NAME:ITERATIONS or NAME:ITERATIONS:UNTIL")
        found[task] = [int(number) for number in numbers]
    return found


def followed(config: isnas.FitConfig) -> isnas.FitConfig:
    """A recipe's fit as a study follows it: to all measurements, by equation 4, stopped by ES-WMV.

    Unless the flags say otherwise.
    """
    changes: dict[str, Any] = {
        "split": None,
        "stopping": isnas.STOPPING["es-wmv"](config.iterations),
        "debias": False,
    }
    changes = {name: value for name, value in changes.items() if FLAGS[name].value is None}
    return dataclasses.replace(config, folds=1, refit_factor=1.0, refit_from=0.0, **changes)


def show(plan: study.Plan) -> None:
    """What units will take, in words."""
    print(f"{plan.fits} fits of {plan.iterations:,} iterations together, {plan.scores} scores")
    print(f"{plan.programs} programs to compile, {plan.workers} units at a time")
    for name, unit, scale in (
        ("operations", "G a step", 1e9),
        ("traffic", "GB a step", 1e9),
        ("memory", "GB a fit", 1e9),
        ("compiling", "s a program", 1),
        ("step", "s", 1),
        ("scoring", "s an architecture", 1),
    ):
        values = [getattr(trial, name) / scale for trial in plan.trials]
        if any(values):
            print(f"{name:12} {min(values):.3g} to {max(values):.3g} {unit}")
    print(f"about {plan.hours:.2g} hours, {plan.hours * plan.workers:.2g} of one worker")


def main(_: Sequence[str]) -> None:
    """The story: pose every problem, list the work, do our share of it."""
    if not FLAGS.images:
        raise ValueError("give --images: files, folders or sample:NAME")
    numbers = tasks()
    cli.check_corruption(f"--tasks={','.join(numbers)}", [isnas.TASKS[task] for task in numbers])
    cli.check_seeds(FLAGS.num_seeds)
    clean_images = images.load_all(
        images.find(FLAGS.images),
        lambda path: {task: cli.load_clean(path, task) for task in numbers},
    )
    cases = [
        study.pose(
            FLAGS.seed, image, clean, task, **cli.options_of(isnas.TASKS[task].corrupt, mask=None)
        )
        for image, by_task in clean_images.items()
        for task, clean in by_task.items()
    ]
    cli.refuse_idle(
        {
            "where all --tasks have numbers": ("iterations",) if all(numbers.values()) else (),
            "with --dry_run": ("job_fits",) if FLAGS.dry_run else (),
        }
    )
    # Recipes depend on a problem by its task, and differ by their fits.
    config = cli.config(cases[0].problem)
    posed = {case.task: case.problem for case in cases}
    fit = {task: followed(cli.config(posed[task], *numbers[task][:1]).fit) for task in numbers}
    follow = {task: (numbers[task] or [fit[task].iterations])[-1] for task in numbers}
    chosen = FLAGS.metrics or [*isnas.METRICS, *isnas.PUBLISHED_METRICS]
    whole = study.Study(
        seed=FLAGS.seed,
        cases=cases,
        genotypes=cli.genotypes(study.key_of(FLAGS.seed, "genotypes"), config),
        baselines=FLAGS.baselines,
        seeds=FLAGS.num_seeds,
        network=config.network,
        fit=fit,
        follow=follow,
        metrics={name: isnas.METRICS[name] for name in dict.fromkeys([*chosen, "random"])},
        inits=config.search.inits,
        space=config.search.space,
    )
    todo = study.units(whole)
    if not (shard := re.fullmatch(r"(\d+)/(\d+)", FLAGS.shard)):
        raise ValueError(f"shard {FLAGS.shard!r} is not of the form I/N")
    todo = study.shard(todo, int(shard[1]), int(shard[2]))
    runner = cli.runner()
    if FLAGS.dry_run:
        left = study.unfinished(whole, FLAGS.output_dir, todo, retry_failed=FLAGS.retry_failed)
        show(study.plan(whole, left, runner=runner))
        return
    folder = cli.open_folder(
        besides=(
            "shard",
            "runner",
            "job_fits",
            "job_cpus",
            "job_gpus",
            "retry_failed",
            "dry_run",
            "images",
        ),
        candidates=whole.genotypes,
    )

    # Those that failed as well, to be listed again.
    left = study.unfinished(whole, folder, todo, retry_failed=True)
    shares = dict.fromkeys((unit.name for unit in left), 0.0)  # the done part of each unit
    options = {"runner": runner, "retry_failed": FLAGS.retry_failed, "most": FLAGS.job_fits}
    with progress.shown() as run:

        def count() -> None:
            run("units", (len(todo) - len(left) + sum(shares.values()), len(todo)))

        def report(unit: Any, now: Progress | None) -> None:
            shares[unit.name] = now.iteration / now.iterations if now else 1.0
            if now:
                run("+".join(unit.name), now)
            count()

        count()
        failed = study.run(whole, folder, left, report=report, **options)
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    if failed:
        sys.exit(3)


if __name__ == "__main__":
    cli.run(main)
