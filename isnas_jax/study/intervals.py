"""Estimates with bootstrap intervals. Needs pandas."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd


class Estimate(NamedTuple):
    """A value with its 95 % bootstrap interval (percentiles)."""

    value: float
    low: float
    high: float

    def shown(self, digits: int = 2) -> str:
        """As a table shows it; empty where there is none, alone without an interval."""
        value, low, high = (f"{number:.{digits}f}" for number in self)
        if np.isnan(self.low):
            return "" if np.isnan(self.value) else value
        return f"{value} ({low} to {high})"


def estimate(replicates: np.ndarray) -> Estimate:
    """From (1 + R,): the value from the data as they are, then from R resamples."""
    if np.isnan(replicates[0]):
        return Estimate(np.nan, np.nan, np.nan)
    low, high = np.nanpercentile(replicates[1:], (2.5, 97.5))
    return Estimate(float(replicates[0]), float(low), float(high))


def resample(key: jax.Array, items: int, resamples: int) -> np.ndarray:
    """How often each item is drawn, (1 + R, items): once each, then R bootstrap samples."""
    drawn = np.asarray(jax.random.randint(key, (resamples, items), 0, items))
    counts = np.zeros((1 + resamples, items))
    counts[0] = 1
    np.add.at(counts, (np.arange(1, 1 + resamples)[:, None], drawn), 1)
    return counts


def over_images(
    table: pd.DataFrame,
    column: str,
    statistic: Callable[[np.ndarray], float] = np.mean,
    *,
    resamples: int = 1000,
) -> Estimate:
    """A statistic of a column, images being drawn anew with all their rows.

    One image has no interval.

    Args:
      table: With a column `image`.
      column: Its name.
      statistic: From the column's values to a number.
      resamples: How many; the draw is the same in every call.
    """
    groups = [group[column].to_numpy() for _, group in table.groupby("image")]
    if len(groups) < 2:
        return Estimate(float(statistic(table[column].to_numpy())), np.nan, np.nan)
    counts = resample(jax.random.key(0), len(groups), resamples).astype(int)
    drawn = (
        np.concatenate([group for group, n in zip(groups, row, strict=True) for _ in range(n)])
        for row in counts
    )
    return estimate(np.array([statistic(values) for values in drawn]))
