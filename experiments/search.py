r"""Search an architecture for one image and restore with it (ISNAS-DIP).

    python -m experiments.search --image=sample:camera --task=denoising --sigma=25 \
        --seed=0 --output_dir=out

Scores random genotypes untrained, fits some of the better ones and DIP to a part
of what is known, weighs them by the rest, fits them to everything, and
returns their mean. --preset=published takes the paper's settings.
"""

from collections.abc import Sequence

import jax
from absl import flags

import isnas_jax as isnas
from isnas_jax import figures, report
from isnas_jax.io import records
from isnas_jax.searching import check_config, stages

from . import cli, progress
from .preview import preview

FLAGS = flags.FLAGS

cli.define_image_flags()
cli.define_network_flags()
cli.define_fit_flags()
cli.define_refit_flags()
cli.define_score_flags()
cli.define_search_flags()
cli.define_runner_flags()
flags.DEFINE_boolean("json", False, "Print the result as JSON instead of a table.")
flags.DEFINE_string(
    "cohort_selection", None, "Whom to fit: better half, metric, or random for control."
)


def plan(problem: isnas.Problem, config: isnas.Config) -> str:
    """The size of the image and the fits to come, in a line."""
    search, (height, width, _) = config.search, problem.shape
    candidates = f"{getattr(search.strategy, 'num', 'some')} genotypes to score"
    members = f"{search.cohort + len(search.extra_members)} members to fit"
    each = f"{search.fit.folds} x {search.fit.iterations} iterations each at most"
    return f"{height} x {width} pixels: {candidates}, {members}, {each}; then whoever has a weight"


def main(_: Sequence[str]) -> None:
    """The story: pose the problem, search, restore, write everything down."""
    figures.use_defaults()
    key = jax.random.key(FLAGS.seed)
    problem, clean = cli.load_problem(key)
    bits = cli.bits()
    config = cli.config(problem)
    check_config(problem, config)
    runner = cli.runner()
    folder = cli.open_folder(problem=problem, config=config, clean=clean)

    if not FLAGS.json:
        print(plan(problem, config), flush=True)
    with progress.shown(stages.of_search(problem, config)) as run:
        found = isnas.search(
            key,
            problem,
            config,
            clean=clean,
            folder=folder / "work",
            progress=run,
            runner=runner,
            preview=preview(folder, problem, run, bits),
        )

    record = report.write_search(
        folder, found, problem, config.search.proxy, FLAGS.metric, clean, bits=bits
    )
    report.write_page(folder)
    print(records.to_json(record) if FLAGS.json else report.summary(record, folder))


if __name__ == "__main__":
    cli.run(main)
