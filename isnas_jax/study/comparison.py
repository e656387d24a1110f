"""Comparing methods on images and seeds: the paper's comparison table.

A method is a function, (key, case, recipe, *, folder, progress) -> image (H, W, C).
`methods` names those for a task; more can be put beside them. Needs pandas.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import jax
import numpy as np
import pandas as pd

from isnas_jax.io import records
from isnas_jax.ops import quality
from isnas_jax.problems import classical
from isnas_jax.searching import COHORTS, PRESETS, Recipe, restore, search
from isnas_jax.study.store import place
from isnas_jax.study.units import Case, key_of


class Method(Protocol):
    """See the module's docstring."""

    def __call__(
        self,
        key: jax.Array,
        case: Case,
        recipe: Recipe,
        *,
        folder: pathlib.Path | None,
        progress: Callable[[str, Any], None] | None,
    ) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class ByNetwork:
    """Restoration by a fixed network.

    Attributes:
      name: In `BASELINES`.
    """

    name: str

    def __call__(self, key, case, recipe, *, folder, progress):
        return restore(
            key,
            case.problem,
            self.name,
            recipe,
            file=folder and folder / "restore.npz",
            progress=progress,
        ).restored


@dataclasses.dataclass(frozen=True)
class BySearch:
    """Restoration by a searched network.

    Attributes:
      cohort_by: Name in `COHORTS`; the recipe's choice by default.
      classically: Whether the classical restorations are in the cohort too.
    """

    cohort_by: str | None = None
    classically: bool = False

    def __call__(self, key, case, recipe, *, folder, progress):
        changes: dict[str, Any] = {}
        if self.cohort_by:
            changes["cohort_by"] = COHORTS.find(self.cohort_by)
        if self.classically:
            changes["members"] = (*recipe.search.members, *classical.names_of(case.task))
        recipe = dataclasses.replace(recipe, search=dataclasses.replace(recipe.search, **changes))
        return search(key, case.problem, recipe, folder=folder, progress=progress).restored


@dataclasses.dataclass(frozen=True)
class Classically:
    """Restoration without a network.

    Attributes:
      name: In `CLASSICAL`.
    """

    name: str

    def __call__(self, key, case, recipe, *, folder, progress):
        del key, recipe, folder, progress
        return classical.restore(self.name, case.problem)


def methods(task: str, recipe: Recipe) -> dict[str, Method]:
    """The methods for a task by name.

    random-N is the search with N genotypes drawn at random, metric-N that with
    the N of the best scores; with a split, ISNAS-DIP+ has the classical
    restorations in its cohort.
    """
    number = recipe.search.cohort
    networks: dict[str, Method] = {
        "DIP": ByNetwork("dip"),
        "NAS-DIP": ByNetwork("nas-dip"),
        "ISNAS-DIP": BySearch(),
        f"metric-{number}": BySearch("metric"),
        f"random-{number}": BySearch("random"),
    }
    if recipe.search.fit.split:
        networks["ISNAS-DIP+"] = BySearch(classically=True)
    return networks | {name: Classically(name) for name in classical.names_of(task)}


def measure(
    method: Method,
    case: Case,
    seed: int,
    recipe: Recipe | None = None,
    *,
    folder: pathlib.Path | None = None,
    progress: Callable[[str, Any], None] | None = None,
) -> tuple[np.ndarray, dict[str, float]]:
    """What a method makes of a case, and its PSNR in dB and SSIM.

    Methods share their key, so that those that differ only by how they choose
    are paired. With a folder, what is finished or begun there is taken up.
    """
    recipe = recipe or PRESETS["quick"](case.problem)
    key = key_of(seed, "compare", case.image, case.task)

    def compute():
        restored = method(key, case, recipe, folder=folder, progress=progress)
        return {"restored": np.asarray(restored)}

    of = {"method": method, "key": key, "problem": case.problem, "recipe": recipe}
    restored = records.once(folder and folder / "restored.npz", of, compute)["restored"]
    return restored, quality.report(restored, case.truth)


def compare(
    compared: Mapping[str, Method],
    cases: Iterable[tuple[int, Case]],
    recipe: Recipe | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    progress: Callable[[str, Any], None] | None = None,
) -> tuple[pd.DataFrame, dict[tuple[str, str, int], np.ndarray]]:
    """Every method on every case.

    Args:
      compared: Methods by name.
      cases: Seeds with cases.
      recipe: For the networks and the search; `presets.quick` by default.
      folder: Where to keep and find what is finished or begun.
      progress: Called with method and stage, and where that is.

    Returns:
      A row a method, image and seed with psnr (dB), psnr_y and ssim; and the
      restored images (H, W, C) by these three.
    """
    rows, restored = [], {}
    cases = list(cases)
    for name, method in compared.items():
        for seed, case in cases:
            own = place("work", case.image, str(seed), name).with_suffix("")
            where = pathlib.Path(folder, own) if folder else None

            def told(stage: str, news: Any, name: str = name) -> None:
                if progress:
                    progress(f"{name} {stage}", news)

            image, values = measure(method, case, seed, recipe, folder=where, progress=told)
            restored[name, case.image, seed] = image
            rows.append({"image": case.image, "seed": seed, "method": name, **values})
    return pd.DataFrame(rows), restored


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
