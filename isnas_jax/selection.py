"""Choosing among candidates, by scores and outputs alone; lower scores are better."""

import jax
import numpy as np


def best_by_score(scores: np.ndarray, num: int) -> np.ndarray:
    """Indices of the num lowest scores (N,), best first; equal ones in their order."""
    scores = np.asarray(scores)
    if not 1 <= num <= len(scores):
        raise ValueError(
            f"a cohort of {num} from {len(scores)} candidates: 1 to {len(scores)} can be"
        )
    if not np.isfinite(scores).all():
        raise ValueError(
            f"candidate {int(np.argmin(np.isfinite(scores)))} has a score that is not finite"
        )
    return np.argsort(scores, kind="stable")[:num]


def at_random(key: jax.Array, candidates: int, num: int) -> np.ndarray:
    """Indices of num different candidates, drawn without looking: the control."""
    if not 1 <= num <= candidates:
        raise ValueError(
            f"a cohort of {num} from {candidates} candidates: 1 to {candidates} can be"
        )
    return np.asarray(jax.random.permutation(key, candidates)[:num])


def metric_weights(scores: np.ndarray) -> np.ndarray:
    """Weights (N,) that fall linearly with the score and add up to 1.

    The paper's are max - score, which leaves the worst without a voice and is
    0/0 when all are equal. Here everyone gets the cohort's mean step
    (max - min) / (N - 1) on top, and equal scores get equal weights.
    """
    scores = np.asarray(scores, np.float64)
    extent = np.ptp(scores)
    if extent == 0:
        return np.full(len(scores), 1 / len(scores))
    weights = scores.max() - scores + extent / (len(scores) - 1)
    return weights / weights.sum()


def weighted_mean(images: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean (H, W, C) of images (N, H, W, C) with weights (N,)."""
    return np.tensordot(weights, images, axes=1).astype(np.float32)


def closest(images: np.ndarray, reference: np.ndarray) -> int:
    """Index of the image with the least mean squared error to a reference, the first of equals."""
    return int(np.square(images - reference).mean(axis=(1, 2, 3)).argmin())
