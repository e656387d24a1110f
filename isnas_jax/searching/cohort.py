"""The cohort: which scored candidates to fit, and their fits.

A cohort selection is a function (key, candidates, size) -> indices of the candidates, best first.
Images are float32 (H, W, C) in [0, 1].
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from isnas_jax.fitting import Fit
from isnas_jax.ops import quality
from isnas_jax.problems import Problem, Proxy, denoising
from isnas_jax.searching.strategies import Candidates

CohortSelection: TypeAlias = Callable[[jax.Array, Candidates, int], np.ndarray]


class Fold(NamedTuple):
    """The training problem of one split, and the restorations (M, H, W, C) of M members.

    `validation` is None without a split, and the fit of a classical restoration is None.
    """

    problem: Problem
    validation: Problem | None
    images: np.ndarray
    fits: Sequence[Fit | None]


@dataclasses.dataclass(frozen=True)
class Cohort:
    """M members that restored a problem: fitted candidates, then extra members.

    Attributes:
      members: Genotypes in the order of their selection, baselines and classical restorations.
      scores: (M,) of the metric, lower is better; nan for members without a score.
      problem: The whole problem, or its proxy.
      folds: The restorations for each split.
    """

    members: Sequence[Any]
    scores: np.ndarray
    problem: Problem
    folds: Sequence[Fold]

    @functools.cached_property
    def images(self) -> np.ndarray:
        """(M, H, W, C), the restorations, averaged over the folds."""
        return np.mean([fold.images for fold in self.folds], axis=0)

    def fits(self, index: int) -> list[Fit]:
        """Return a member's fits by fold; none for a classical restoration."""
        return [fit for fold in self.folds if (fit := fold.fits[index])]

    @functools.cached_property
    def residuals(self) -> np.ndarray:
        """(M, P), weighted residuals of the validation measurements; ValueError without a split.

        The sum of their squares is the validation error, averaged over the folds. For a linear
        operator, a weighted mean of images has the weighted mean of these residuals.
        """
        residuals = []
        for fold in self.folds:
            if fold.validation is None:
                raise ValueError("validation errors need a split")
            observed = np.asarray(fold.validation.observed)
            weights = np.broadcast_to(fold.validation.weights, observed.shape)
            predicted = np.stack([fold.validation.operator(image) for image in fold.images])
            scale = np.sqrt(weights / weights.sum() / len(self.folds))
            residuals.append((scale * (predicted - observed))[:, weights > 0])
        return np.concatenate(residuals, axis=1)

    @property
    def errors(self) -> np.ndarray:
        """(M,) validation errors; ValueError without a split."""
        return np.square(self.residuals).sum(axis=1)


def check_size(size: int, candidates: int) -> None:
    """Raise ValueError unless so many can be chosen from the candidates."""
    if not 1 <= size <= candidates:
        raise ValueError(
            f"a cohort of {size} from {candidates} candidates is impossible; "
            f"choose 1 to {candidates}"
        )


def lowest(scores: np.ndarray, size: int) -> np.ndarray:
    """Return the indices of the lowest of (N,) scores, best first; equal ones keep their order."""
    scores = np.asarray(scores)
    check_size(size, len(scores))
    if not np.isfinite(scores).all():
        raise ValueError(
            f"candidate {int(np.argmin(np.isfinite(scores)))} has a score that is not finite"
        )
    return np.argsort(scores, kind="stable")[:size]


def top_k(key: jax.Array, candidates: Candidates, size: int) -> np.ndarray:
    """Select the candidates with the best scores, as the paper does.

    >>> candidates = isnas.Candidates(["a", "b", "c"], np.array([[3.0], [1.0], [2.0]]))
    >>> isnas.top_k(jax.random.key(0), candidates, 2).tolist()
    [1, 2]
    """
    del key
    return lowest(candidates.means, size)


def top_half(key: jax.Array, candidates: Candidates, size: int) -> np.ndarray:
    """Select at random from the better half by score; the best of them come first.

    The best scores belong to networks that resemble each other and are slow to fit, the worst
    scores to networks that restore badly.
    """
    half = lowest(candidates.means, max(size, -(-len(candidates.genotypes) // 2)))
    return half[np.sort(jax.random.permutation(key, len(half))[:size])]


def random_subset(key: jax.Array, candidates: Candidates, size: int) -> np.ndarray:
    """Select at random, whatever the scores: the control."""
    check_size(size, len(candidates.genotypes))
    return np.asarray(jax.random.permutation(key, len(candidates.genotypes))[:size])


def oracle(cohort: Cohort, problem: Problem, proxy: Proxy | None, clean: Any) -> list[float] | None:
    """Return the PSNR in dB of what every member of a cohort restored.

    The best of them is the choice of an oracle. The proxy is applied to the clean image too. None
    if observation and image differ in size and the proxy cropped them differently.
    """
    reference = proxy(denoising(clean)).observed if proxy else denoising(clean).observed
    if reference.shape != cohort.problem.shape or (
        problem.observed.shape != problem.shape and cohort.problem.shape != problem.shape
    ):
        return None
    return [float(quality.psnr(image, reference)) for image in cohort.images]
