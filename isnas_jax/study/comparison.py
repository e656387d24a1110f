"""Comparing methods on images and seeds: the paper's comparison table.

A method is a function, (key, problem, recipe, *, folder, progress) -> image (H, W, C).
`methods` names those for a task; more can be put beside them. Needs pandas.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import jax
import numpy as np
import pandas as pd

from isnas_jax.fitting import STOPPING
from isnas_jax.io import records
from isnas_jax.networks import BASELINES
from isnas_jax.ops import quality
from isnas_jax.problems import CLASSICAL, Problem, classical
from isnas_jax.running import ProgressCallback, Runner, Threads, silent
from isnas_jax.searching import (
    COHORT_SELECTIONS,
    COMBINATIONS,
    PRESETS,
    SELECTIONS,
    Config,
    restore,
    search,
)
from isnas_jax.study.intervals import over_images
from isnas_jax.study.units import Case, key_of


class Method(Protocol):
    """See the module's docstring."""

    def __call__(
        self,
        key: jax.Array,
        problem: Problem,
        config: Config,
        *,
        folder: str | os.PathLike[str] | None,
        progress: ProgressCallback | None,
    ) -> np.ndarray: ...


# Methods are jobs themselves, so that theirs need not be at work beside each other.
_one_by_one = functools.partial(Threads, workers=1)


def _unchanged(config: Config) -> Config:
    return config


@dataclasses.dataclass(frozen=True)
class NetworkMethod:
    """Restoration by a fixed network.

    Attributes:
      name: In `BASELINES`.
    """

    name: str

    def __call__(self, key, problem, config, *, folder, progress):
        options = {"folder": folder, "progress": progress, "runner": _one_by_one}
        return restore(key, problem, self.name, config, **options).restored


@dataclasses.dataclass(frozen=True)
class SearchMethod:
    """Restoration by a search.

    Attributes:
      change: From the recipe to the method's own.
    """

    change: Callable[[Config], Config] = _unchanged

    def __call__(self, key, problem, config, *, folder, progress):
        options = {"folder": folder, "progress": progress, "runner": _one_by_one}
        return search(key, problem, self.change(config), **options).restored


def replace_search(config: Config, **changes: Any) -> Config:
    """A recipe with other settings of its search."""
    return dataclasses.replace(config, search=dataclasses.replace(config.search, **changes))


def as_published(config: Config) -> Config:
    """The decisions of the paper at a recipe's size.

    As many genotypes as the cohort has networks, those of the best scores, are
    fitted to everything and stopped by ES-WMV; the one closest to their weighted
    mean is returned, with the exponential mean of equation 4.
    """

    def fit_of(search_config):
        stopping = STOPPING["es-wmv"](search_config.iterations)
        return dataclasses.replace(search_config, stopping=stopping, split=None, debias=False)

    search_config = config.search
    networks = search_config.cohort + sum(name in BASELINES for name in search_config.extra_members)
    changed = replace_search(
        config,
        cohort=min(networks, getattr(search_config.strategy, "num", networks)),
        extra_members=(),
        cohort_selection=COHORT_SELECTIONS["metric"],
        selection=SELECTIONS["closest"],
        combination=COMBINATIONS["selected"],
        fit=fit_of(search_config.fit),
    )
    return dataclasses.replace(changed, fit=fit_of(config.fit))


@dataclasses.dataclass(frozen=True)
class ClassicalMethod:
    """Restoration without a network.

    Attributes:
      name: In `CLASSICAL`.
    """

    name: str

    def __call__(self, key, problem, config, *, folder, progress):
        del key, config, folder, progress
        return classical.restore(self.name, problem)


def methods(task: str, config: Config) -> dict[str, Method]:
    """The methods for a task by name.

    "as published" takes the decisions of the paper. random-N is the search with N
    genotypes drawn at random, metric-N that with the N of the best scores; with
    a split, ISNAS-DIP+ has the classical restorations in its cohort.
    """
    number = config.search.cohort
    networks: dict[str, Method] = {
        "DIP": NetworkMethod("dip"),
        "NAS-DIP": NetworkMethod("nas-dip"),
        "as published": SearchMethod(as_published),
        "ISNAS-DIP": SearchMethod(),
    }
    for name in ("metric", "random"):
        changed = functools.partial(replace_search, cohort_selection=COHORT_SELECTIONS[name])
        networks[f"{name}-{number}"] = SearchMethod(changed)
    if config.search.fit.split:
        members = tuple(dict.fromkeys((*config.search.extra_members, *classical.names_of(task))))
        networks["ISNAS-DIP+"] = SearchMethod(
            functools.partial(replace_search, extra_members=members)
        )
    return networks | {name: ClassicalMethod(name) for name in classical.names_of(task)}


