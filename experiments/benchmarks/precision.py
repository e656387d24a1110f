r"""What bfloat16 feature maps cost a fit, beside what another seed does.

    python -m experiments.benchmarks.precision --num_iterations=600

Fits the same networks to the same images with the same keys, by XLA's convolutions, in
float32 and in bfloat16. Prints how far the PSNR curves of the exponential mean are
apart, and how far those of two seeds in float32 are.
"""

import itertools
from collections.abc import Sequence

import jax
import numpy as np
import pandas as pd
from absl import flags
from tqdm import tqdm

import isnas_jax as isnas
from isnas_jax.fitting import FitJob, fit_many
from isnas_jax.networks import network_for, parse_architecture

from .. import cli
from . import machine

FLAGS = flags.FLAGS

flags.DEFINE_integer("channels", 16, "Width of the networks.")
flags.DEFINE_integer("size", 64, "Side of the images in pixels.")
flags.DEFINE_list("networks", ["dip", *machine.GENOTYPES[:2]], "What to fit.")
flags.DEFINE_list("images", ["camera", "chelsea"], "Photographs to fit, with noise of sigma 25.")
flags.DEFINE_integer("num_seeds", 3, "Of each.", lower_bound=2)
flags.DEFINE_integer("num_iterations", 600, "Of each fit.")


def curves(architecture: str, image: str, dtype: str) -> np.ndarray:
    """PSNR of the exponential mean in dB: (seeds, iterations)."""
    clean = machine.photograph(image, FLAGS.size)
    problem = isnas.TASKS["denoising"].corrupt(jax.random.key(0), clean, sigma=25)
    numerics = isnas.Numerics("conv", dtype=dtype)
    config = isnas.NetworkConfig(FLAGS.channels, numerics=numerics)
    net = network_for(problem, parse_architecture(architecture), config)
    asked = [FitJob(jax.random.key(seed), net, problem, clean) for seed in range(FLAGS.num_seeds)]
    fits = fit_many(asked, isnas.FitConfig(FLAGS.num_iterations))
    return np.array([fit.psnr_ema for fit in fits])


def main(_: Sequence[str]) -> None:
    """The story: each network and image in both types; then how far apart all are."""
    rows = []
    cases = list(itertools.product(FLAGS.networks, FLAGS.images))
    for architecture, image in tqdm(cases):
        single, half = (curves(architecture, image, dtype) for dtype in ("float32", "bfloat16"))
        pairs = list(itertools.combinations(single, 2))
        rows.append(
            {
                "network": architecture,
                "image": image,
                "peak, dB": single.max(axis=1).mean(),
                "bfloat16 less float32": (half.max(axis=1) - single.max(axis=1)).mean(),
                "seeds' deviation": single.max(axis=1).std(ddof=1),
                "curves apart": np.abs(half - single).mean(),
                "seeds' curves apart": np.mean([np.abs(a - b).mean() for a, b in pairs]),
            }
        )
    print(pd.DataFrame(rows).round(2).to_markdown(index=False))


if __name__ == "__main__":
    cli.run(main)
