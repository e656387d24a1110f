"""Choosing one of a cohort, without the clean image.

A selection is a function, (cohort) -> position of the chosen one; `uses_validation`
marks those that need validation errors. `SELECTIONS` holds ours; add your own.
Images are float32 (H, W, C) in [0, 1].
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from isnas_jax.registry import Registry
from isnas_jax.searching.cohort import Cohort, uses_validation

Selection: TypeAlias = Callable[[Cohort], int]


def metric_weights(scores: np.ndarray) -> np.ndarray:
    """Weights (N,) that fall linearly with the score and add up to 1.

    The paper's are max - score, which leaves the worst without a voice and is
    0/0 when all are equal. Here everyone gets the cohort's mean step
    (max - min) / (N - 1) on top, and equal scores get equal weights. Who has no
    score (nan) has no weight.
    """
    scores = np.asarray(scores, np.float64)
    if not (scored := np.isfinite(scores)).any():
        raise ValueError("weights by score need a member with a score")
    extent = np.ptp(scores[scored])
    step = extent / (scored.sum() - 1) if extent else 1
    weights = np.where(scored, scores[scored].max() - scores + step, 0)
    return weights / weights.sum()


def weighted_mean(images: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean (H, W, C) of images (N, H, W, C) with weights (N,)."""
    return np.tensordot(weights, images, axes=1).astype(np.float32)


def closest(images: np.ndarray, reference: np.ndarray) -> int:
    """Index of the image with the least mean squared error to a reference, the first of equals."""
    return int(np.square(images - reference).mean(axis=(1, 2, 3)).argmin())


def closest_to_mean(cohort: Cohort) -> int:
    """The scored member whose image is closest to the metric-weighted mean (section 4)."""
    scored = np.flatnonzero(np.isfinite(cohort.scores))
    images = cohort.images[scored]
    return int(
        scored[closest(images, weighted_mean(images, metric_weights(cohort.scores[scored])))]
    )


@uses_validation
def least_validation(cohort: Cohort) -> int:
    """The member whose restoration has the least validation error."""
    return int(cohort.errors.argmin())


@uses_validation
def lowest_mean_rank(cohort: Cohort) -> int:
    """The scored member whose ranks by validation error and by score have the least mean.

    Equal ranks share their mean; of equal means the smaller validation error counts.
    """
    scored = np.flatnonzero(np.isfinite(cohort.scores))
    errors = cohort.errors[scored]
    from scipy.stats import rankdata  # takes half a second

    ranks = rankdata(errors) + rankdata(cohort.scores[scored])
    return int(scored[np.lexsort((errors, ranks))[0]])


SELECTIONS: Registry[Selection] = Registry(
    "selection",
    {"closest": closest_to_mean, "validation": least_validation, "ranks": lowest_mean_rank},
)
