"""Compare cohorts of recorded members, and selections and combinations of them.

An aggregation is a selection and a combination as a search uses them. Add one to
`AGGREGATIONS`, or a cohort to `COHORTS`, to judge it without new fits. Restorations are
inner products of their errors.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd

from isnas_jax import study
from isnas_jax.benchmark.fits import vectors_with
from isnas_jax.searching import Cohort
from isnas_jax.searching.selection import (
    Combination,
    Stack,
    closest_to_mean,
    lowest_mean_rank,
    lowest_validation,
    selected_only,
    uniform_mean,
)
from isnas_jax.study.intervals import over_images

from .curves import CASE, EXPERIMENTS
from .methods import with_best_classical

LOWEST_VALIDATION = "lowest validation error"
ORACLE = "oracle"
SINGLE = "single member"
LEAST_ADVANTAGE = "least of stack less lowest validation error"
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


def aggregation_table(
    results: pd.DataFrame, cohort_of: Callable[[str], str] = default_cohort
) -> pd.DataFrame:
    """Return one row per aggregation of a cohort: mean PSNR less that of the oracle.

    One column per experiment and split. The last row is the stack's least advantage over the
    member of lowest validation error, over images.

    Args:
      results: See `aggregate`.
      cohort_of: Returns the name of the cohort for an experiment.
    """
    columns = {}
    for (experiment, split), group in results.groupby(["experiment", "split"], sort=False):
        cohort = group[group["cohort"] == cohort_of(experiment)]
        if cohort.empty:
            continue
        psnrs = cohort.pivot_table("psnr", ["image", "seed"], "aggregation", sort=False)
        columns[f"{experiment}, {split}"] = (
            {"oracle, dB": f"{psnrs[ORACLE].mean():.2f}"}
            | {
                aggregation: _mean(psnrs[aggregation] - psnrs[ORACLE])
                for aggregation in psnrs.columns.drop(ORACLE)
            }
            | {LEAST_ADVANTAGE: _least_advantage(psnrs)}
        )
    return pd.DataFrame(columns).rename_axis("aggregation").fillna("")


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
                    row[f"{name}: {LEAST_ADVANTAGE}"] = _least_advantage(values)
                row[f"stack, {folds} less one"] = _mean(several["stack"] - one["stack"])
                rows[f"{experiment}: {cohort}"] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("cohort")


def cohort_tables(results: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the mean PSNR, and the default cohort's stack less this, by heading.

    One row per stack or single member, one column per experiment and split. The last row is the
    best classical restoration of each image.
    """
    results = results[results["aggregation"].isin((SINGLE, "stack"))]
    single = results["aggregation"] == SINGLE
    method = results["cohort"].where(single, results["cohort"] + ": stack")
    psnrs, differences = {}, {}
    by_split = results.assign(method=method).groupby(["experiment", "split"], sort=False)
    for (experiment, split), group in by_split:
        default = f"{default_cohort(experiment)}: stack"
        if default in set(group["method"]):
            table = study.differences(with_best_classical(group, "cohort"), "psnr", default)
            psnrs[f"{experiment}, {split}"] = table["psnr"]
            differences[f"{experiment}, {split}"] = table[f"{default} less this"]
    tables = {"Mean PSNR": psnrs, "The reference cohort less this": differences}
    order = dict.fromkeys(name for column in psnrs.values() for name in column.index)
    return {
        name: pd.DataFrame(columns, index=pd.Index(order, name="method")).fillna("")
        for name, columns in tables.items()
    }


def _mean(differences: pd.Series) -> str:
    table = differences.dropna().rename("dB").reset_index()
    return over_images(table, "dB").shown()


def _least_advantage(psnrs: pd.DataFrame) -> str:
    return f"{(psnrs['stack'] - psnrs[LOWEST_VALIDATION]).min():.2f}"
