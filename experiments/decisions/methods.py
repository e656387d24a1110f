"""Compare the methods that `experiments.compare` ran, from its `runs.csv`."""

from collections.abc import Mapping

import pandas as pd

from isnas_jax import study
from isnas_jax.registries import CLASSICAL

BEST_CLASSICAL = "the best classical"
# BM3D is registered only where its package is installed; recorded results have it anywhere.
_CLASSICAL = {*CLASSICAL, "BM3D"}


def with_best_classical(results: pd.DataFrame, column: str) -> pd.DataFrame:
    """Append the best classical restoration of each image and seed as another method.

    Results have the columns image, seed and psnr, and one that names classical restorations.
    """
    classical = results[results[column].isin(_CLASSICAL)]
    best = classical.groupby(["image", "seed"], as_index=False)["psnr"].max()
    return pd.concat([results, best.assign(method=BEST_CLASSICAL)])


def method_tables(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return a table per task, with one row per method.

    Columns are the number of runs, mean PSNR and SSIM, and the paired differences in dB of
    ISNAS-DIP and ISNAS-DIP+ (with classical members) less this method.
    """
    tables = {}
    for task, group in runs.groupby("task", sort=False):
        both = with_best_classical(group, "method")
        table = study.differences(both, "psnr", "ISNAS-DIP")
        with_classical = study.differences(both, "psnr", "ISNAS-DIP+")
        ssim = group.groupby("method")["ssim"].mean().map("{:.3f}".format)
        table.insert(0, "runs", both.groupby("method").size())
        table.insert(2, "ssim", ssim.reindex(table.index).fillna(""))
        tables[str(task).replace("_", "-")] = table.join(with_classical.drop(columns="psnr"))
    return tables


def overview(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the PSNR and the difference to ISNAS-DIP of `method_tables` in one table."""
    columns = {}
    for task, table in tables.items():
        table = table.drop(index=list(_CLASSICAL), errors="ignore")
        columns[f"{task}: PSNR"] = table["psnr"]
        columns[f"{task}: ISNAS-DIP less this"] = table["ISNAS-DIP less this"]
    order = next(iter(tables.values())).index
    combined = pd.DataFrame(columns).rename_axis("method")
    return combined.loc[[name for name in order if name in combined.index]]
