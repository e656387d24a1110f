"""What a score is worth: does it rank the architectures of the benchmark?

A score is a number per architecture, image and task; lower is better. It may come from a metric, a
predictor or other images. The tables hold scores in a column each, with the columns "task", "image"
and "architecture". Needs pandas and SciPy.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd

from isnas_jax import _keys
from isnas_jax.benchmark.rows import CURVE_INTERVAL
from isnas_jax.benchmark.table import Benchmark
from isnas_jax.study.intervals import Estimate, estimate, resample

SIZES = (1, 3, 5, 15)  # of the selections that are judged
_SHOWN = ["tau psnr", "tau stop", "precision at 15", "gain at 1", "gain at 5", "stack gain at 3"]
_RANDOM_SELECTIONS = 50
_BRIEF = (20, 50, 100)  # iterations of fits that are controls
INDEX = ["task", "image", "architecture"]


def every_fit(bench: Benchmark) -> pd.DataFrame:
    """Return a table with the columns `INDEX`: each genotype on each image in each task."""
    rows = [
        (task, image, name)
        for task in bench.tasks
        for image, name in itertools.product(bench.images(task), genotypes(bench))
    ]
    return pd.DataFrame(rows, columns=INDEX)


def outcomes(bench: Benchmark) -> pd.DataFrame:
    """Return the PSNR at the blind stop, `psnr`, and the best iteration, `best`, of all fits.

    Rows are genotypes, without baselines, in all tasks and images; values are means over seeds.
    """
    table = every_fit(bench)
    values = [
        (
            bench.truth(name, image, task).psnr,
            bench.truth(name, image, task, at="best").iteration,
        )
        for task, image, name in table.itertuples(index=False, name=None)
    ]
    return table.join(pd.DataFrame(values, columns=["psnr", "best"]))


def genotypes(bench: Benchmark) -> list[str]:
    """Return the architectures that are genotypes."""
    return [name for name in bench if ":" in name]


def transfer_scores(source: Benchmark, target: Benchmark) -> pd.DataFrame:
    """Rank the genotypes of a benchmark by their fits to other images, perhaps of another one.

    Args:
      source: The benchmark with the fits, from which images of the same name are left out.
      target: The benchmark whose genotypes, images and tasks get scores.

    Returns:
      A table with the columns `INDEX`, and "transfer TASK" for each task of the source: minus the
      mean rank of the genotype's PSNR on the images of that task. Tasks without fits of each
      genotype to another image are left out.
    """
    table, known = every_fit(target), outcomes(source)
    known = known[known["architecture"].isin(table["architecture"])]
    ranks = known.groupby(INDEX[:2])["psnr"].rank()
    for task, of_task in known.assign(rank=ranks).groupby("task", sort=False):
        by_image = of_task.pivot(index="architecture", columns="image", values="rank")
        means = {
            image: by_image.drop(columns=image, errors="ignore").mean(axis=1)
            for image in table["image"].unique()
        }
        scores = -pd.concat(means, names=["image"]).rename(f"transfer {task}")
        table = table.join(scores, on=["image", "architecture"])
    return table.dropna(axis="columns")


def control_scores(bench: Benchmark) -> pd.DataFrame:
    """Return scores that follow from the benchmark itself, to compare a metric with.

    Returns:
      The table of `transfer_scores`, which need no metric and are what every predictor has to beat,
      with the columns

      - "operations": of a step.
      - "validation 20", "validation 50", "validation 100": the validation error after so many
        iterations of a fit, if all fits have as many.
    """
    table = transfer_scores(bench, bench)
    fits = list(table[["architecture", "image", "task"]].itertuples(index=False, name=None))
    controls: dict[str, Any] = {"operations": [bench.cost(*fit).operations for fit in fits]}
    curves = [bench.curve(*fit) for fit in fits]
    for iteration in _BRIEF:
        index = iteration // CURVE_INTERVAL
        if all(index < len(curve) for curve in curves):
            controls[f"validation {iteration}"] = [curve[index] for curve in curves]
    return table.assign(**controls)


def leaderboard(
    bench: Benchmark, scores: pd.DataFrame, *, key: jax.Array, resamples: int = 1000
) -> pd.DataFrame:
    """Judge scores by the architectures that they rank first.

    Args:
      bench: The benchmark.
      scores: A table of scores; see the module's docstring.
      key: Random key of the random selections and of the bootstrap.
      resamples: Number of bootstrap samples of the images.

    Returns:
      A row per task, score and quantity, with the mean over images as `value` and its 95 % interval
      over images, `low` and `high`. The quantities are

      - "tau psnr": Kendall's tau of -score and PSNR at the blind stop; 1 is a perfect ranking.
      - "tau stop": Kendall's tau of score and best iteration.
      - "precision at 15": the fraction of the 15 best scores among the 15 highest PSNRs.
      - "gain at K": PSNR in dB of the best K by score, of which the lowest validation error is
        chosen, less the mean of K at random.
      - "stack gain at K": the same of the stacks of all K.
      - "agreement": Kendall's tau of the scores of two images, averaged over pairs of images; nan
        for a single image.

    Raises:
      ValueError: If a score is nan.
    """
    truth = outcomes(bench).set_index(INDEX)
    if (unknown := scores.columns[scores.isna().any()]).size:
        raise ValueError(f"score {unknown[0]!r} is nan for some architectures")
    select_key, bootstrap_key = jax.random.split(key)
    names = [name for name in scores if name not in INDEX]
    rows = []
    for task, of_task in scores.groupby("task", sort=False):
        quantities: dict[tuple[str, str], list[float]] = {}
        for image, of_image in of_task.groupby("image", sort=False):
            table = of_image.join(truth, on=INDEX).reset_index(drop=True)
            image_key = _keys.fold_in_names(jax.random.clone(select_key), task, image)
            control = _random_selections(bench, image_key, table)
            for name in names:
                for quantity, value in _judge(bench, table, name, control).items():
                    quantities.setdefault((name, quantity), []).append(value)
        counts = resample(jax.random.clone(bootstrap_key), of_task["image"].nunique(), resamples)
        for (name, quantity), values in quantities.items():
            means = counts @ np.array(values) / counts.sum(axis=1)
            rows.append((task, name, quantity, *estimate(means)))
        for name in names:
            rows.append((task, name, "agreement", agreement(of_task, name), np.nan, np.nan))
    return pd.DataFrame(rows, columns=["task", "score", "quantity", "value", "low", "high"])


def leaderboard_of(quantities: pd.DataFrame, task: str) -> pd.DataFrame:
    """Return a task's table of a leaderboard: a row per score, the best ranking first."""
    of_task = quantities[quantities["task"] == task]
    shown = {
        name: [Estimate(*row).shown() for row in rows[["value", "low", "high"]].to_numpy()]
        for name, rows in of_task.groupby("quantity")
    }
    order = of_task[of_task["quantity"] == "tau psnr"].set_index("score")["value"]
    table = pd.DataFrame({name: shown[name] for name in _SHOWN}, index=order.index)
    return table.loc[order.sort_values(ascending=False).index]


