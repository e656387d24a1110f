"""The result of a search: arrays, a summary and a picture."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from isnas_jax import figures
from isnas_jax.fitting import Fit
from isnas_jax.searching.cohort import Cohort
from isnas_jax.searching.strategies import Candidates


class Restoration(NamedTuple):
    """A member's restoration (H, W, C) of the whole problem; a classical one has no fit."""

    image: np.ndarray
    fit: Fit | None


@dataclasses.dataclass(frozen=True, repr=False)
class SearchResult:
    """The result of a search over N candidates with a cohort of M members.

    Attributes:
      candidates: N genotypes and their scores.
      cohort: M members and their restorations of the problem or its proxy.
      selected: Index of the selected member.
      weights: (M,), of the members in the restoration.
      restorations: Image and fit of each member with a weight, by its index.
      restored: (H, W, C), the restoration: the weighted mean of their images.
      seconds: Time of each stage in this call; cached results take next to none.
    """

    candidates: Candidates
    cohort: Cohort
    selected: int
    weights: np.ndarray
    restorations: Mapping[int, Restoration]
    restored: np.ndarray
    seconds: Mapping[str, float]

    @property
    def architecture(self) -> Any:
        """The selected member: a genotype, a baseline or a classical restoration."""
        return self.cohort.members[self.selected]

    def __repr__(self) -> str:
        weighted = ", ".join(
            f"{weight:.2f} {member}"
            for member, weight in zip(self.cohort.members, self.weights, strict=True)
            if weight > 0
        )
        return (
            f"Search of {len(self.candidates.genotypes)} candidates, cohort of "
            f"{len(self.cohort.members)}, selected {self.architecture}; restored by {weighted}"
        )

    def _repr_html_(self) -> str:
        return figures.picture(self.restored, repr(self))

    def plot(self) -> Any:
        """Return a matplotlib figure of the restoration, the cohort's curves and its weights."""
        return figures.decisions(self.restored, self.member_curves())

    def member_curves(self) -> list[figures.MemberCurves]:
        """Return the curves and the outcome of each member, by the first fold."""
        return [
            figures.MemberCurves(
                name=str(member),
                curves=fits[0].curves() if fits else {},
                restored_at=fits[0].restored_at if fits else None,
                selected=index == self.selected,
                weight=float(self.weights[index]),
            )
            for index, member in enumerate(self.cohort.members)
            for fits in [self.cohort.fits(index)]
        ]
