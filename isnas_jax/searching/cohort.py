"""Who is fitted: choosing a cohort among scored candidates, and what came of it.

A choice is a function, (key, candidates, size) -> indices of the candidates, best
first. `COHORTS` holds ours; add your own.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

from isnas_jax.fitting import Fit
from isnas_jax.problems import Problem
from isnas_jax.registry import Registry
from isnas_jax.searching.strategies import Candidates

CohortChoice: TypeAlias = Callable[[jax.Array, Candidates, int], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Cohort:
    """M fitted candidates.

    Attributes:
      genotypes: M of them, best score first.
      scores: (M,) of the metric; lower is better.
      problem: What they were fitted to: as a rule a proxy of the whole.
      fits: M fits.
    """

    genotypes: Sequence[Any]
    scores: np.ndarray
    problem: Problem
    fits: Sequence[Fit]

    @property
    def images(self) -> np.ndarray:
        """(M, H, W, C), what the fits restored."""
        return np.stack([fit.restored for fit in self.fits])


def check_size(size: int, candidates: int) -> None:
    """ValueError unless a cohort of this size can be taken."""
    if not 1 <= size <= candidates:
        raise ValueError(
            f"a cohort of {size} from {candidates} candidates: 1 to {candidates} can be"
        )


def best_by_score(key: jax.Array, candidates: Candidates, size: int) -> np.ndarray:
    """Indices of the lowest scores, best first; equal ones in their order."""
    del key
    return lowest(candidates.means, size)


def lowest(scores: np.ndarray, size: int) -> np.ndarray:
    """Indices of the lowest of (N,) scores, best first; equal ones in their order."""
    scores = np.asarray(scores)
    check_size(size, len(scores))
    if not np.isfinite(scores).all():
        raise ValueError(
            f"candidate {int(np.argmin(np.isfinite(scores)))} has a score that is not finite"
        )
    return np.argsort(scores, kind="stable")[:size]


def at_random(key: jax.Array, candidates: Candidates, size: int) -> np.ndarray:
    """Indices of different candidates, drawn without looking: the control."""
    check_size(size, len(candidates.genotypes))
    return np.asarray(jax.random.permutation(key, len(candidates.genotypes))[:size])


COHORTS: Registry[CohortChoice] = Registry(
    "cohort choice", {"metric": best_by_score, "random": at_random}
)
