r"""Search an architecture for one image and restore with it (ISNAS-DIP).

    python -m experiments.search --image=sample:camera --task=denoising --sigma=25 \
        --seed=0 --output_dir=out

Scores random genotypes untrained, fits some of the better ones and DIP to a part
of what is known, weighs them by the rest, fits them anew to all of it, and
returns their mean. --preset=published takes the paper's settings.
"""

import json
from collections.abc import Sequence

import jax
from absl import flags

import isnas_jax as isnas
from isnas_jax import report
from isnas_jax.searching import stages

from . import cli, progress

FLAGS = flags.FLAGS

cli.define_image_flags()
cli.define_fit_flags()
cli.define_score_flags()
cli.define_search_flags()
cli.define_runner_flags()
flags.DEFINE_boolean("json", False, "Print the result as JSON instead of a table.")
flags.DEFINE_string("cohort_by", None, "Whom to fit: better half, metric, or random for control.")


def plan(problem: isnas.Problem, recipe: isnas.Recipe) -> str:
    """What will be done, in a line; how long it takes, the stages say."""
    search, (height, width, _) = recipe.search, problem.shape
    candidates = f"{getattr(search.strategy, 'num', 'some')} genotypes to score"
    members = f"{search.cohort + len(search.members)} members to fit"
    each = f"{search.fit.folds} x {search.fit.iterations} iterations each at most"
    return f"{height} x {width} pixels: {candidates}, {members}, {each}; then whoever has a weight"


def main(_: Sequence[str]) -> None:
    """The story: pose the problem, search, restore, write everything down."""
    key = jax.random.key(FLAGS.seed)
    problem, truth = cli.load_problem(key)
    bits = cli.bits()
    recipe = cli.recipe(problem)
    folder = cli.open_folder(problem=problem, recipe=recipe, truth=truth)

    if not FLAGS.json:
        print(plan(problem, recipe), flush=True)
    bars = progress.Whole(progress.shown(), stages.of_search(problem, recipe))
    found = isnas.search(
        key,
        problem,
        recipe,
        truth=truth,
        folder=folder / "work",
        progress=bars,
        runner=cli.runner(),
    )
    bars.close()

    record = report.write_search(
        folder, found, problem, recipe.search.proxy, FLAGS.metric, truth, bits=bits
    )
    report.write_page(folder)
    print(json.dumps(record) if FLAGS.json else report.summary(record, folder))


if __name__ == "__main__":
    cli.run(main)
