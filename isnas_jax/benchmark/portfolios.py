"""Portfolios: architectures that complement each other on many images.

A portfolio is found on images that have been restored before, and serves new ones without a score.
Its members' errors are large in different pixels, so that their mean is better than each of them.
"""

from collections.abc import Sequence

import numpy as np

from isnas_jax.benchmark.evaluation import genotypes
from isnas_jax.benchmark.fits import psnr_of
from isnas_jax.benchmark.table import Benchmark


def portfolio(
    bench: Benchmark,
    task: str,
    images: Sequence[str],
    size: int,
    *,
    max_seconds: float = np.inf,
) -> list[str]:
    """Choose genotypes whose uniform mean has the highest PSNR, averaged over images.

    The choice is greedy: each genotype is the best addition to those before it. The first genotypes
    of a portfolio are therefore the smaller portfolio.

    Args:
      bench: The benchmark.
      task: One of its tasks.
      images: Some of the task's images, which the portfolio may know.
      size: Number of genotypes; fewer are returned if fewer are as fast.
      max_seconds: Most simulated seconds of a genotype's fit, averaged over the images.

    Raises:
      ValueError: Without images, for a size below 1, and if no genotype is as fast.
    """
    if not images:
        raise ValueError(f"a portfolio for {task} needs at least one image to be chosen on")

    def seconds(name: str) -> float:
        return float(np.mean([bench.query(name, image, task).seconds for image in images]))

    names = [name for name in genotypes(bench) if seconds(name) <= max_seconds]
    if size < 1 or not names:
        raise ValueError(f"a portfolio of {size} of {len(names)} genotypes is impossible")
    grams = np.stack([bench.truth_gram(names, image, task) for image in images])
    own = np.diagonal(grams, axis1=1, axis2=2)
    members: list[int] = []
    for count in range(1, min(size, len(names)) + 1):
        inner = grams[:, members][:, :, members].sum(axis=(1, 2))
        cross = grams[:, members].sum(axis=1)
        psnrs = psnr_of((inner[:, None] + 2 * cross + own) / count**2).mean(axis=0)
        psnrs[members] = -np.inf
        members.append(int(psnrs.argmax()))
    return [names[index] for index in members]
