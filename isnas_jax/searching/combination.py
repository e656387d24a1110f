"""What is returned in the end: whose restorations of the whole problem, with what weights.

A combination is a function, (cohort, selected) -> weights (M,) of the members,
not negative, adding up to 1; `selected` is the position that the selection
chose. Members with a weight above 0 are fitted to the whole problem.
`COMBINATIONS` holds ours; add your own.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, TypeAlias

import numpy as np

from isnas_jax.registry import Registry
from isnas_jax.searching.cohort import Cohort
from isnas_jax.searching.selection import metric_weights

Combination: TypeAlias = Callable[[Cohort, int], np.ndarray]


def selected_only(cohort: Cohort, selected: int) -> np.ndarray:
    """The selected member alone, as in the paper."""
    return np.eye(len(cohort.members))[selected]


def score_weighted_mean(cohort: Cohort, selected: int) -> np.ndarray:
    """The scored members by their scores, as in the paper's mean."""
    del selected
    return metric_weights(cohort.scores)


def uniform_mean(cohort: Cohort, selected: int) -> np.ndarray:
    """All members alike."""
    del selected
    return np.full(len(cohort.members), 1 / len(cohort.members))


def simplex_least_squares(vectors: np.ndarray) -> np.ndarray:
    """Weights (M,), not negative, adding up to 1, for the shortest mean of (M, P) vectors.

    With u = s w, w on the simplex, |sum u v|^2 + (sum u - 1)^2 is least where
    |sum w v|^2 is: non-negative least squares with one more row.
    """
    from scipy.optimize import nnls  # takes a quarter of a second

    scale = np.sqrt(np.square(vectors).sum(axis=1).min()) or 1
    rows = np.vstack([vectors.T / scale, np.ones(len(vectors))])
    target = np.zeros(len(rows))
    target[-1] = 1
    weights, _ = nnls(rows, target)
    return weights / weights.sum()


def stacked(residuals: np.ndarray, ridge: float) -> np.ndarray:
    """Weights (M,) of the mean of least error, drawn towards equal ones.

    What is minimized on the simplex is the error of the mean of (M, P) residuals
    plus ridge |w - 1/M|^2 times the mean error of the members.
    """
    number = len(residuals)
    scale = np.sqrt(ridge * np.square(residuals).sum() / number)
    away = scale * (np.eye(number) - 1 / number)
    return simplex_least_squares(np.hstack([residuals, away]))


@dataclasses.dataclass(frozen=True)
class Stack:
    """The weights whose mean has the least validation error, drawn towards equal ones.

    Stacked regressions (Breiman, 1996), for a linear operator. Without the ridge,
    the noise of the validation decides between members that are much alike. That
    noise is part of the errors by which the ridge is measured, so that it is
    stronger where the validation is less certain.

    Attributes:
      ridge: Not negative; 0 is the least error itself.
    """

    ridge: float = 0.01
    needs_validation: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.ridge >= 0:
            raise ValueError(f"ridge {self.ridge} must not be negative")

    def __call__(self, cohort: Cohort, selected: int) -> np.ndarray:
        del selected
        return stacked(cohort.residuals.astype(np.float64), self.ridge)


COMBINATIONS: Registry[Combination] = Registry(
    "combination",
    {
        "selected": selected_only,
        "scores": score_weighted_mean,
        "mean": uniform_mean,
        "stack": Stack(),
    },
)
