"""How much results depend on the seed of a fit: the noise of every measurement.

A seed determines initialization, noise map and split; the corrupted image is the same. Needs pandas
and SciPy.
"""

import numpy as np
import pandas as pd

from isnas_jax.benchmark.evaluation import genotypes
from isnas_jax.benchmark.table import Benchmark


def seed_noise(bench: Benchmark, task: str) -> pd.DataFrame:
    """Compare PSNRs at the stop between two seeds, for the genotypes that have both.

    Args:
      bench: The benchmark.
      task: One of its tasks.

    Returns:
      A row per image that has two seeds:

      - "genotypes": their number.
      - "between seeds": standard deviation in dB, pooled over the genotypes.
      - "between genotypes": standard deviation of their means over both seeds, in dB.
      - "tau": Kendall's tau of the rankings by the two seeds.

    Raises:
      ValueError: If the task has one seed only.
    """
    from scipy.stats import kendalltau

    rows = {}
    for image in bench.images(task):
        seeds = bench.seeds(image, task)[:2]
        names = [name for name in genotypes(bench) if {*seeds} <= {*bench.seeds(image, task, name)}]
        if len(seeds) < 2 or not names:
            continue
        psnrs = np.array(
            [[bench.truth(name, image, task, seed).psnr for seed in seeds] for name in names]
        )
        rows[image] = {
            "genotypes": len(names),
            "between seeds": np.sqrt(psnrs.var(axis=1, ddof=1).mean()),
            "between genotypes": psnrs.mean(axis=1).std(ddof=1),
            "tau": kendalltau(*psnrs.T).statistic,
        }
    if not rows:
        raise ValueError(f"{bench.version} has one seed of {task} only")
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("image")
