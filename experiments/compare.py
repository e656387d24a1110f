r"""Compare methods on a folder of images: the paper's comparison table.

    python -m experiments.compare --images=photographs --task=denoising --sigma=25 \
        --num_seeds=3 --stopping=fixed --iterations=450 --output_dir=comparison

portfolio is the default in denoising. ISNAS-DIP scores random genotypes. DIP and NAS-DIP are fitted
by the same rules. "as published" takes the paper's decisions at the same size. random-N and
metric-N are ISNAS-DIP with N genotypes drawn at random or of the best scores, N being --cohort.
ISNAS-DIP+ adds the classical restorations to the cohort. Fits that methods share are computed once.
A seed determines corruption, candidates and initializations. A killed run resumes.
"""

import numpy as np
from absl import flags

from isnas_jax import figures, registries, report, study
from isnas_jax.io import images
from isnas_jax.registry import Registry
from isnas_jax.report import tables
from isnas_jax.searching import check_config
from isnas_jax.study import store

from . import building, progress
from .flags import check_seeds, define, define_images
from .main import FLAGS, open_folder, run_script


def define_flags() -> None:
    """Define the flags of this script."""
    define("run", "network", "fit", "refit", "scores", "search", "runner")
    define_images()
    flags.DEFINE_string("task", "denoising", "denoising, inpainting or super_resolution.")
    flags.DEFINE_integer("num_seeds", 3, "Number of seeds, from --seed on.")
    flags.DEFINE_list("methods", [], "Methods by name; all by default.")


def main() -> None:
    """Restore every image by every method with every seed; write means and standard errors."""
    figures.use_defaults()
    task = registries.TASKS[FLAGS.task]
    building.check_corruption(f"--task={FLAGS.task}", [task])
    check_seeds(FLAGS.num_seeds)
    building.check_installed(FLAGS.methods)
    seeds = range(FLAGS.seed, FLAGS.seed + FLAGS.num_seeds)
    clean_images = images.load_all(
        building.find_images(), lambda path: building.load_clean(path, FLAGS.task)
    )
    cases = {
        (image, seed): building.pose(seed, image, clean, task)
        for image, clean in clean_images.items()
        for seed in seeds
    }
    # The config depends on the task only, which all cases share.
    problem = next(iter(cases.values())).problem
    config = building.config(problem)
    known = Registry("method", study.methods(FLAGS.task, config))
    compared = {name: known[name] for name in FLAGS.methods or known}
    for method in compared.values():
        if isinstance(method, study.SearchMethod):
            check_config(problem, method.change(config))
    runner = building.runner()
    folder = open_folder(("methods", "num_seeds"), config=config, clean_images=clean_images)

    with progress.shown() as status:
        runs, restored = study.compare(
            compared,
            [(seed, case) for (_, seed), case in cases.items()],
            config,
            folder=folder / "work",
            progress=status,
            runner=runner,
        )

    for (name, image, seed), picture in restored.items():
        path = store.unit_path("restored", image, str(seed), name)
        images.save(folder / path.with_suffix(".png"), picture)
    texts = write_tables(folder, runs)
    rows = []
    for image, clean in clean_images.items():
        row = {"clean": clean, "observed": np.asarray(cases[image, seeds[0]].problem.observed)}
        first = runs[(runs["image"] == image) & (runs["seed"] == seeds[0])]
        for result in first.itertuples():
            title = f"{result.method}\n{result.psnr:.2f} dB, {result.ssim:.3f}"
            row[title] = restored[result.method, image, seeds[0]]
        rows.append(row)
    figures.save_for_print(figures.qualitative(rows), folder / "comparison")
    page = report.write_page(folder)
    print(*texts, f"see {page}", sep="\n")


def write_tables(folder, runs) -> list[str]:
    """Write the tables of all runs and return them as text."""
    tables.write(folder / "runs", runs.set_index("image"), digits=3)
    texts = []
    for quality, digits in (("psnr", 2), ("ssim", 3)):
        text = tables.write(folder / quality, study.summary(runs, quality, digits))
        seeds = f"{FLAGS.num_seeds} seed{'s' * (FLAGS.num_seeds > 1)}"
        texts.append(f"{quality.upper()}, mean ± standard error over {seeds}\n{text}\n")
        searches = [name for name in ("portfolio", "ISNAS-DIP") if name in set(runs["method"])]
        if searches:
            paired = study.differences(runs, quality, searches[0], digits)
            texts.append(tables.write(folder / f"{quality}_differences", paired) + "\n")
    return texts


if __name__ == "__main__":
    run_script(main, define_flags)
