"""Selections and combinations: the members of a cohort to restore with.

A selection is a function (cohort) -> index of a member. A combination is a function
(cohort, selected) -> weights (M,) of the members, not negative, that add up to 1; members with a
weight above 0 are fitted to the whole problem. Neither sees the clean image. One that uses
validation errors has the attribute `needs_validation`, and one that uses scores `needs_scores`, so
that a search without them refuses it before it fits anything. Images are float32 (H, W, C) in
[0, 1].
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np

from isnas_jax.searching.cohort import Cohort

Function = TypeVar("Function", bound=Any)

Selection: TypeAlias = Callable[[Cohort], int]
Combination: TypeAlias = Callable[[Cohort, int], np.ndarray]


def _uses_validation(function: Function) -> Function:
    function.needs_validation = True
    return function


def _uses_scores(function: Function) -> Function:
    function.needs_scores = True
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


@_uses_scores
def closest_to_mean(cohort: Cohort) -> int:
    """Select the scored member with the image closest to the metric-weighted mean (section 4)."""
    scored = np.flatnonzero(np.isfinite(cohort.scores))
    images = cohort.images[scored]
    mean = weighted_mean(images, metric_weights(cohort.scores[scored]))
    return int(scored[closest(images, mean)])


@_uses_validation
def lowest_validation(cohort: Cohort) -> int:
    """Select the member with the lowest validation error."""
    return int(cohort.errors.argmin())


@_uses_scores
@_uses_validation
def lowest_mean_rank(cohort: Cohort) -> int:
    """Select the scored member with the lowest mean of its ranks by validation error and score.

    Ties share their mean rank; equal means are decided by the validation error.
    """
    from scipy.stats import rankdata  # importing it takes half a second

    scored = np.flatnonzero(np.isfinite(cohort.scores))
    errors = cohort.errors[scored]
    ranks = rankdata(errors) + rankdata(cohort.scores[scored])
    return int(scored[np.lexsort((errors, ranks))[0]])


def selected_only(cohort: Cohort, selected: int) -> np.ndarray:
    """Return the selected member alone, as in the paper."""
    return np.eye(len(cohort.members))[selected]


@_uses_scores
def score_weighted_mean(cohort: Cohort, selected: int) -> np.ndarray:
    """Weigh the scored members by their scores, as in the paper's mean."""
    del selected
    return metric_weights(cohort.scores)


def uniform_mean(cohort: Cohort, selected: int) -> np.ndarray:
    """Weigh all members equally."""
    del selected
    return np.full(len(cohort.members), 1 / len(cohort.members))


def simplex_least_squares(vectors: np.ndarray) -> np.ndarray:
    """Return the weights (M,) on the simplex that give the shortest mean of (M, P) vectors.

    With u = s w and w on the simplex, |sum u v|^2 + (sum u - 1)^2 has the same minimizer as
    |sum w v|^2: non-negative least squares with one more row.
    """
    from scipy.optimize import nnls  # importing it takes a quarter of a second

    scale = np.sqrt(np.square(vectors).sum(axis=1).min()) or 1
    rows = np.vstack([vectors.T / scale, np.ones(len(vectors))])
    target = np.zeros(len(rows))
    target[-1] = 1
    weights, _ = nnls(rows, target)
    return weights / weights.sum()


@dataclasses.dataclass(frozen=True)
class Stack:
    """Weigh the members so that their mean has the lowest validation error.

    Stacked regressions (Breiman, 1996), for a linear operator. Without the ridge, validation
    noise decides between members that resemble each other. The ridge is relative to the
    validation errors, which include that noise, so that it is stronger under more noise.

    >>> isnas.Stack(ridge=0.1)
    Stack(ridge=0.1)

    Attributes:
      ridge: Strength of the shrinkage towards equal weights; not negative.
    """

    ridge: float = 0.01
    needs_validation: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.ridge >= 0:
            raise ValueError(f"ridge {self.ridge} must not be negative")

    def __call__(self, cohort: Cohort, selected: int) -> np.ndarray:
        """Minimize the squared length of the mean residual, plus the ridge.

        The ridge adds ridge |w - 1/M|^2 times the mean squared length of the members' residuals.
        """
        del selected
        residuals = cohort.residuals.astype(np.float64)
        number = len(residuals)
        scale = np.sqrt(self.ridge * np.square(residuals).sum() / number)
        away = scale * (np.eye(number) - 1 / number)
        return simplex_least_squares(np.hstack([residuals, away]))