def _judge(
    bench: Benchmark, table: pd.DataFrame, score: str, control: Mapping[tuple[str, int], float]
) -> dict[str, float]:
    """Return the quantities of a score on one image."""
    from scipy.stats import kendalltau

    task, image = table.at[0, "task"], table.at[0, "image"]
    best_first = table.sort_values(score, kind="stable")["architecture"].tolist()
    highest = set(table.nlargest(15, "psnr")["architecture"])
    result = {
        "tau psnr": kendalltau(-table[score], table["psnr"]).statistic,
        "tau stop": kendalltau(table[score], table["best"]).statistic,
        "precision at 15": len(highest & set(best_first[:15])) / 15,
    }
    for size in SIZES:
        single, stack = restore(bench, best_first[:size], image, task)
        result[f"gain at {size}"] = single - control["single", size]
        result[f"stack gain at {size}"] = stack - control["stack", size]
    return result


def restore(bench: Benchmark, members: Sequence[str], image: str, task: str) -> tuple[float, float]:
    """Return the PSNR of the member with the lowest validation error, and that of the stack."""
    errors = [bench.query(member, image, task).validation for member in members]
    single = bench.truth(members[int(np.argmin(errors))], image, task).psnr
    return single, bench.truth_stack(members, image, task)


def _random_selections(
    bench: Benchmark, key: jax.Array, table: pd.DataFrame
) -> dict[tuple[str, int], float]:
    """Return the mean PSNR of random selections of one image, single and stacked, by size."""
    task, image = table.at[0, "task"], table.at[0, "image"]
    names = table["architecture"].to_numpy()
    orders = [
        np.asarray(jax.random.permutation(each, len(names)))
        for each in jax.random.split(key, _RANDOM_SELECTIONS)
    ]
    result = {}
    for size in SIZES:
        values = [restore(bench, names[order[:size]], image, task) for order in orders]
        result["single", size], result["stack", size] = np.mean(values, axis=0).tolist()
    return result


def agreement(table: pd.DataFrame, column: str) -> float:
    """Return Kendall's tau of a column between two images, averaged over pairs of images."""
    from scipy.stats import kendalltau

    by_image = table.pivot_table(column, "architecture", "image")
    pairs = list(itertools.combinations(by_image, 2))
    taus = [kendalltau(by_image[a], by_image[b]).statistic for a, b in pairs]
    return float(np.mean(taus)) if pairs else np.nan
