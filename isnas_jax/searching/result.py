"""A finished search, as arrays, in words and as a picture."""

import dataclasses
from typing import Any

import numpy as np

from isnas_jax import figures
from isnas_jax.fitting import Fit
from isnas_jax.searching.cohort import Cohort
from isnas_jax.searching.strategies import Candidates


@dataclasses.dataclass(frozen=True, repr=False)
class SearchResult:
    """A finished search over N candidates with a cohort of M.

    Attributes:
      candidates: N genotypes and their scores.
      cohort: M members and what they made of the proxy.
      selected: Position of the chosen one in the cohort.
      weights: (M,) of the members in what is returned.
      images: What members with a weight made of the whole problem, (H, W, C) by
        position in the cohort.
      fits: The fits that made them; None for classical restorations.
      restored: (H, W, C), the result: the weighted mean of the images.
      seconds: Time that each stage took here, next to none if it was found finished.
    """

    candidates: Candidates
    cohort: Cohort
    selected: int
    weights: np.ndarray
    images: dict[int, np.ndarray]
    fits: dict[int, Fit | None]
    restored: np.ndarray
    seconds: dict[str, float]

    @property
    def architecture(self) -> Any:
        """The selected member: a genotype, or a name."""
        return self.cohort.members[self.selected]

    def __repr__(self) -> str:
        shares = ", ".join(
            f"{weight:.2f} {member}"
            for member, weight in zip(self.cohort.members, self.weights, strict=True)
            if weight > 0
        )
        return (
            f"Search of {len(self.candidates.genotypes)} candidates, cohort of "
            f"{len(self.cohort.members)}, selected {self.architecture}; restored by {shares}"
        )

    def _repr_html_(self) -> str:
        return figures.picture(self.restored, repr(self))

    def plot(self) -> Any:
        """A matplotlib figure: what was decided, and what came of it."""
        return figures.decisions(self.restored, self.tracks())

    def tracks(self) -> list[figures.Track]:
        """The cohort as a figure shows it, by the first fold."""
        return [
            figures.Track(
                name=str(member),
                curves=fits[0].curves() if fits else {},
                restored_at=fits[0].restored_at if fits else None,
                selected=rank == self.selected,
                weight=float(self.weights[rank]),
            )
            for rank, member in enumerate(self.cohort.members)
            for fits in [self.cohort.fits(rank)]
        ]
