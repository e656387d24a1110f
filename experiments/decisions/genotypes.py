"""What training-free scores predict, and which genotypes to fit, from recorded fits."""

import itertools
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pandas as pd
import scipy.stats

from isnas_jax.study.intervals import over_images

from .aggregation import (
    AGGREGATIONS,
    COHORTS,
    MAX_MEMBERS,
    default_cohort,
    names_of_origins,
    recorded_cohort,
)
from .curves import ALL, CASE, CURVE_INTERVAL

_PSNRS = {"psnr_ema": "EMA", "psnr_debiased": "bias-corrected EMA", "psnr": "output"}


def score_table(curves: pd.DataFrame) -> pd.DataFrame:
    """Return one row per experiment and kind of restoration: what the score predicts.

    Kendall's tau between score and best PSNR over an image's genotypes, and the mean best
    PSNR of the top genotypes less that of the random ones, in dB; means over images.
    """
    genotypes = curves[(curves["fitted_to"] == ALL) & (curves["origin"] != "baseline")]
    rows = {}
    for experiment, fits in genotypes.groupby("experiment", sort=False):
        if not {"top", "random"} <= set(fits["origin"]):
            continue
        for curve, label in _PSNRS.items():
            fits = fits.assign(best=[psnrs.max() for psnrs in fits[curve]])
            by_image = []
            for (image, _), group in fits.groupby(["image", "seed"]):
                tau = scipy.stats.kendalltau(group["score"], group["best"]).statistic
                best = group.groupby("origin")["best"].mean()
                gain = best["top"] - best["random"]
                by_image.append({"image": image, "tau": tau, "gain": gain})
            table = pd.DataFrame(by_image)
            rows[f"{experiment}, {label}"] = {
                "Kendall's τ of score and best PSNR": over_images(table, "tau").shown(),
                "top less random, dB": over_images(table, "gain").shown(),
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("restoration")


Choice: TypeAlias = Callable[[pd.DataFrame], list[list[str]]]


def random(number: int) -> Choice:
    """Choose every combination of so many genotypes."""
    return lambda pool: [list(names) for names in itertools.combinations(pool.index, number)]


def lowest(column: str) -> Choice:
    """Choose the two genotypes with the lowest values of a column."""
    return lambda pool: [list(pool[column].nsmallest(2).index)]


# Choices of genotypes to fit, from a table of a case's random ones with their score and their
# lowest validation error within some iterations. The PSNR of several outcomes is their mean.
CHOICES: dict[str, Choice] = {
    "2 random": random(2),
    "2 top-half by score": lowest("score"),
    "2 of lowest error after 100 iterations": lowest("100 iterations"),
    "2 of lowest error after 200 iterations": lowest("200 iterations"),
    "none": random(0),
    "1 random": random(1),
    "3 random": random(3),
    "all": lambda pool: [list(pool.index)],
}


def choice_table(curves: pd.DataFrame, members: pd.DataFrame) -> pd.DataFrame:
    """Return one row per choice of genotypes, one column per experiment and split.

    Values are dB above two random genotypes. All are stacked with the named networks of
    the default cohort.
    """
    errors = curves.set_index([*CASE, "fitted_to", "architecture"])["validation"]
    columns = {}
    one_split = members[~members["split"].str.contains("folds")]
    for (experiment, split), group in one_split.groupby(["experiment", "split"], sort=False):
        number = COHORTS[default_cohort(experiment)]["baseline"]
        rows = []
        for row in group.to_dict("records"):
            names = names_of_origins(row, random=MAX_MEMBERS)
            if len(names) < 2:
                continue
            pool = pd.DataFrame({"score": pd.Series(row["scores"], row["names"])[names]})
            fitted = [errors[(*(row[name] for name in CASE), split, name)] for name in names]
            for end in (100, 200):
                lowest_errors = [np.nanmin(curve[: end // CURVE_INTERVAL + 1]) for curve in fitted]
                pool[f"{end} iterations"] = lowest_errors
            named = names_of_origins(row, baseline=number)
            psnrs = {
                label: mean_psnr(row, choose(pool), named) for label, choose in CHOICES.items()
            }
            gains = {label: psnr - psnrs["2 random"] for label, psnr in psnrs.items()}
            rows.append({"image": row["image"], **gains})
        if rows:
            table = pd.DataFrame(rows)
            columns[f"{experiment}, {split}"] = {
                label: over_images(table, label).shown() for label in CHOICES if label != "2 random"
            }
    return pd.DataFrame(columns).rename_axis("genotypes")


def mean_psnr(row: dict, choices: list[list[str]], named: list[str]) -> float:
    """Return the mean PSNR in dB of stacks of chosen genotypes and named networks."""
    stack = AGGREGATIONS["stack"]
    psnrs = [stack.psnr(recorded_cohort(row, names + named)) for names in choices]
    return sum(psnrs) / len(psnrs) if psnrs else np.nan