def measure(
    method: Method,
    case: Case,
    seed: int,
    config: Config | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[np.ndarray, dict[str, float]]:
    """What a method makes of a case, and its PSNR in dB and SSIM.

    Methods share their key, so that those that differ only by how they choose
    are paired.

    Args:
      method: The method.
      case: An image in a task.
      seed: Everything random follows from it.
      config: For the networks and the search; `presets.quick` by default.
      folder: Where to keep and to find it and its fits, finished or begun;
        methods and cases may share it, and what they have in common.
      progress: Called with the stage and where that is.
    """
    of = _description(method, case, seed, config)

    def compute():
        restored = method(of["key"], case.problem, of["config"], folder=folder, progress=progress)
        return {"restored": np.asarray(restored)}

    file = records.cache_path(folder, "restored", of) if folder else None
    restored = records.cached(file, of, compute)["restored"]
    return restored, quality.report(restored, case.clean)


def _description(method: Method, case: Case, seed: int, config: Config | None) -> dict[str, Any]:
    """All that a restoration depends on."""
    return {
        "method": method,
        "key": key_of(seed, "compare", case.image, case.task),
        "problem": case.problem,
        "config": config or PRESETS["quick"](case.problem),
        # What the names of both stand for.
        "networks": dict(BASELINES),
        "classical": dict(CLASSICAL),
    }


def compare(
    compared: Mapping[str, Method],
    cases: Iterable[tuple[int, Case]],
    config: Config | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    progress: ProgressCallback | None = None,
    runner: Runner = Threads,
) -> tuple[pd.DataFrame, dict[tuple[str, str, int], np.ndarray]]:
    """Every method on every case.

    Args:
      compared: Methods by name.
      cases: Seeds with cases.
      config: For the networks and the search; `presets.quick` by default.
      folder: Where to keep and find what is finished or begun.
      progress: Called with case, method and stage, and where that is; and with "compared"
        and the pair done and total, first with what was there. Perhaps in other threads.
      runner: Who does the work: see `RUNNERS`.

    Returns:
      A row a method, image and seed with task, psnr (dB), psnr_y and ssim; and the
      restored images (H, W, C) by these three.
    """
    rows, restored, cases = [], {}, list(cases)
    progress = progress or silent

    def is_there(method, seed, case):
        of = _description(method, case, seed, config)
        return folder is not None and records.cache_path(folder, "restored", of).exists()

    new = {
        (name, seed, case.image)
        for name, method in compared.items()
        for seed, case in cases
        if not is_there(method, seed, case)
    }
    total = len(compared) * len(cases)
    progress("compared", (total - len(new), total))
    with runner(progress) as pool:
        shared = [(seed, case, pool.broadcast(case)) for seed, case in cases]
        common = pool.broadcast((config, folder))
        begun = [
            (name, seed, case, pool.submit(_measure, name, method, seed, sent, common))
            for name, method in compared.items()
            for seed, case, sent in shared
        ]
        for name, seed, case, future in begun:
            restored[name, case.image, seed], values = future.result()
            row = {"task": case.task, "image": case.image, "seed": seed, "method": name}
            rows.append(row | values)
            new.discard((name, seed, case.image))
            progress("compared", (total - len(new), total))
    return pd.DataFrame(rows), restored


def _measure(
    progress: ProgressCallback,
    name: str,
    method: Method,
    seed: int,
    case: Case,
    common: tuple[Config | None, str | os.PathLike[str] | None],
) -> tuple[np.ndarray, dict[str, float]]:
    """`measure` as a job, with a recipe and a folder."""
    config, folder = common

    def heard(stage: str, news: Any) -> None:
        progress(f"{case.image} {seed}, {name}: {stage}", news)

    return measure(method, case, seed, config, folder=folder, progress=heard)


def summary(runs: pd.DataFrame, measured: str, digits: int) -> pd.DataFrame:
    """Means and standard errors over seeds, methods by images, the last column over all images."""
    # The mean over images is taken within a seed, for its standard error is over seeds too.
    overall = runs.groupby(["method", "seed"], as_index=False)[measured].mean()
    both = pd.concat([runs, overall.assign(image="all")])
    groups = both.groupby(["method", "image"])[measured]
    cells = groups.agg(
        lambda values: (
            f"{values.mean():.{digits}f}"
            + (f" ± {values.sem():.{digits}f}" if len(values) > 1 else "")
        )
    ).unstack()
    return cells.loc[runs["method"].unique(), [*runs["image"].unique(), "all"]]


def differences(runs: pd.DataFrame, measured: str, reference: str, digits: int = 2) -> pd.DataFrame:
    """A row a method: its mean, and how much more the reference method has, paired.

    With 95 % bootstrap intervals over images, whose seeds stay together; of images and
    seeds that both methods have.
    """
    of = runs.set_index(["image", "seed"])
    known = of[of["method"] == reference][measured]
    rows = {}
    for name, group in of.groupby("method", sort=False):
        both = known.index.intersection(group.index)
        more = (known[both] - group[measured][both]).rename("more").reset_index()
        rows[name] = {
            measured: f"{group[measured].mean():.{digits}f}",
            f"{reference} less this": over_images(more, "more").shown(digits),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
