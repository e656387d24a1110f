"""Portfolios: genotypes that together restored other images best.

A search with a portfolio computes no score and learns nothing from the image. `PORTFOLIOS` holds
the genotypes of each task, the best first, and each the best addition to those before it.
`isnas_jax.benchmark.portfolio(bench, "denoising_25", images, 8, max_seconds=5)` chose them on all
images of DIP-Bench, which is therefore no test of them.
"""

import jax
import numpy as np

from isnas_jax.problems import Problem
from isnas_jax.searching.strategies import Candidates, SearchContext

#: Genotypes CELL:BITS by task.
PORTFOLIOS: dict[str, tuple[str, ...]] = {
    "denoising": (
        "64:0001010110110101110010111",
        "172:0000011001001001100111101",
        "76:0000100111100110111010000",
        "119:1001011101010111110000110",
        "167:0110011001010000010010001",
        "170:0100001010111010100111010",
        "64:1011010011110000101010010",
        "188:0100001011011000001001101",
    ),
}


def check_portfolio(problem: Problem, size: int) -> None:
    """Raise ValueError unless the portfolio of a problem's task has so many genotypes."""
    known = len(PORTFOLIOS.get(problem.task, ()))
    if not 1 <= size <= known:
        sizes = ", ".join(f"{task} {len(names)}" for task, names in PORTFOLIOS.items())
        raise ValueError(
            f"{problem.task} has no portfolio of {size} genotypes; the largest are: {sizes}"
        )


def from_portfolio(key: jax.Array, context: SearchContext) -> Candidates:
    """Propose the task's portfolio, as many genotypes as the cohort has, without scores.

    A search strategy. A task without a portfolio, or a larger cohort, raises ValueError.
    """
    del key
    check_portfolio(context.problem, context.cohort)
    names = PORTFOLIOS[context.problem.task][: context.cohort]
    genotypes = [context.space.parse(name) for name in names]
    return Candidates(genotypes, np.zeros((context.cohort, 0)))
