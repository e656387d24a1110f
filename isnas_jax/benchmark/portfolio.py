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
    among: Sequence[str] | None = None,
) -> list[str]:
    """Choose architectures whose uniform mean has the highest PSNR, averaged over images.

    The search is greedy: it adds the architecture that helps most, and then exchanges members for
    others as long as that helps.

    Args:
      bench: The benchmark.
      task: One of its tasks.
      images: Some of the task's images, which the portfolio may know.
      size: Number of architectures.
      among: Architectures to choose from; all genotypes by default.

    Returns:
      The architectures, in the order of their addition.
    """
    names = list(among or genotypes(bench))
    if not 1 <= size <= len(names):
        raise ValueError(f"a portfolio of {size} of {len(names)} architectures is impossible")
    grams = np.stack([bench.truth_gram(names, image, task) for image in images])
    members: list[int] = []
    while len(members) < size:
        members.append(_best_addition(grams, members)[0])
    while True:
        exchanges = []
        for position in range(size):
            rest = members[:position] + members[position + 1 :]
            index, quality = _best_addition(grams, rest)
            exchanges.append((quality, position, index))
        quality, position, index = max(exchanges)
        if quality <= _quality(grams, members) + 1e-9:
            return [names[index] for index in members]
        members[position] = index


def _quality(grams: np.ndarray, members: Sequence[int]) -> float:
    """Return the PSNR of the uniform mean of members, averaged over images."""
    return float(psnr_of(grams[:, members][:, :, members].mean(axis=(1, 2))).mean())


def _best_addition(grams: np.ndarray, members: Sequence[int]) -> tuple[int, float]:
    """Return the architecture that is the best addition to members, and the PSNR with it."""
    inner = grams[:, members][:, :, members].sum(axis=(1, 2))
    cross = grams[:, members].sum(axis=1)
    own = np.diagonal(grams, axis1=1, axis2=2)
    errors = (inner[:, None] + 2 * cross + own) / (len(members) + 1) ** 2
    qualities = psnr_of(errors).mean(axis=0)
    qualities[list(members)] = -np.inf
    best = int(qualities.argmax())
    return best, float(qualities[best])
