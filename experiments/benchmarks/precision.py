r"""Compare the effect of bfloat16 feature maps on a fit with that of another seed.

    python -m experiments.benchmarks.precision --num_iterations=600

Fits the same networks to the same images with the same keys in float32 and in bfloat16, with
XLA's convolutions. Prints how much the PSNR curves of the EMA differ between the two
dtypes, and between two seeds in float32.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from absl import flags
from tqdm import tqdm

import isnas_jax as isnas
from isnas_jax.fitting import FitJob, fit_many
from isnas_jax.io import images
from isnas_jax.networks import network_for

from .. import building
from ..main import FLAGS, run_script
from . import machine


def psnr_curves(architecture: str, image: str, dtype: str) -> np.ndarray:
    """Return the PSNR of the EMA in dB, (seeds, iterations)."""
    square = images.crop_to_square(images.load(f"sample:{image}"))
    clean = images.resize(images.gray(square), FLAGS.size)
    problem = isnas.add_noise(jax.random.key(0), jnp.asarray(clean), sigma=25)
    numerics = isnas.Numerics("conv", dtype=dtype)
    config = isnas.NetworkConfig(FLAGS.channels, numerics=numerics)
    net = network_for(problem, building.architecture(architecture, isnas.free_space), config)
    jobs = [FitJob(jax.random.key(seed), net, problem, clean) for seed in range(FLAGS.num_seeds)]
    fits = fit_many(jobs, isnas.FitConfig(FLAGS.num_iterations))
    return np.array([fit.psnr_ema for fit in fits])


def define_flags() -> None:
    """Define the flags of this script."""
    machine.define_size(64, 16)
    flags.DEFINE_list("networks", ["dip", *machine.GENOTYPES[:2]], "Architectures to fit.")
    flags.DEFINE_list(
        "images", ["camera", "chelsea"], "scikit-image samples to fit, with sigma 25."
    )
    flags.DEFINE_integer("num_seeds", 3, "Fits per network and image.", lower_bound=2)
    flags.DEFINE_integer("num_iterations", 600, "Iterations per fit.")


def main() -> None:
    """Fit each network to each image in both dtypes and print a table of differences."""
    rows = []
    cases = list(itertools.product(FLAGS.networks, FLAGS.images))
    for architecture, image in tqdm(cases):
        float32, bfloat16 = (
            psnr_curves(architecture, image, dtype) for dtype in ("float32", "bfloat16")
        )
        pairs = list(itertools.combinations(float32, 2))
        rows.append(
            {
                "network": architecture,
                "image": image,
                "best PSNR, dB": float32.max(axis=1).mean(),
                "bfloat16 - float32": (bfloat16.max(axis=1) - float32.max(axis=1)).mean(),
                "std over seeds": float32.max(axis=1).std(ddof=1),
                "mean |difference|": np.abs(bfloat16 - float32).mean(),
                "mean |difference| of seeds": np.mean([np.abs(a - b).mean() for a, b in pairs]),
            }
        )
    print(pd.DataFrame(rows).round(2).to_markdown(index=False))


if __name__ == "__main__":
    run_script(main, define_flags)
