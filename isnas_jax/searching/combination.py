"""Combinations: the weights of the members in the restoration.

A combination is a function (cohort, selected) -> weights (M,) of the members, not negative, that
add up to 1; `selected` is the index that the selection chose. Members with a weight above 0 are
fitted to the whole problem.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, TypeAlias

import numpy as np

from isnas_jax.searching.cohort import Cohort
from isnas_jax.searching.selection import metric_weights

Combination: TypeAlias = Callable[[Cohort, int], np.ndarray]


def selected_only(cohort: Cohort, selected: int) -> np.ndarray:
    """Return the selected member alone, as in the paper."""
    return np.eye(len(cohort.members))[selected]


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


def stacking_weights(residuals: np.ndarray, ridge: float) -> np.ndarray:
    """Return the weights (M,) of the mean with the least error, shrunk towards equal weights.

    Minimizes, on the simplex, the squared length of the mean of (M, P) residuals plus
    ridge |w - 1/M|^2 times the mean squared length of the members'.
    """
    number = len(residuals)
    scale = np.sqrt(ridge * np.square(residuals).sum() / number)
    away = scale * (np.eye(number) - 1 / number)
    return simplex_least_squares(np.hstack([residuals, away]))


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
        del selected
        return stacking_weights(cohort.residuals.astype(np.float64), self.ridge)
