r"""Score architectures for an image without training any.

python -m experiments.score --image=sample:camera --num_genotypes=20 --output_dir=out_scores
"""

import time
from collections.abc import Sequence

import jax
from absl import flags

import isnas_jax as isnas
from isnas_jax import report
from isnas_jax.networks import network_for

from . import cli, progress

FLAGS = flags.FLAGS

cli.define_image_flags()
cli.define_network_flags()
FLAGS.set_default("space", "free")
cli.define_score_flags()
flags.DEFINE_list("metrics", list(isnas.METRICS), "Metrics to compute, ours or published.")
flags.DEFINE_boolean(
    "shared_weights", False, "Draw one set of weights for all random outputs; only z differs."
)


def main(_: Sequence[str]) -> None:
    """The story: pose the problem, draw or read genotypes, score them, write it down."""
    key = jax.random.key(FLAGS.seed)
    metrics = {name: isnas.METRICS[name] for name in FLAGS.metrics}
    problem, _truth = cli.load_problem(key)
    config = cli.config(problem)
    _, draw_key, score_key = jax.random.split(key, 3)
    genotypes = cli.genotypes(draw_key, config)
    network, inits = config.network, config.search.inits
    folder = cli.open_folder(
        problem=problem, candidates=genotypes, network=network, inits=inits, metrics=metrics
    )

    start = time.perf_counter()
    networks = [network_for(problem, g, network, config.search.space) for g in genotypes]
    with progress.shown() as run:
        values = isnas.score(
            score_key,
            networks,
            problem,
            metrics,
            inits,
            folder=folder / "work",
            progress=lambda done, total: run("score", (done, total)),
        )
    report.write_scores(folder, genotypes, values)
    report.write_timings(folder, {"score": time.perf_counter() - start})

    print(f"{len(genotypes)} genotypes scored; see {folder}")


if __name__ == "__main__":
    cli.run(main)
