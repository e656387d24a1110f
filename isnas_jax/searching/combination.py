"""What is returned in the end: whose restorations of the whole problem, with what weights.

A combination is a function, (cohort, selected) -> weights (M,) of the members,
not negative, adding up to 1; `selected` is the position that the selection
chose. Members with a weight above 0 are fitted anew to the whole problem.
`COMBINATIONS` holds ours; add your own.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from isnas_jax.registry import Registry
from isnas_jax.searching.cohort import Cohort
from isnas_jax.searching.selection import metric_weights

Combination: TypeAlias = Callable[[Cohort, int], np.ndarray]


def selected_alone(cohort: Cohort, selected: int) -> np.ndarray:
    """The selected member alone, as in the paper."""
    return np.eye(len(cohort.fits))[selected]


def mean_of_cohort(cohort: Cohort, selected: int) -> np.ndarray:
    """All members by their scores."""
    del selected
    return metric_weights(cohort.scores)


COMBINATIONS: Registry[Combination] = Registry(
    "combination", {"selected": selected_alone, "mean": mean_of_cohort}
)
