r"""Compare methods on a folder of images: the paper's comparison table.

    python -m experiments.compare --images=photographs --task=denoising --sigma=25 \
        --num_seeds=3 --stopping=fixed --iterations=450 --output_dir=comparison

ISNAS-DIP searches an architecture for every image and seed, DIP and NAS-DIP are
fitted by the same rules. "as published" takes the paper's decisions at the same
size; random-N and metric-N are ISNAS-DIP with genotypes drawn at random or of
the best scores, N being --cohort; ISNAS-DIP+ has the classical restorations in
its cohort, where there is a split to weigh them by. What methods have in common
is fitted once. A seed fixes corruption, candidates and initializations. A killed
run started again goes on where it was.
"""

from collections.abc import Sequence

import numpy as np
from absl import flags

import isnas_jax as isnas
from isnas_jax import figures, report, study
from isnas_jax.io import images
from isnas_jax.registry import Registry
from isnas_jax.report import tables
from isnas_jax.searching import check_config
from isnas_jax.study import store

from . import cli, progress

FLAGS = flags.FLAGS

cli.define_run_flags()
cli.define_network_flags()
cli.define_fit_flags()
cli.define_refit_flags()
cli.define_score_flags()
cli.define_search_flags()
cli.define_runner_flags()
flags.DEFINE_list("images", None, "Clean images: files, folders or sample:NAME.")
flags.DEFINE_string("task", "denoising", "denoising, inpainting or super_resolution.")
flags.DEFINE_integer("num_seeds", 3, "Repetitions, from --seed on.")
flags.DEFINE_list("methods", [], "Methods by name; all by default.")


def main(_: Sequence[str]) -> None:
    """The story: every method on every image with every seed, then means and standard errors."""
    if not FLAGS.images:
        raise ValueError("give --images: files, folders or sample:NAME")
    figures.use_defaults()
    task = isnas.TASKS[FLAGS.task]
    cli.check_corruption(f"--task={FLAGS.task}", [task])
    cli.check_seeds(FLAGS.num_seeds)
    cli.check_installed(FLAGS.methods)
    seeds = range(FLAGS.seed, FLAGS.seed + FLAGS.num_seeds)
    clean_images = images.load_all(
        images.find(FLAGS.images), lambda path: cli.load_clean(path, FLAGS.task)
    )
    options = cli.options_of(task.corrupt, mask=None)
    cases = {
        (image, seed): study.pose(seed, image, clean, FLAGS.task, **options)
        for image, clean in clean_images.items()
        for seed in seeds
    }
    # The recipe depends on the problem by its task, which is the same in all cases.
    problem = next(iter(cases.values())).problem
    config = cli.config(problem)
    known = Registry("method", study.methods(FLAGS.task, config))
    compared = {name: known[name] for name in FLAGS.methods or known}
    for method in compared.values():
        if isinstance(method, study.SearchMethod):
            check_config(problem, method.change(config))
    runner = cli.runner()
    folder = cli.open_folder(
        besides=("methods", "num_seeds"), config=config, clean_images=clean_images
    )

    seeded = [(seed, case) for (_, seed), case in cases.items()]
    with progress.shown() as run:
        runs, restored = study.compare(
            compared, seeded, config, folder=folder / "work", progress=run, runner=runner
        )

    for (name, image, seed), picture in restored.items():
        place = store.unit_path("restored", image, str(seed), name)
        images.save(folder / place.with_suffix(".png"), picture)
    tables.write(folder / "runs", runs.set_index("image"), digits=3)
    texts = []
    for measured, digits in (("psnr", 2), ("ssim", 3)):
        text = tables.write(folder / measured, study.summary(runs, measured, digits))
        seeds_in_words = f"{FLAGS.num_seeds} seed{'s' * (FLAGS.num_seeds > 1)}"
        texts.append(f"{measured.upper()}, mean ± standard error over {seeds_in_words}\n{text}\n")
        if "ISNAS-DIP" in compared:
            paired = study.differences(runs, measured, "ISNAS-DIP", digits)
            texts.append(tables.write(folder / f"{measured}_differences", paired) + "\n")
    rows = []
    for image, clean in clean_images.items():
        row = {"clean": clean, "observed": np.asarray(cases[image, seeds[0]].problem.observed)}
        for found in runs[(runs["image"] == image) & (runs["seed"] == seeds[0])].itertuples():
            title = f"{found.method}\n{found.psnr:.2f} dB, {found.ssim:.3f}"
            row[title] = restored[found.method, image, seeds[0]]
        rows.append(row)
    figures.save_for_print(figures.qualitative(rows), folder / "comparison")
    page = report.write_page(folder)
    print(*texts, f"see {page}", sep="\n")


if __name__ == "__main__":
    cli.run(main)
