r"""Score architectures for an image without training any.

python -m experiments.score --image=sample:camera --num_genotypes=20 --output_dir=out_scores
"""

import time
from collections.abc import Sequence

import jax
from absl import flags

import isnas_jax as isnas
from experiments import cli
from isnas_jax import metrics
from isnas_jax.scoring import WEIGHTS

FLAGS = flags.FLAGS

cli.define_image_flags()
cli.define_score_flags()
flags.DEFINE_list("metrics", list(isnas.METRICS), "Metrics to compute, ours or published.")
flags.DEFINE_enum("weights", "fresh", WEIGHTS, "Fresh weights for each output, or shared ones.")


def main(_: Sequence[str]) -> None:
    """The story: pose the problem, draw or read genotypes, score them, write it down."""
    settings = cli.preset(FLAGS.task)
    corrupt_key, draw_key, score_key = jax.random.split(jax.random.key(FLAGS.seed), 3)
    chosen = {name: metrics.find(name) for name in FLAGS.metrics}
    problem, _truth = cli.load_problem(corrupt_key, settings["size"])
    genotypes = cli.load_genotypes(draw_key, settings)
    listed = {"metrics": FLAGS.metrics, "weights": FLAGS.weights}
    folder = cli.open_folder(settings | listed, "score")

    bars, start = cli.Bars(), time.perf_counter()
    values = isnas.score_in_blocks(
        score_key,
        genotypes,
        problem,
        chosen,
        num_inits=settings["num_inits"],
        channels=settings["channels"],
        weights=FLAGS.weights,
        folder=folder / "work",
        progress=lambda done, total: bars("score", (done, total)),
    )
    bars.close()
    cli.write_scores(folder, genotypes, values)
    cli.write_timings(folder, {"score": time.perf_counter() - start})

    print(f"{len(genotypes)} genotypes scored; see {folder}")


if __name__ == "__main__":
    cli.run(main)
