"""Choosing one of a cohort, without the clean image.

A selection is a function, (cohort) -> position of the chosen one. `SELECTIONS`
holds ours; add your own. Images are float32 (H, W, C) in [0, 1].
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import scipy.stats

from isnas_jax.registry import Registry
from isnas_jax.searching.cohort import Cohort

Selection: TypeAlias = Callable[[Cohort], int]


def metric_weights(scores: np.ndarray) -> np.ndarray:
    """Weights (N,) that fall linearly with the score and add up to 1.

    The paper's are max - score, which leaves the worst without a voice and is
    0/0 when all are equal. Here everyone gets the cohort's mean step
    (max - min) / (N - 1) on top, and equal scores get equal weights.
    """
    scores = np.asarray(scores, np.float64)
    extent = np.ptp(scores)
    if extent == 0:
        return np.full(len(scores), 1 / len(scores))
    weights = scores.max() - scores + extent / (len(scores) - 1)
    return weights / weights.sum()


def weighted_mean(images: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean (H, W, C) of images (N, H, W, C) with weights (N,)."""
    return np.tensordot(weights, images, axes=1).astype(np.float32)


def closest(images: np.ndarray, reference: np.ndarray) -> int:
    """Index of the image with the least mean squared error to a reference, the first of equals."""
    return int(np.square(images - reference).mean(axis=(1, 2, 3)).argmin())


def closest_to_mean(cohort: Cohort) -> int:
    """The member whose image is closest to the cohort's metric-weighted mean (section 4)."""
    images = cohort.images
    return closest(images, weighted_mean(images, metric_weights(cohort.scores)))


def validation_errors(cohort: Cohort) -> np.ndarray:
    """(M,) validation errors of what the members restored; ValueError if they have none."""
    errors = [fit.validation[fit.restored_at] for fit in cohort.fits if fit.validation is not None]
    if len(errors) < len(cohort.fits):
        raise ValueError("a selection by validation error needs fits with a split")
    return np.array(errors)


def least_validation(cohort: Cohort) -> int:
    """The member whose restoration has the least validation error."""
    return int(validation_errors(cohort).argmin())


def best_rank(cohort: Cohort) -> int:
    """The member whose ranks by validation error and by score have the least mean.

    Equal ranks share their mean; of equal means the smaller validation error counts.
    """
    errors = validation_errors(cohort)
    ranks = scipy.stats.rankdata(errors) + scipy.stats.rankdata(cohort.scores)
    return int(np.lexsort((errors, ranks))[0])


SELECTIONS: Registry[Selection] = Registry(
    "selection",
    {"closest": closest_to_mean, "validation": least_validation, "ranks": best_rank},
)
