r"""Score architectures for an image without training.

python -m experiments.score --image=sample:camera --num_genotypes=20 --output_dir=out_scores
"""

import sys
import time

import jax
import numpy as np
from absl import flags

import isnas_jax as isnas
from isnas_jax import report
from isnas_jax.networks import network_for
from isnas_jax.registries import METRICS

from . import building, progress
from .flags import define
from .main import FLAGS, open_folder, run_script

_SHOWN = 10  # genotypes to print


def define_flags() -> None:
    """Define the flags of this script."""
    define("image", "run", "network", "scores")
    FLAGS.set_default("space", "free")
    flags.DEFINE_list(
        "metrics", list(METRICS), "Metrics to compute: ours, published or an extension's."
    )
    flags.DEFINE_boolean(
        "shared_weights", False, "Draw one set of weights for all random outputs; only z differs."
    )


def main() -> None:
    """Pose the problem, draw or read genotypes, score them, and write the scores."""
    key = jax.random.key(FLAGS.seed)
    metrics = {name: METRICS[name] for name in FLAGS.metrics}
    problem, _clean = building.load_problem(key)
    config = building.config(problem)
    _, draw_key, score_key = jax.random.split(key, 3)
    genotypes = building.genotypes(draw_key, config)
    network, inits = config.network, config.search.inits
    folder = open_folder(
        problem=problem, candidates=genotypes, network=network, inits=inits, metrics=metrics
    )

    begin = time.perf_counter()
    networks = [network_for(problem, g, network, config.search.space) for g in genotypes]
    with progress.shown() as status:
        values = isnas.score(
            score_key,
            networks,
            problem,
            metrics,
            inits,
            folder=folder / "work",
            progress=status,
        )
    report.write_scores(folder, genotypes, values)
    report.write_timings(folder, {"score": time.perf_counter() - begin})

    for name, scores in values.items():
        if missing := np.count_nonzero(~np.isfinite(scores).all(axis=1)):
            print(
                f"warning: metric {name} is not finite for {missing} of {len(genotypes)} genotypes",
                file=sys.stderr,
            )
    first, *_ = metrics
    order = values[first].mean(axis=1).argsort()[:_SHOWN]
    for index in order:
        print(f"{values[first][index].mean():12.4g}  {genotypes[index]}")
    print(f"{len(genotypes)} genotypes scored, lowest {first} above; see {folder}")


if __name__ == "__main__":
    run_script(main, define_flags)
