"""Comparing methods on images and seeds: the paper's comparison table.

A method is a function (key, problem, config, *, folder, progress) -> image (H, W, C). `methods`
returns those of the library for a task. Needs pandas.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from isnas_jax.fitting import FitConfig, WindowedVariance
from isnas_jax.io import cache
from isnas_jax.networks import Baseline, dip, nas_dip
from isnas_jax.ops import quality
from isnas_jax.problems import classical
from isnas_jax.registries import CLASSICAL
from isnas_jax.running import Event, Progress, Runner, Threads, ignore
from isnas_jax.searching import (
    Config,
    Portfolio,
    RandomSearch,
    closest_to_mean,
    has_scores,
    presets,
    random_subset,
    restore,
    search,
    selected_only,
    top_k,
)
from isnas_jax.study.intervals import over_images
from isnas_jax.study.units import Case, key_of

# Genotypes that methods score in place of a portfolio.
_SCORED = 8

Method: TypeAlias = Callable[..., np.ndarray]

# Each method is a job, so that its own jobs run one after another.
_single_thread = functools.partial(Threads, workers=1)


def _restore_by_network(key, problem, config, *, architecture, folder, progress):
    options = {"folder": folder, "progress": progress, "runner": _single_thread}
    return restore(key, problem, architecture, config, **options).restored


def _restore_without_network(key, problem, config, *, method, folder, progress):
    del key, config, folder, progress
    return classical.restore(method, problem)


@dataclasses.dataclass(frozen=True)
class SearchMethod:
    """Restore with a search; `change` maps the common config to that of the method."""

    change: Callable[[Config], Config]

    def __call__(self, key, problem, config, *, folder, progress):
        options = {"folder": folder, "progress": progress, "runner": _single_thread}
        return search(key, problem, self.change(config), **options).restored


def replace_search(config: Config, **changes: Any) -> Config:
    """Return a config with other fields of its search."""
    return dataclasses.replace(config, search=dataclasses.replace(config.search, **changes))


def _scored(config: Config, **changes: Any) -> Config:
    """Return a config with other fields of its search, which scores genotypes."""
    if not has_scores(config.search.strategy):
        changes["strategy"] = RandomSearch(max(_SCORED, config.search.cohort))
    return replace_search(config, **changes)


def as_published(config: Config) -> Config:
    """Return a config with the decisions of the paper, at the size of the given one.

    As many genotypes as the cohort has networks, those of the best scores, are fitted to all
    measurements and stopped by ES-WMV. The one closest to their weighted mean is returned, with
    the moving average of equation 4.
    """

    def published_fit(fit: FitConfig) -> FitConfig:
        return dataclasses.replace(fit, stopping=WindowedVariance(), split=None, debias=False)

    search = config.search
    networks = search.cohort + sum(isinstance(m, Baseline) for m in search.extra_members)
    changed = _scored(
        config,
        cohort=min(networks, getattr(search.strategy, "num", networks)),
        extra_members=(),
        cohort_selection=top_k,
        selection=closest_to_mean,
        combination=selected_only,
        fit=published_fit(search.fit) if search.fit else None,
    )
    return dataclasses.replace(changed, fit=published_fit(config.fit))


def methods(task: str, config: Config) -> dict[str, Method]:
    """Return the methods for a task by name.

    "ISNAS-DIP" is the search of the config; if that has a portfolio, it scores 8 random genotypes
    instead, and "portfolio" is the search of the config. "as published" takes the decisions of the
    paper. metric-N and random-N are ISNAS-DIP with the N genotypes of the best scores, or N random
    ones. With a split, ISNAS-DIP+ adds the classical restorations to the cohort.
    """
    number = config.search.cohort
    classics = {name: entry for name, entry in CLASSICAL.items() if entry.task == task}
    result: dict[str, Method] = {
        "DIP": functools.partial(_restore_by_network, architecture=dip),
        "NAS-DIP": functools.partial(_restore_by_network, architecture=nas_dip),
        "as published": SearchMethod(as_published),
        "ISNAS-DIP": SearchMethod(_scored),
    }
    if isinstance(config.search.strategy, Portfolio):
        result["portfolio"] = SearchMethod(replace_search)
    for name, selection in (("metric", top_k), ("random", random_subset)):
        change = functools.partial(_scored, cohort_selection=selection)
        result[f"{name}-{number}"] = SearchMethod(change)
    if config.cohort_fit.split:
        members = tuple(dict.fromkeys((*config.search.extra_members, *classics.values())))
        change = functools.partial(_scored, extra_members=members)
        result["ISNAS-DIP+"] = SearchMethod(change)
    return result | {
        name: functools.partial(_restore_without_network, method=entry)
        for name, entry in classics.items()
    }


def compare(
    compared: Mapping[str, Method],
    cases: Iterable[tuple[int, Case]],
    config: Config | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress = ignore,
    runner: Runner = Threads,
) -> tuple[pd.DataFrame, dict[tuple[str, str, int], np.ndarray]]:
    """Restore every case by every method.

    Args:
      compared: Methods by name.
      cases: Seeds with their cases.
      config: The config; by default `presets.quick`.
      folder: Caches restorations and fits.
      progress: Takes events with the stages ("method", image, seed, name, ...), perhaps in other
        threads, and ("compared",) with the number of finished restorations.
      runner: Runs the jobs.

    Returns:
      A row per method, image and seed with task, psnr (dB), psnr_y and ssim; and the restorations
      (H, W, C) by method, image and seed.
    """
    rows, restored, cases = [], {}, list(cases)
    total = len(compared) * len(cases)
    progress(Event(("compared",), 0, total))
    with runner(progress) as pool:
        shared = [(seed, case, pool.broadcast(case)) for seed, case in cases]
        common = pool.broadcast((config, folder))
        futures = [
            (name, seed, case, pool.submit(_measure, name, method, seed, reference, common))
            for name, method in compared.items()
            for seed, case, reference in shared
        ]
        for name, seed, case, future in futures:
            restored[name, case.image, seed], values = future.result()
            row = {"task": case.task, "image": case.image, "seed": seed, "method": name}
            rows.append(row | values)
            progress(Event(("compared",), len(rows), total))
    return pd.DataFrame(rows), restored


def _measure(
    progress: Progress,
    name: str,
    method: Method,
    seed: int,
    case: Case,
    common: tuple[Config | None, str | os.PathLike[str] | None],
) -> tuple[np.ndarray, dict[str, float]]:
    """Restore a case by a method and evaluate it, as a job.

    All methods have the same key, so that methods which only select differently are paired.
    """
    config, folder = common
    inputs = {
        "method": method,
        "key": key_of(seed, "compare", case.image, case.task),
        "problem": case.problem,
        "config": config or presets.quick(case.problem),
    }

    def report(event: Event) -> None:
        if event.image is None:
            progress(event._replace(stage=("method", case.image, seed, name, *event.stage)))

    def compute():
        arguments = inputs["key"], case.problem, inputs["config"]
        return {"restored": np.asarray(method(*arguments, folder=folder, progress=report))}

    file = cache.cache_path(folder, "restored", inputs) if folder else None
    restored = cache.cached(file, inputs, compute)["restored"]
    return restored, quality.report(restored, case.clean)


def summary(runs: pd.DataFrame, quality: str, digits: int) -> pd.DataFrame:
    """Return means and standard errors over seeds: methods by images, then all images."""
    # The mean over images is taken within a seed, because the standard error is over seeds.
    overall = runs.groupby(["method", "seed"], as_index=False)[quality].mean()
    both = pd.concat([runs, overall.assign(image="all")])

    def cell(values: pd.Series) -> str:
        error = f" ± {values.sem():.{digits}f}" if len(values) > 1 else ""
        return f"{values.mean():.{digits}f}{error}"

    cells = both.groupby(["method", "image"])[quality].agg(cell).unstack()
    return cells.loc[runs["method"].unique(), [*runs["image"].unique(), "all"]]


def differences(runs: pd.DataFrame, quality: str, reference: str, digits: int = 2) -> pd.DataFrame:
    """Return the mean of each method, and the paired advantage of a reference method.

    Intervals are 95 % bootstrap over images; the seeds of an image stay together. Only images and
    seeds of both methods count.
    """
    indexed = runs.set_index(["image", "seed"])
    of_reference = indexed[indexed["method"] == reference][quality]
    rows = {}
    for name, group in indexed.groupby("method", sort=False):
        both = of_reference.index.intersection(group.index)
        advantage = (of_reference[both] - group[quality][both]).rename("advantage").reset_index()
        rows[name] = {
            quality: f"{group[quality].mean():.{digits}f}",
            f"{reference} less this": over_images(advantage, "advantage").shown(digits),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
