"""Who is fitted: choosing a cohort among scored candidates, and what came of it.

A choice is a function, (key, candidates, size) -> indices of the candidates, best
first. `COHORT_SELECTIONS` holds ours; add your own.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import numpy as np

from isnas_jax.fitting import Fit
from isnas_jax.problems import Problem
from isnas_jax.registry import Registry
from isnas_jax.searching.strategies import Candidates

Decide = TypeVar("Decide", bound=Any)

CohortSelection: TypeAlias = Callable[[jax.Array, Candidates, int], np.ndarray]


class Fold(NamedTuple):
    """What M members made of a part of the measurements.

    Attributes:
      problem: That part.
      validation: The rest, or None without a split.
      images: (M, H, W, C), the restorations.
      fits: M of them; None for a classical restoration.
    """

    problem: Problem
    validation: Problem | None
    images: np.ndarray
    fits: Sequence[Fit | None]


@dataclasses.dataclass(frozen=True)
class Cohort:
    """M members: fitted candidates, and whoever the settings name besides.

    Attributes:
      members: Genotypes in the order of their choice, then names of further members.
      scores: (M,) of the metric, lower is better; nan where there is none.
      problem: What they restored: the whole problem or its proxy.
      folds: How, one for each split of it.
    """

    members: Sequence[Any]
    scores: np.ndarray
    problem: Problem
    folds: Sequence[Fold]

    @functools.cached_property
    def images(self) -> np.ndarray:
        """(M, H, W, C), what the members made of it, a mean over the folds."""
        return np.mean([fold.images for fold in self.folds], axis=0)

    def fits(self, rank: int) -> list[Fit]:
        """A member's fits by fold; none of a classical restoration."""
        return [fit for fold in self.folds if (fit := fold.fits[rank])]

    @functools.cached_property
    def residuals(self) -> np.ndarray:
        """(M, P) of the validation measurements, weighted; ValueError without them.

        The sum of their squares is the validation error, a mean over the folds.
        For a linear operator a weighted mean of images has the weighted mean of
        these.
        """
        found = []
        for fold in self.folds:
            if fold.validation is None:
                raise ValueError("validation errors need a split")
            observed = np.asarray(fold.validation.observed)
            weights = np.broadcast_to(fold.validation.weights, observed.shape)
            seen = np.stack([fold.validation.operator(image) for image in fold.images])
            scale = np.sqrt(weights / weights.sum() / len(self.folds))
            found.append((scale * (seen - observed))[:, weights > 0])
        return np.concatenate(found, axis=1)

    @property
    def errors(self) -> np.ndarray:
        """(M,) validation errors; ValueError if there is no split."""
        return np.square(self.residuals).sum(axis=1)


def uses_validation(decide: Decide) -> Decide:
    """Marks a selection or a combination that looks at validation errors, which need a split.

    So a search without one is refused before anything is computed.
    """
    decide.needs_validation = True
    return decide


def check_size(size: int, candidates: int) -> None:
    """ValueError unless a cohort of this size can be taken."""
    if not 1 <= size <= candidates:
        raise ValueError(
            f"a cohort of {size} from {candidates} candidates: 1 to {candidates} can be"
        )


def top_k(key: jax.Array, candidates: Candidates, size: int) -> np.ndarray:
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


def top_half(key: jax.Array, candidates: Candidates, size: int) -> np.ndarray:
    """Indices drawn from the better half by score, the best of them first.

    The best scores belong to networks that are alike and slow to fit; the worst
    to networks that restore badly.
    """
    half = lowest(candidates.means, max(size, -(-len(candidates.genotypes) // 2)))
    return half[np.sort(jax.random.permutation(key, len(half))[:size])]


COHORT_SELECTIONS: Registry[CohortSelection] = Registry(
    "cohort choice",
    {"metric": top_k, "better half": top_half, "random": at_random},
)
