r"""Make a dataset of fits and scores: genotypes x images x tasks x seeds.

    python -m experiments.make_dataset --images=sample:camera,sample:retina \
        --tasks=denoising:450:900,inpainting:1000:1500 --stopping=fixed \
        --size=64 --square --grey --num_genotypes=100 --num_inits=4 --output_dir=dataset

denoising:450:900 is what --stopping restores in 450 iterations, the fit being
followed until 900. The folder holds Parquet files; see `isnas_jax.study`. A killed
run started again goes on where it was, and --shard=0/2 and --shard=1/2 share
the work between two processes.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags
from tqdm import tqdm

from experiments import cli
from isnas_jax import METRICS, PUBLISHED_METRICS, images, metrics, observations, study

FLAGS = flags.FLAGS

cli.define_run_flags()
cli.define_fit_flags()
cli.define_score_flags()
flags.DEFINE_list("images", None, "Clean images: files, folders or sample:NAME.")
flags.DEFINE_list(
    "tasks",
    ["denoising"],
    "NAME, NAME:N for N iterations instead of --iterations, or NAME:N:M to go on until M.",
)
flags.DEFINE_list("baselines", ["dip", "nas-dip"], "Networks to fit beside the genotypes.")
flags.DEFINE_integer("num_seeds", 1, "Fits of an architecture to an image.")
flags.DEFINE_list("metrics", [], "Metrics to score by, beside the random one; all by default.")
flags.DEFINE_string("weights", "fresh", "fresh for each random output, or shared: only z differs.")
flags.DEFINE_string("shard", "0/1", "I/N: every N-th architecture from the I-th on is ours.")


def settings_by_task() -> Iterator[tuple[str, dict[str, Any]]]:
    """The tasks with their settings, among them how far to "follow" a fit."""
    for text in FLAGS.tasks:
        task, *numbers = text.split(":")
        observations.find(task)
        if len(numbers) > 2 or not all(map(str.isdecimal, numbers)):
            raise ValueError(f"task {text!r}: write NAME, NAME:ITERATIONS or NAME:ITERATIONS:UNTIL")
        settings = cli.preset(task)
        iterations = [int(number) for number in numbers] or [settings["iterations"]]
        yield task, settings | {"iterations": iterations[0], "follow": iterations[-1]}


def main(_: Sequence[str]) -> None:
    """The story: pose every problem, list the work, do our share of it."""
    if not FLAGS.images:
        raise ValueError("give --images: files, folders or sample:NAME")
    tasks = dict(settings_by_task())
    settings = next(iter(tasks.values()))
    cases, digests = [], dict[str, int]()
    for image, path in images.find(FLAGS.images).items():
        for task in tasks:
            truth = cli.load_truth(path, task, settings["size"])
            options = cli.options_of(observations.find(task).corrupt, mask=None)
            cases.append(study.pose(FLAGS.seed, image, truth, task, **options))
            digests[f"{image} for {task}, digest"] = zlib.crc32(truth.tobytes())
    genotypes = cli.load_genotypes(study.key_of(FLAGS.seed, "genotypes"), settings)
    digests["genotypes, digest"] = zlib.crc32(" ".join(map(str, genotypes)).encode())
    chosen = FLAGS.metrics or [*METRICS, *PUBLISHED_METRICS]
    whole = study.Study(
        FLAGS.seed,
        cases,
        genotypes,
        FLAGS.baselines,
        FLAGS.num_seeds,
        {task: cli.fit_settings(its_settings) for task, its_settings in tasks.items()},
        {task: its_settings["follow"] for task, its_settings in tasks.items()},
        {name: metrics.find(name) for name in dict.fromkeys([*chosen, "random"])},
        settings["num_inits"],
        FLAGS.weights,
    )
    todo = study.units(whole)
    if not (numbers := re.fullmatch(r"(\d+)/(\d+)", FLAGS.shard)):
        raise ValueError(f"shard {FLAGS.shard!r} is not of the form I/N")
    todo = study.share(todo, int(numbers[1]), int(numbers[2]))
    used = ("size", "channels", "stopping", "num_genotypes", "num_inits")
    record = {name: settings[name] for name in used} | digests
    record["metrics"] = list(whole.metrics)
    record["tasks"] = {
        task: (fit.iterations, whole.follow[task]) for task, fit in whole.fit.items()
    }
    folder = cli.open_folder(record, "make_dataset", besides=("shard", "iterations", "images"))

    with tqdm(total=len(todo)) as bar:

        def report(unit, news):
            if news is None:
                bar.update()
            else:
                bar.set_postfix_str(f"{unit.file.stem} {news.iteration}/{news.iterations}")

        study.run(whole, folder, todo, progress=report)


if __name__ == "__main__":
    cli.run(main)
