r"""Compare methods on a folder of images: the paper's comparison table.

    python -m experiments.compare --images=photographs --task=denoising --sigma=25 \
        --num_seeds=3 --stopping=fixed --iterations=450 --output_dir=comparison

Every network is fitted for the same iterations and restores with its
exponential mean. ISNAS-DIP searches an architecture for every image and seed;
random-N is the same pipeline with a cohort drawn at random, N being --cohort.
A seed fixes corruption, candidates and initialisations. A killed run started
again goes on where it was.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd
from absl import flags

import isnas_jax as isnas
from experiments import cli
from isnas_jax import classical, figures, images, observations, quality, records, tables
from isnas_jax.fitting import forget_programs
from isnas_jax.search import restore
from isnas_jax.study import Case, key_of, pose

FLAGS = flags.FLAGS

cli.define_run_flags()
cli.define_fit_flags()
cli.define_score_flags()
cli.define_search_flags()
flags.DEFINE_list("images", None, "Clean images: files, folders or sample:NAME.")
flags.DEFINE_string("task", "denoising", "denoising, inpainting or super_resolution.")
flags.DEFINE_integer("num_seeds", 3, "Repetitions, from --seed on.")
flags.DEFINE_list("methods", [], "Methods by name; all by default.")


def by_baseline(name: str) -> Callable[..., np.ndarray]:
    """Restoration by a fixed network."""

    def run(key, case, settings, folder, progress):
        net = isnas.build_network(
            name,
            out_channels=case.problem.shape[2],
            channels=settings["channels"],
            task=case.task,
            remat=FLAGS.remat,
        )
        fit = restore(
            key,
            net,
            case.problem,
            cli.fit_settings(settings),
            file=folder / "restore.npz",
            progress=lambda news: progress("restore", news),
        )
        return fit.restored

    return run


def by_search(cohort_by: str) -> Callable[..., np.ndarray]:
    """Restoration by a searched network, or by one of a random cohort."""

    def run(key, case, settings, folder, progress):
        draw_key, search_key = jax.random.split(key)
        result = isnas.search(
            search_key,
            case.problem,
            case.task,
            cli.load_genotypes(draw_key, settings),
            cli.search_settings(settings, cohort_by),
            cli.fit_settings(settings),
            folder=folder,
            progress=progress,
        )
        forget_programs()
        return result.fit.restored

    return run


def by_classical(name: str) -> Callable[..., np.ndarray]:
    """Restoration without a network."""

    def run(key, case, settings, folder, progress):
        del key, settings, folder, progress
        return classical.restore(name, case.problem, case.task, FLAGS.sigma)

    return run


def methods(cohort: int) -> dict[str, Callable[..., np.ndarray]]:
    """What there is to compare, by name."""
    known = {"DIP": by_baseline("dip"), "NAS-DIP": by_baseline("nas-dip")}
    known |= {"ISNAS-DIP": by_search("metric"), f"random-{cohort}": by_search("random")}
    known |= {name: by_classical(name) for name in classical.CLASSICAL.get(FLAGS.task, {})}
    for name in FLAGS.methods:
        if name not in known:
            raise ValueError(f"method {name!r} does not exist; choose from {', '.join(known)}")
    return {name: known[name] for name in FLAGS.methods or known}


def measure(case: Case, name: str, method: Any, seed: int, settings: Any, folder: pathlib.Path):
    """A method's PSNR and SSIM on a case, found in the folder if it was there already."""
    file = folder / "result.json"
    if not file.exists():
        bars = cli.Bars()
        # One key for all methods that differ only by how they choose.
        key = key_of(seed, "compare", case.image, case.task)
        restored = method(
            key, case, settings, folder, lambda stage, news: bars(f"{name} {stage}", news)
        )
        bars.close()
        images.save(folder / "restored.png", restored)
        np.save(folder / "restored.npy", restored)
        records.write_json(file, quality.report(restored, case.truth))
    return records.read_json(file)


def main(_: Sequence[str]) -> None:
    """The story: every method on every image with every seed, then means and standard errors."""
    if not FLAGS.images:
        raise ValueError("give --images: files, folders or sample:NAME")
    if FLAGS.num_seeds < 1:
        raise ValueError(f"num_seeds {FLAGS.num_seeds} must be at least 1")
    task, settings = observations.find(FLAGS.task), cli.preset(FLAGS.task)
    compared = methods(settings["cohort"])
    truths = {
        image: cli.load_truth(path, FLAGS.task, settings["size"])
        for image, path in images.find(FLAGS.images).items()
    }
    folder = cli.open_folder(settings, "compare", besides=("methods", "num_seeds"))
    seeds = range(FLAGS.seed, FLAGS.seed + FLAGS.num_seeds)
    cases = {
        (image, seed): pose(
            seed, image, truth, FLAGS.task, **cli.options_of(task.corrupt, mask=None)
        )
        for image, truth in truths.items()
        for seed in seeds
    }
    rows = []
    pictures = {
        image: {"truth": truth, "observed": np.asarray(cases[image, seeds[0]].problem.observed)}
        for image, truth in truths.items()
    }
    for name, method in compared.items():
        for (image, seed), case in cases.items():
            place = folder / image / str(seed) / name.replace(" ", "_")
            values = measure(case, name, method, seed, settings, place)
            rows.append({"image": image, "seed": seed, "method": name, **values})
            if seed == seeds[0]:
                title = f"{name}\n{values['psnr']:.2f} dB, {values['ssim']:.3f}"
                pictures[image][title] = np.load(place / "restored.npy")
    runs = pd.DataFrame(rows)
    tables.write(folder / "runs", runs.set_index("image"), digits=3)
    for measured, digits in (("psnr", 2), ("ssim", 3)):
        text = tables.write(folder / measured, summary(runs, measured, digits))
        print(f"{measured.upper()}, mean ± standard error over {FLAGS.num_seeds} seeds\n{text}\n")
    figures.qualitative(folder / "comparison", list(pictures.values()))
    print(f"see {folder}")


def summary(runs: pd.DataFrame, measured: str, digits: int) -> pd.DataFrame:
    """Means and standard errors over seeds, methods by images, the last column over all images."""
    # The mean over images is taken within a seed, for its standard error is over seeds too.
    overall = runs.groupby(["method", "seed"], as_index=False)[measured].mean()
    both = pd.concat([runs, overall.assign(image="all")])
    groups = both.groupby(["method", "image"])[measured]
    cells = groups.agg(
        lambda values: (
            f"{values.mean():.{digits}f}"
            + (f" ± {values.sem():.{digits}f}" if len(values) > 1 else "")
        )
    ).unstack()
    return cells.loc[runs["method"].unique(), [*runs["image"].unique(), "all"]]


if __name__ == "__main__":
    cli.run(main)
