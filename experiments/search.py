r"""Search an architecture for one image and restore with it (ISNAS-DIP).

    python -m experiments.search --image=sample:camera --task=denoising --sigma=25 \
        --seed=0 --output_dir=out

--image takes a clean image and corrupts it; --observed takes a corrupted one. In denoising a search
takes a portfolio: genotypes that restored other images best. In other tasks, and with
--num_genotypes, it scores random genotypes without training and takes some of the better ones. It
fits them to a part of the measurements, weighs them by their errors on the rest, refits them to all
measurements and returns their weighted mean. --preset=published takes the paper's config.
"""

import sys

import jax
from absl import flags

import isnas_jax as isnas
from isnas_jax import figures, report
from isnas_jax.io import records
from isnas_jax.searching import check_config, has_scores, plan_search

from . import building, progress
from .flags import define
from .main import FLAGS, open_folder, run_script


def define_flags() -> None:
    """Define the flags of this script."""
    define("image", "run", "network", "fit", "refit", "scores", "search", "runner")
    flags.DEFINE_boolean("json", False, "Print the result as JSON instead of a table.")
    flags.DEFINE_string(
        "cohort_selection",
        None,
        "Which scored candidates to fit: top-k, top-half, or random as control.",
    )


def describe(problem: isnas.Problem, config: isnas.Config) -> str:
    """Return the size of the image and of the search in a line."""
    search, fit, (height, width, _) = config.search, config.cohort_fit, problem.shape
    number = getattr(search.strategy, "num", "some")
    candidates = f"{number if has_scores(search.strategy) else 'no'} genotypes to score"
    members = f"{search.cohort + len(search.extra_members)} members to fit"
    length = f"{fit.folds} x {fit.iterations} iterations each at most"
    return f"{height} x {width} pixels: {candidates}, {members}, {length}, then refits"


def main() -> None:
    """Pose the problem, search, restore, and write everything down."""
    figures.use_defaults()
    key = jax.random.key(FLAGS.seed)
    problem, clean = building.load_problem(key)
    bits = building.bits()
    config = building.config(problem)
    check_config(problem, config)
    runner = building.runner()
    folder = open_folder(problem=problem, config=config, clean=clean)

    if not FLAGS.json:
        print(describe(problem, config), flush=True)
    with progress.shown(plan_search(config)) as status:
        progress.show_previews(status, folder, problem, bits)
        result = isnas.search(
            key,
            problem,
            config,
            clean=clean,
            folder=folder / "work",
            progress=status,
            runner=runner,
        )

    if result.cohort.members[result.selected] is isnas.observed:
        print(
            "warning: the selection is the observation, so that no fitted network is better by its "
            "rule; the noise may be weaker than --sigma",
            file=sys.stderr,
        )
    record = report.write_search(
        folder, result, problem, config.search.proxy, FLAGS.metric, clean, bits=bits
    )
    report.write_page(folder)
    print(records.to_json(record) if FLAGS.json else report.summary(record, folder))


if __name__ == "__main__":
    run_script(main, define_flags)
