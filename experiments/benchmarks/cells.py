r"""Score genotypes of every cell by the cell's one program, and compare with single networks.

    python -m experiments.benchmarks.cells --compilation_cache=

`score(together=True)` does so (isnas_jax/searching/_cellwise.py). For each cell of the space some
genotypes are drawn, scored by the program that serves them all, and run one by one
as plain Flax modules with the same keys. Prints what differs most, relative to the score.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from tqdm import tqdm

import isnas_jax as isnas
from isnas_jax.fitting import draw_noise_map
from isnas_jax.io import images
from isnas_jax.networks import valid_cells
from isnas_jax.searching import Metric, RandomInits, score

from .. import cli

FLAGS = flags.FLAGS

flags.DEFINE_integer("channels", 16, "Width of the networks; 16 at least for all cells.")
flags.DEFINE_integer("size", 64, "Side of the image in pixels.")
flags.DEFINE_integer("first", 0, "The first of the cells, to go on where a run was stopped.")
flags.DEFINE_integer("num_cells", None, "How many cells; by default all from there on.")
flags.DEFINE_integer("num_genotypes", 3, "How many of each cell.")

METRICS: dict[str, Metric] = {
    "mean square": lambda observed, output: jnp.square(observed - output).mean(),
    "psd_db_mse": isnas.METRICS["psd_db_mse"],
    "psd_db_strip_mse": isnas.METRICS["psd_db_strip_mse"],
}


def network(cell: int, bits: np.ndarray) -> Any:
    """The network of a genotype."""
    genotype = isnas.Genotype(cell, "".join(map(str, bits)))
    return isnas.build_network(genotype, out_channels=3, channels=FLAGS.channels)


def main(_: Sequence[str]) -> None:
    """The story: cell after cell, by one program and one by one; then the largest difference."""
    clean = images.resize(images.crop_to_square(images.load("sample:chelsea")), FLAGS.size)
    problem = isnas.denoising(clean, sigma=25)
    key, inits = jax.random.key(0), RandomInits(1)
    z_key, init_key = inits.keys(key, 0)
    z = draw_noise_map(z_key, network(0, np.ones(25, int)), problem.shape)
    bits = np.random.default_rng(0)
    worst = dict.fromkeys(METRICS, 0.0)
    cells = valid_cells(FLAGS.channels)[FLAGS.first :][: FLAGS.num_cells]
    for cell in tqdm(cells):
        nets = [network(cell, bits.integers(0, 2, 25)) for _ in range(FLAGS.num_genotypes)]
        together = score(key, nets, problem, METRICS, inits, together=True)
        for position, net in enumerate(nets):
            output, _ = net.init_with_output(init_key, z)
            for name, metric in METRICS.items():
                alone = float(metric(problem.observed, output[0]))
                difference = abs(together[name][position, 0] - alone) / abs(alone)
                worst[name] = max(worst[name], difference)
    number = FLAGS.num_genotypes * len(cells)
    print(f"{number} genotypes of {len(cells)} cells; the largest relative difference of")
    for name, difference in worst.items():
        print(f"  {name}: {difference:.1e}")


if __name__ == "__main__":
    cli.run(main)
