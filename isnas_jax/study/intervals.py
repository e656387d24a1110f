"""Estimates with bootstrap intervals. Needs pandas."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd


class Estimate(NamedTuple):
    """A value with its 95 % percentile bootstrap interval; nan where there is none."""

    value: float
    low: float
    high: float

    def shown(self, digits: int = 2) -> str:
        """Format as "value (low to high)", "value" without an interval, "" without both."""
        value, low, high = (f"{number:.{digits}f}" for number in self)
        if np.isnan(self.low):
            return "" if np.isnan(self.value) else value
        return f"{value} ({low} to {high})"


def estimate(replicates: np.ndarray) -> Estimate:
    """Return the estimate of (1 + R,) replicates: of the data, then of R bootstrap samples."""
    if np.isnan(replicates[0]):
        return Estimate(np.nan, np.nan, np.nan)
    low, high = np.nanpercentile(replicates[1:], (2.5, 97.5))
    return Estimate(float(replicates[0]), float(low), float(high))


def resample(key: jax.Array, items: int, resamples: int) -> np.ndarray:
    """Return how often each item is drawn, (1 + R, items): once, then by R bootstrap samples."""
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
    """Estimate a statistic of a column with a bootstrap over images; each keeps all its rows.

    A single image has no interval.

    Args:
      table: A table with a column `image`.
      column: The name of the column.
      statistic: Maps the column's values to a number.
      resamples: Number of bootstrap samples, which are the same in every call.
    """
    groups = [group[column].to_numpy() for _, group in table.groupby("image")]
    if len(groups) < 2:
        return Estimate(float(statistic(table[column].to_numpy())), np.nan, np.nan)
    counts = resample(jax.random.key(0), len(groups), resamples).astype(int)
    drawn = (
        np.concatenate([np.tile(group, times) for group, times in zip(groups, row, strict=True)])
        for row in counts
    )
    return estimate(np.array([statistic(values) for values in drawn]))
