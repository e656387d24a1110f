"""Selections: choose one member of a cohort, without the clean image.

A selection is a function (cohort) -> index of the member. `uses_validation` marks those that need
validation errors. Images are float32 (H, W, C) in [0, 1].
"""

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numpy as np

from isnas_jax.searching.cohort import Cohort

Function = TypeVar("Function", bound=Any)

Selection: TypeAlias = Callable[[Cohort], int]


def uses_validation(function: Function) -> Function:
    """Mark a selection or a combination that needs validation errors.

    A search without a split then refuses it before it computes anything.
    """
    function.needs_validation = True
    return function


def metric_weights(scores: np.ndarray) -> np.ndarray:
    """Return weights (N,) that fall linearly with the score and add up to 1.

    The paper's weights are max - score, which are 0 for the worst and 0/0 if all scores are
    equal. Here the mean step (max - min) / (N - 1) is added to each, and equal scores get equal
    weights. Members without a score (nan) get 0.
    """
    scores = np.asarray(scores, np.float64)
    if not (scored := np.isfinite(scores)).any():
        raise ValueError("weights by score need a member with a score")
    extent = np.ptp(scores[scored])
    step = extent / (scored.sum() - 1) if extent else 1
    weights = np.where(scored, scores[scored].max() - scores + step, 0)
    return weights / weights.sum()


def weighted_mean(images: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean (H, W, C) of images (N, H, W, C) with weights (N,)."""
    return np.tensordot(weights, images, axes=1).astype(np.float32)


def closest(images: np.ndarray, reference: np.ndarray) -> int:
    """Return the index of the image with the lowest mean squared error to a reference."""
    return int(np.square(images - reference).mean(axis=(1, 2, 3)).argmin())


def closest_to_mean(cohort: Cohort) -> int:
    """Select the scored member with the image closest to the metric-weighted mean (section 4)."""
    scored = np.flatnonzero(np.isfinite(cohort.scores))
    images = cohort.images[scored]
    mean = weighted_mean(images, metric_weights(cohort.scores[scored]))
    return int(scored[closest(images, mean)])


@uses_validation
def lowest_validation(cohort: Cohort) -> int:
    """Select the member with the lowest validation error."""
    return int(cohort.errors.argmin())


@uses_validation
def lowest_mean_rank(cohort: Cohort) -> int:
    """Select the scored member with the lowest mean of its ranks by validation error and score.

    Ties share their mean rank; equal means are decided by the validation error.
    """
    from scipy.stats import rankdata  # importing it takes half a second

    scored = np.flatnonzero(np.isfinite(cohort.scores))
    errors = cohort.errors[scored]
    ranks = rankdata(errors) + rankdata(cohort.scores[scored])
    return int(scored[np.lexsort((errors, ranks))[0]])
