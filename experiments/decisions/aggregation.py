"""Compare selections and combinations on recorded cohorts.

An aggregation is a selection and a combination as a search uses them. Add one to
`AGGREGATIONS`, or a cohort to `cohorts.COHORTS`, to judge it without new fits.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from isnas_jax import study
from isnas_jax.searching.combination import Combination, Stack, selected_only, uniform_mean
from isnas_jax.searching.selection import closest_to_mean, lowest_mean_rank, lowest_validation
from isnas_jax.study.intervals import over_images

from .cohorts import (
    COHORTS,
    MAX_MEMBERS,
    RecordedCohort,
    default_cohort,
    names_of_origins,
    recorded_cohort,
)
from .gather import CASE
from .methods import with_best_classical

LOWEST_VALIDATION = "lowest validation error"
ORACLE = "oracle"
SINGLE = "single member"


class Aggregation(NamedTuple):
    """A selection of one member and a combination of all."""

    select: Callable[[RecordedCohort], int]
    combine: Combination = selected_only
    needs_scores: bool = False

    def psnr(self, cohort: RecordedCohort) -> float:
        """Return the PSNR of the restoration in dB."""
        return cohort.psnr(self.combine(cohort, self.select(cohort)))


AGGREGATIONS: dict[str, Aggregation] = {
    "stack": Aggregation(lowest_validation, Stack()),
    "stack, ridge 0.002": Aggregation(lowest_validation, Stack(0.002)),
    "stack, no ridge": Aggregation(lowest_validation, Stack(0.0)),
    "mean": Aggregation(lowest_validation, uniform_mean),
    LOWEST_VALIDATION: Aggregation(lowest_validation),
    "ranks of validation error and score": Aggregation(lowest_mean_rank, needs_scores=True),
    "closest to the mean by score": Aggregation(closest_to_mean, needs_scores=True),
    "lowest score": Aggregation(lambda cohort: int(cohort.scores.argmin()), needs_scores=True),
    ORACLE: Aggregation(lambda cohort: int(np.diag(cohort.error_products).argmin())),
}


def cohorts_of(row: dict) -> Iterator[tuple[str, RecordedCohort]]:
    """Yield the cohorts with at least two members for which a row has all members."""
    for name, numbers in COHORTS.items():
        names = names_of_origins(row, **numbers)
        needed = sum(number for number in numbers.values() if number < MAX_MEMBERS)
        # Only the members of the default's cohort were fitted to all folds.
        one_fold_only = "folds" in row["split"] and numbers.keys() & {"top", "random"}
        if len(names) >= max(2, needed) and not one_fold_only:
            yield name, recorded_cohort(row, names)


def aggregate(members: pd.DataFrame) -> pd.DataFrame:
    """Return the PSNR in dB of every aggregation of every cohort.

    One row per case, split, cohort and aggregation; the baselines and classical
    restorations on their own follow as `SINGLE`.
    """
    rows = []
    for row in members.to_dict("records"):
        key = {name: row[name] for name in (*CASE, "split")}
        for name, cohort in cohorts_of(row):
            scored = np.isfinite(cohort.scores).all()
            rows += [
                key | {"cohort": name, "aggregation": label, "psnr": aggregation.psnr(cohort)}
                for label, aggregation in AGGREGATIONS.items()
                if scored or not aggregation.needs_scores
            ]
        everything = recorded_cohort(row, list(row["names"]))
        one_hot = np.eye(len(row["names"]))
        rows += [
            key | {"cohort": name, "aggregation": SINGLE, "psnr": everything.psnr(weights)}
            for name, origin, weights in zip(row["names"], row["origins"], one_hot, strict=True)
            if origin in ("baseline", "classical")
        ]
    return pd.DataFrame(rows)


def aggregation_table(results: pd.DataFrame) -> pd.DataFrame:
    """Return one row per cohort of a split: mean PSNR less that of the oracle, by aggregation."""
    rows = {}
    results = results[results["aggregation"] != SINGLE]
    for cohort, group in results.groupby("cohort", sort=False):
        psnrs = group.pivot_table("psnr", ["image", "seed"], "aggregation", sort=False)
        row = {"oracle, dB": f"{psnrs[ORACLE].mean():.2f}"}
        for aggregation in psnrs.columns.drop(ORACLE):
            row[aggregation] = _mean(psnrs[aggregation] - psnrs[ORACLE])
        row["least of stack less lowest validation error"] = _least_advantage(psnrs)
        rows[cohort] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("cohort").fillna("")


def folds_table(results: pd.DataFrame) -> pd.DataFrame:
    """Return one row per experiment and cohort: aggregation by several folds and by the first."""
    rows = {}
    for experiment, group in results.groupby("experiment", sort=False):
        for split in group["split"].unique():
            first, _, folds = split.partition(", ")
            for cohort in (default_cohort(experiment), f"{default_cohort(experiment)}, classical"):
                psnrs = group[group["cohort"] == cohort].pivot_table(
                    "psnr", ["image", "seed"], ["split", "aggregation"]
                )
                if not folds or split not in psnrs or first not in psnrs:
                    continue
                several = psnrs[split].dropna()
                one = psnrs[first].loc[several.index]
                row = {}
                for name, values in ((first, one), (folds, several)):
                    selected = values[LOWEST_VALIDATION] - values[ORACLE]
                    row[f"{name}: lowest validation error less oracle"] = _mean(selected)
                    row[f"{name}: stack less oracle"] = _mean(values["stack"] - values[ORACLE])
                    least = f"{name}: least of stack less lowest validation error"
                    row[least] = _least_advantage(values)
                row[f"stack, {folds} less one"] = _mean(several["stack"] - one["stack"])
                rows[f"{experiment}: {cohort}"] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("cohort")


def cohort_table(results: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """Return one row per stack or single member of a split: mean PSNR and paired difference.

    The difference is that of the default cohort's stack less this one. The last row is
    the best classical restoration of each image.
    """
    results = results[results["aggregation"].isin((SINGLE, "stack"))]
    single = results["aggregation"] == SINGLE
    method = results["cohort"].where(single, results["cohort"] + ": stack")
    both = with_best_classical(results.assign(method=method), "cohort")
    return study.differences(both, "psnr", f"{default_cohort(experiment)}: stack")


def _mean(differences: pd.Series) -> str:
    table = differences.dropna().rename("dB").reset_index()
    return over_images(table, "dB").shown()


def _least_advantage(psnrs: pd.DataFrame) -> str:
    return f"{(psnrs['stack'] - psnrs[LOWEST_VALIDATION]).min():.2f}"
