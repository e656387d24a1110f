"""Which genotypes to score: search strategies.

A strategy is a hashable callable, (key, scope) -> Candidates. It may draw,
score and draw again as it likes. If it has an attribute `num`, that is how many
candidates it returns. `STRATEGIES` makes strategies from a number of
genotypes to score; add your own.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from isnas_jax.networks import Space
from isnas_jax.problems import Problem
from isnas_jax.registry import Registry


class Candidates(NamedTuple):
    """Scored genotypes.

    Attributes:
      genotypes: N of them.
      scores: (N, K) of K random outputs each; lower is better.
    """

    genotypes: Sequence[Any]
    scores: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """(N,) scores: means over the random outputs."""
        return self.scores.mean(axis=1)


@dataclasses.dataclass(frozen=True)
class SearchContext:
    """What a strategy may see and do.

    Attributes:
      problem: What is known of the image.
      space: Where genotypes come from.
      channels: Width at which they must be possible.
      score: From N genotypes to (N, K) scores; lower is better.
    """

    problem: Problem
    space: Space
    channels: int
    score: Callable[[Sequence[Any]], np.ndarray]

    def sample(self, key: jax.Array, num: int) -> list[Any]:
        """Random genotypes that are possible at this width."""
        return list(self.space.sample(key, num, self.channels))


class Strategy(Protocol):
    """See the module's docstring."""

    def __call__(self, key: jax.Array, scope: SearchContext) -> Candidates: ...


@dataclasses.dataclass(frozen=True)
class RandomSearch:
    """Independent random genotypes, as in the paper.

    Attributes:
      num: How many.
    """

    num: int

    def __post_init__(self) -> None:
        if self.num < 1:
            raise ValueError(f"the number of genotypes must be at least 1, not {self.num}")

    def __call__(self, key: jax.Array, scope: SearchContext) -> Candidates:
        genotypes = scope.sample(key, self.num)
        return Candidates(genotypes, scope.score(genotypes))


@dataclasses.dataclass(frozen=True)
class GenotypeList:
    """Given genotypes.

    Attributes:
      genotypes: All of them.
    """

    genotypes: tuple[Any, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "genotypes", tuple(self.genotypes))

    @property
    def num(self) -> int:
        """How many."""
        return len(self.genotypes)

    def __call__(self, key: jax.Array, scope: SearchContext) -> Candidates:
        del key
        return Candidates(self.genotypes, scope.score(self.genotypes))


STRATEGIES: Registry[Callable[[int], Strategy]] = Registry(
    "search strategy", {"random": RandomSearch}
)
