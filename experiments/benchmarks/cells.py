r"""Compare the two ways to score genotypes: one program per cell, and one network at a time.

    python -m experiments.benchmarks.cells --compilation_cache=

For each cell, a program scores several random genotypes (`score(batched=True)`,
isnas_jax/searching/_cell_programs.py). Each genotype is also run as a Flax module with the same
keys. Prints the largest relative difference per metric.
"""

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

from ..main import FLAGS, run_script

METRICS: dict[str, Metric] = {
    "mean squared error": lambda observed, output: jnp.square(observed - output).mean(),
    "psd_db_mse": isnas.psd_db_mse,
    "psd_db_strip_mse": isnas.psd_db_strip_mse,
}


def build_network(cell: int, skips: np.ndarray) -> Any:
    """Return the network of a genotype, given its 25 skip bits."""
    genotype = isnas.Genotype(cell, "".join(map(str, skips)))
    return isnas.build_network(genotype, out_channels=3, channels=FLAGS.channels)


def define_flags() -> None:
    """Define the flags of this script."""
    flags.DEFINE_integer(
        "channels", 16, "Channels of the feature maps; some cells need 16 or more."
    )
    flags.DEFINE_integer("size", 64, "Side of the image in pixels.")
    flags.DEFINE_integer("first", 0, "Position of the first cell, to continue a stopped run.")
    flags.DEFINE_integer("num_cells", None, "Number of cells; by default all from the first on.")
    flags.DEFINE_integer("num_genotypes", 3, "Number of genotypes per cell.")


def main() -> None:
    """Score the genotypes of each cell both ways and print the largest differences."""
    clean = images.resize(images.crop_to_square(images.load("sample:chelsea")), FLAGS.size)
    problem = isnas.denoising(clean, sigma=25)
    key, inits = jax.random.key(0), RandomInits(1)
    z_key, init_key = inits.keys(key, 0)
    z = draw_noise_map(z_key, build_network(0, np.ones(25, int)), problem.shape)
    rng = np.random.default_rng(0)
    largest = dict.fromkeys(METRICS, 0.0)
    cells = valid_cells(FLAGS.channels)[FLAGS.first :][: FLAGS.num_cells]
    for cell in tqdm(cells):
        nets = [build_network(cell, rng.integers(0, 2, 25)) for _ in range(FLAGS.num_genotypes)]
        scores = score(key, nets, problem, METRICS, inits, batched=True)
        for position, net in enumerate(nets):
            output, _ = net.init_with_output(init_key, z)
            for name, metric in METRICS.items():
                expected = float(metric(problem.observed, output[0]))
                difference = abs(scores[name][position, 0] - expected) / abs(expected)
                largest[name] = max(largest[name], difference)
    num_genotypes = FLAGS.num_genotypes * len(cells)
    print(f"largest relative differences of {num_genotypes} genotypes of {len(cells)} cells")
    for name, difference in largest.items():
        print(f"  {name}: {difference:.1e}")


if __name__ == "__main__":
    run_script(main, define_flags)
