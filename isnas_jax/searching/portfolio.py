"""Portfolios: genotypes that together restored other images best.

A search with a portfolio computes no score and learns nothing from the image. `GENOTYPES` holds
the genotypes of each task, the best first, and each the best addition to those before it;
`isnas_jax.benchmark.portfolio` chose them on the images of DIP-Bench.
"""

import dataclasses

import jax
import numpy as np

from isnas_jax.problems import Problem
from isnas_jax.searching.strategies import Candidates, SearchContext

#: Genotypes CELL:BITS by task.
GENOTYPES: dict[str, tuple[str, ...]] = {
    "denoising": ("76:0000100111100110111010000",),
}
SIZE = 8


@dataclasses.dataclass(frozen=True)
class Portfolio:
    """Propose the first genotypes of the task's portfolio, with their ranks as scores.

    >>> isnas.Portfolio(3).num
    3

    Attributes:
      num: Their number, at most 8.

    Raises:
      ValueError: For another number, and for a task without a portfolio.
    """

    num: int = SIZE

    def __post_init__(self) -> None:
        if not 1 <= self.num <= SIZE:
            raise ValueError(f"a portfolio has 1 to {SIZE} genotypes, not {self.num}")

    def genotypes(self, problem: Problem) -> tuple[str, ...]:
        """Return the genotypes for a problem as text."""
        if problem.task not in GENOTYPES:
            tasks = ", ".join(GENOTYPES)
            raise ValueError(f"task {problem.task!r} has no portfolio, but {tasks} has one")
        return GENOTYPES[problem.task][: self.num]

    def __call__(self, key: jax.Array, context: SearchContext) -> Candidates:
        del key
        genotypes = [context.space.parse(text) for text in self.genotypes(context.problem)]
        return Candidates(genotypes, np.arange(self.num, dtype=np.float64)[:, None])
