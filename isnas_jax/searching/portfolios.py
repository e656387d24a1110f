"""Portfolios: genotypes that together restored other images best.

A search with a portfolio computes no score and learns nothing from the image.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import numpy as np

from isnas_jax.searching.strategies import Candidates, Listed, SearchContext

#: Genotypes CELL:BITS, the best first, and each the best addition to those before it.
#: `isnas_jax.benchmark.portfolio(bench, "denoising_25", images, 8, max_seconds=5)` chose them on
#: all images of DIP-Bench, which is therefore no test of them.
PORTFOLIO = (
    "64:0001010110110101110010111",
    "172:0000011001001001100111101",
    "76:0000100111100110111010000",
    "119:1001011101010111110000110",
    "167:0110011001010000010010001",
    "170:0100001010111010100111010",
    "64:1011010011110000101010010",
    "188:0100001011011000001001101",
)


@dataclasses.dataclass(frozen=True)
class Portfolio(Listed):
    """Propose genotypes in their order, as many as the cohort has, without scores.

    A search strategy.

    >>> isnas.Portfolio().num
    8

    Attributes:
      genotypes: Genotypes, or text CELL:BITS.
    """

    genotypes: tuple[Any, ...] = PORTFOLIO

    scored: ClassVar[bool] = False

    def __call__(self, key: jax.Array, context: SearchContext) -> Candidates:
        del key
        names = self.genotypes[: context.cohort]
        genotypes = [context.space.parse(str(name)) for name in names]
        return Candidates(genotypes, np.zeros((len(names), 0)))
