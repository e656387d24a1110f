"""Loss of PSNR by stopping at an iteration that other images predict, without a second fit.

Needs pandas.
"""

import numpy as np
import pandas as pd

from isnas_jax.benchmark.evaluation import genotypes
from isnas_jax.benchmark.table import Benchmark
from isnas_jax.study.intervals import over_images


def stop_losses(bench: Benchmark, task: str) -> pd.DataFrame:
    """Return how much lower the PSNR of stops is than that of the best iterations, in dB.

    A predicted stop is the mean of the best iterations on the other images.

    Args:
      bench: The benchmark.
      task: One of its tasks, with at least two images.

    Returns:
      A row per rule, with the mean loss, its 95 % interval over images and its 90th percentile.
    """
    images, names = bench.images(task), genotypes(bench)
    if len(images) < 2:
        raise ValueError(f"{task} has one image only; a stop is predicted from other images")
    pairs = [[(name, image) for image in images] for name in names]
    curves = np.array([[bench.truth_curve(*pair, task) for pair in row] for row in pairs])
    best = curves.argmax(axis=-1)
    others = ~np.eye(len(images), dtype=bool)
    predicted = best @ others / others.sum(axis=0)  # (genotypes, images)
    stops = {
        "predicted for the genotype": predicted,
        "predicted for all genotypes": np.broadcast_to(predicted.mean(axis=0), best.shape),
        "last iteration": np.full(best.shape, curves.shape[-1] - 1),
    }
    psnrs = {
        "validation": np.array([[bench.truth(*pair, task).psnr for pair in row] for row in pairs])
    }
    for rule, stop in stops.items():
        entries = np.rint(stop).astype(int)[..., None]
        psnrs[rule] = np.take_along_axis(curves, entries, axis=-1)[..., 0]
    rows = {}
    for rule, values in psnrs.items():
        losses = pd.DataFrame(curves.max(axis=-1) - values, columns=images).melt(
            var_name="image", value_name="loss"
        )
        rows[rule] = {
            "mean loss": over_images(losses, "loss").shown(),
            "90th percentile": f"{losses['loss'].quantile(0.9):.2f}",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("stop")
