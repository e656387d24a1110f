"""Search strategies: which genotypes to propose.

A strategy is a hashable function (key, context) -> Candidates. It may draw, score and draw again.
If it has an attribute `num`, that is the largest number of candidates it returns. One whose
candidates have no scores has an attribute `scored`, which is False.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from isnas_jax.networks import Space
from isnas_jax.problems import Problem


class Candidates(NamedTuple):
    """Scored genotypes, or genotypes without scores in the order of their choice.

    Attributes:
      genotypes: N genotypes.
      scores: (N, K), of K random outputs each; lower is better. K is 0 without scores.
    """

    genotypes: Sequence[Any]
    scores: np.ndarray

    @property
    def scored(self) -> bool:
        """Whether there are scores."""
        return self.scores.size > 0

    @property
    def means(self) -> np.ndarray:
        """(N,) scores, averaged over the random outputs; nan without scores."""
        if not self.scored:
            return np.full(len(self.genotypes), np.nan)
        return self.scores.mean(axis=1)


@dataclasses.dataclass(frozen=True)
class SearchContext:
    """Everything that a strategy can use.

    Attributes:
      problem: The problem to restore.
      space: The search space.
      channels: Width at which genotypes must be valid.
      cohort: Number of candidates that will be fitted.
      score: Maps N genotypes to (N, K) scores; lower is better.
    """

    problem: Problem
    space: Space
    channels: int
    cohort: int
    score: Callable[[Sequence[Any]], np.ndarray]

    def sample(self, key: jax.Array, num: int) -> list[Any]:
        """Draw random genotypes that are valid at this width."""
        return list(self.space.sample(key, num, self.channels))


class Strategy(Protocol):
    """See the module's docstring."""

    def __call__(self, key: jax.Array, context: SearchContext) -> Candidates: ...


def has_scores(strategy: Strategy) -> bool:
    """Return whether a strategy scores its candidates."""
    return getattr(strategy, "scored", True)


@dataclasses.dataclass(frozen=True)
class RandomSearch:
    """Score independent random genotypes, as the paper does.

    >>> isnas.RandomSearch(5000).num
    5000

    Attributes:
      num: Number of genotypes.
    """

    num: int

    def __post_init__(self) -> None:
        if self.num < 1:
            raise ValueError(f"the number of genotypes must be at least 1, not {self.num}")

    def __call__(self, key: jax.Array, context: SearchContext) -> Candidates:
        genotypes = context.sample(key, self.num)
        return Candidates(genotypes, context.score(genotypes))


@dataclasses.dataclass(frozen=True)
class Listed:
    """What strategies with given genotypes have in common.

    Attributes:
      genotypes: The genotypes.
    """

    genotypes: tuple[Any, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "genotypes", tuple(self.genotypes))

    @property
    def num(self) -> int:
        """Number of genotypes."""
        return len(self.genotypes)


class GenotypeList(Listed):
    """Score given genotypes.

    >>> isnas.GenotypeList([isnas.Genotype.parse("172:0000011001001001100111101")]).num
    1

    Attributes:
      genotypes: The genotypes.
    """

    def __call__(self, key: jax.Array, context: SearchContext) -> Candidates:
        del key
        return Candidates(self.genotypes, context.score(self.genotypes))
