"""Cohorts of recorded members: restorations as inner products of their errors."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from isnas_jax.searching import Cohort

from .curves import EXPERIMENTS

MAX_MEMBERS = 9  # more than any origin has


@dataclasses.dataclass(frozen=True)
class RecordedCohort(Cohort):
    """A cohort of M members without images, for the library's selections and combinations.

    Errors and residuals are vectors of M numbers with the recorded inner products.
    Selections and combinations that depend on sums of squares return what they would
    return for the images.
    """

    residual_products: np.ndarray  # (M, M) of validation residuals
    split_error_products: np.ndarray  # (M, M) of errors of the fits to the training problems
    error_products: np.ndarray  # (M, M) of errors of the fits to all measurements

    @functools.cached_property
    def images(self) -> np.ndarray:
        return vectors_with(self.split_error_products)[:, None, :, None]

    @functools.cached_property
    def residuals(self) -> np.ndarray:
        return vectors_with(self.residual_products)

    def psnr(self, weights: np.ndarray) -> float:
        """Return the PSNR in dB of the members' mean with (M,) weights."""
        return float(-10 * np.log10(weights @ self.error_products @ weights))


def vectors_with(products: np.ndarray) -> np.ndarray:
    """Return M row vectors (M, M) with the given inner products (M, M)."""
    values, vectors = np.linalg.eigh(products)
    return vectors * np.sqrt(np.maximum(values, 0))


def recorded_cohort(row: Mapping[str, Any], names: Sequence[str]) -> RecordedCohort:
    """Return the cohort of some members of a row of `members.parquet`."""
    index = [list(row["names"]).index(name) for name in names]
    total = len(row["names"])
    products = {
        name: row[name].reshape(total, total)[np.ix_(index, index)]
        for name in ("residual_products", "split_error_products", "error_products")
    }
    unused = cast(Any, None)  # selections and combinations do not read the problem
    return RecordedCohort(names, row["scores"][index], problem=unused, folds=(), **products)


def names_of_origins(row: Mapping[str, Any], **numbers: int) -> list[str]:
    """Return the names of the first members of each origin, up to a number.

    The origin "top_half" takes "random" ones by score.
    """
    names: list[str] = []
    members = list(zip(row["names"], row["origins"], row["scores"], strict=True))
    for origin, number in numbers.items():
        recorded = "random" if origin == "top_half" else origin
        candidates = [member for member in members if member[1] == recorded]
        if origin == "top_half":
            candidates.sort(key=lambda member: member[2])
        names += [name for name, *_ in candidates[:number]]
    return names


def default_cohort(experiment: str) -> str:
    """Return the name in `COHORTS` of the cohort that the tables compare with."""
    extra = "" if EXPERIMENTS[experiment].task == "denoising" else ", NAS-DIP"
    return f"2 top-half, DIP{extra}"


_NETWORKS = {"top": MAX_MEMBERS, "random": MAX_MEMBERS, "baseline": 2}
_CLASSICAL = {"classical": MAX_MEMBERS}
# Numbers of members by origin: top genotypes by score, random ones, those of the random
# ones with the lowest scores, named networks, classical restorations.
COHORTS: dict[str, dict[str, int]] = {
    "3 top": {"top": 3},
    "3 random": {"random": 3},
    "2 top, DIP": {"top": 2, "baseline": 1},
    "2 random, DIP": {"random": 2, "baseline": 1},
    "2 top-half, DIP": {"top_half": 2, "baseline": 1},
    "DIP, NAS-DIP": {"baseline": 2},
    "2 top, DIP, NAS-DIP": {"top": 2, "baseline": 2},
    "2 random, DIP, NAS-DIP": {"random": 2, "baseline": 2},
    "2 top-half, DIP, NAS-DIP": {"top_half": 2, "baseline": 2},
    "all networks": _NETWORKS,
    "classical": _CLASSICAL,
    "2 top-half, DIP, classical": {"top_half": 2, "baseline": 1} | _CLASSICAL,
    "2 top-half, DIP, NAS-DIP, classical": {"top_half": 2, "baseline": 2} | _CLASSICAL,
    "all networks, classical": _NETWORKS | _CLASSICAL,
}
