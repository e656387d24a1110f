"""ISNAS-DIP from a corrupted image to a restored one.

Score random genotypes without training, fit the best of them on a proxy of the
problem, select the one closest to the cohort's metric-weighted mean, build it
anew and fit it to the whole problem (Arican et al., CVPR 2022, section 4).
Images are float32 (H, W, C) in [0, 1]. A truth may be given for the record; no
stage before the evaluation looks at it.
"""

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from isnas_jax import figures
from isnas_jax.fitting import Fit, FitSettings, Progress, compile_ahead, fit_once
from isnas_jax.io import records
from isnas_jax.networks import network_for
from isnas_jax.ops import quality
from isnas_jax.problems import Problem, Proxy, denoising
from isnas_jax.searching import scoring
from isnas_jax.searching.cohort import Cohort, check_size
from isnas_jax.searching.presets import quick
from isnas_jax.searching.selection import weighted_mean
from isnas_jax.searching.settings import Recipe, SearchSettings
from isnas_jax.searching.strategies import Candidates, Scope


@dataclasses.dataclass(frozen=True, repr=False)
class Search:
    """A finished search over N candidates with a cohort of M.

    Attributes:
      candidates: N genotypes and their scores.
      cohort: M of them, fitted to the proxy.
      selected: Position of the chosen one in the cohort.
      weights: (M,) of the members in what is returned.
      fits: Restorations of the whole problem from a fresh initialisation, by
        position in the cohort: those with a weight.
      restored: (H, W, C), the result.
      seconds: Time that each stage took here, next to none if it was found finished.
    """

    candidates: Candidates
    cohort: Cohort
    selected: int
    weights: np.ndarray
    fits: dict[int, Fit]
    restored: np.ndarray
    seconds: dict[str, float]

    @property
    def genotype(self) -> Any:
        """The selected one."""
        return self.cohort.genotypes[self.selected]

    @property
    def fit(self) -> Fit:
        """The whole fit of the selected member, or else of the one with the greatest weight."""
        ranks = sorted(self.fits, key=lambda rank: (rank != self.selected, -self.weights[rank]))
        return self.fits[ranks[0]]

    def __repr__(self) -> str:
        return (
            f"Search of {len(self.candidates.genotypes)} candidates, cohort of "
            f"{len(self.cohort.fits)}, selected {self.genotype}; {self.fit}"
        )

    def plot(self) -> Any:
        """A matplotlib figure: the result beside the curves of its fit."""
        return figures.fit(self.restored, self.fit.curves(), self.fit.restored_at)


def _checked(problem: Problem, recipe: Recipe | None) -> Recipe:
    """The recipe, or the default one, if both are what they should be."""
    if not isinstance(problem, Problem):
        raise ValueError(
            f"a {type(problem).__name__} is no problem; isnas_jax.denoising(image) makes one"
        )
    recipe = quick(problem) if recipe is None else recipe
    if not isinstance(recipe, Recipe):
        raise ValueError(f"{recipe!r} is no recipe; isnas_jax.presets.quick(problem) is one")
    return recipe


def restore(
    key: jax.Array,
    problem: Problem,
    architecture: Any = "dip",
    recipe: Recipe | None = None,
    *,
    truth: Any = None,
    file: str | os.PathLike[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Fit:
    """Restores with one architecture; `fit.restored` is the result.

    Args:
      key: Random key; everything follows from it.
      problem: What is known of the image.
      architecture: A genotype of the recipe's space, or a name in `BASELINES`.
      recipe: Its network and fit are taken; `presets.quick(problem)` by default.
      truth: The clean image (H, W, C), for the PSNR curves only.
      file: An .npz file where a finished or begun restoration is kept and found.
      progress: Called now and then.

    Raises:
      ValueError: For what cannot be, or if the file is of another restoration.
      FloatingPointError: If the loss stops being finite.
    """
    recipe = _checked(problem, recipe)
    net = network_for(problem, architecture, recipe.network, recipe.search.space)
    return fit_once(key, net, problem, recipe.fit, truth=truth, file=file, progress=progress)


def search(
    key: jax.Array,
    problem: Problem,
    recipe: Recipe | None = None,
    *,
    truth: Any = None,
    folder: str | os.PathLike[str] | None = None,
    progress: Callable[[str, Any], None] | None = None,
) -> Search:
    """Searches an architecture for one problem and restores with it.

    Args:
      key: Random key; everything follows from it.
      problem: What is known of the image.
      recipe: What to do; `presets.quick(problem)` by default.
      truth: The clean image, for the PSNR curves of the final fits only.
      folder: Where to keep finished stages and the state of the running fit.
      progress: Called with the stage's name and ("score") a pair done and
        total, or ("cohort 1/15", "restore", "restore 1/3") a `Progress`.

    Raises:
      ValueError: For what cannot be, or if the folder is of another search,
        naming the difference.
      FloatingPointError: If a loss stops being finite.
    """
    recipe = _checked(problem, recipe)
    settings = recipe.search
    check_size(settings.cohort, getattr(settings.strategy, "num", settings.cohort))
    place = None
    if folder:
        what = {"key": key, "problem": problem, "recipe": recipe}
        place = records.claim(folder, what, name="search")
    # The first of three is for whoever corrupted the image by the same key.
    _, draw_key, stages_key = jax.random.split(key, 3)
    score_key, choice_key, cohort_key, restore_key = jax.random.split(stages_key, 4)
    split_key = jax.random.fold_in(stages_key, 4)
    seconds, clock = {}, time.perf_counter()

    def lap(stage):
        nonlocal clock
        seconds[stage] = time.perf_counter() - clock
        clock = time.perf_counter()

    def told(stage):
        return progress and (lambda *news: progress(stage, news if len(news) > 1 else news[0]))

    def network(genotype):
        return network_for(problem, genotype, recipe.network, settings.space)

    rounds = 0

    def score(genotypes):
        nonlocal rounds
        scores = place and place / f"scores_{rounds:03d}"
        rounds += 1
        return scoring.score(
            score_key,
            [network(genotype) for genotype in genotypes],
            problem,
            {"score": settings.metric},
            settings.draws,
            folder=scores,
            progress=told("score"),
        )["score"]

    scope = Scope(problem, settings.space, recipe.network.channels, score)
    candidates = settings.strategy(draw_key, scope)
    lap("score")
    chosen = np.asarray(settings.cohort_by(choice_key, candidates, settings.cohort))
    if len(chosen) < 1 or len(set(chosen.tolist())) < len(chosen):
        raise ValueError(f"the cohort is {chosen.tolist()}, where different candidates are needed")
    genotypes = [candidates.genotypes[index] for index in chosen]
    stand_in, validation = settings.proxy(problem), None
    if settings.fit.split:  # once, so that the members' errors are paired
        stand_in, validation = settings.fit.split(split_key, stand_in)
    fits = _fit_cohort(
        cohort_key,
        [network(genotype) for genotype in genotypes],
        (stand_in, validation),
        recipe.search.fit,
        folder=place,
        told=told,
    )
    lap("cohort")
    cohort = Cohort(genotypes, candidates.means[chosen], stand_in, fits)
    selected, weights = _choose(settings, cohort)
    final: dict[int, Fit] = {}
    ranks = np.flatnonzero(weights > 0).tolist()
    for rank in ranks:
        stage = f"restore {len(final) + 1}/{len(ranks)}" if len(ranks) > 1 else "restore"
        final[rank] = fit_once(
            restore_key if rank == selected else jax.random.fold_in(stages_key, 5 + rank),
            network(genotypes[rank]),
            problem,
            recipe.fit,
            truth=truth,
            file=place and place / f"restore_{rank:02d}.npz",
            progress=told(stage),
        )
    lap("restore")
    images = np.stack([fit.restored for fit in final.values()])
    restored = weighted_mean(images, weights[list(final)])
    return Search(candidates, cohort, selected, weights, final, restored, seconds)


def _choose(settings: SearchSettings, cohort: Cohort) -> tuple[int, np.ndarray]:
    """The selected position and the combination's weights, checked."""
    members = len(cohort.fits)
    selected = settings.selection(cohort)
    if selected not in range(members):
        raise ValueError(f"{selected!r} was selected, where 0 to {members - 1} can be")
    weights = np.asarray(settings.combination(cohort, selected), np.float64)
    if weights.shape != (members,) or not (weights >= 0).all() or abs(weights.sum() - 1) > 1e-6:
        raise ValueError(
            f"the combination's weights are {weights.tolist()}, where {members} are needed that "
            "are not negative and add up to 1"
        )
    return selected, weights


def _fit_cohort(
    key: jax.Array,
    nets: list[Any],
    problems: tuple[Problem, Problem | None],
    settings: FitSettings,
    *,
    folder: pathlib.Path | None,
    told: Callable[[str], Any],
) -> list[Fit]:
    """Fits networks to (fitted, validation) one after the other, compiling the next meanwhile."""
    problem, validation = problems
    files = [folder and folder / f"cohort_{rank:02d}.npz" for rank in range(len(nets))]

    def compile_member(rank):
        if rank < len(nets) and not ((file := files[rank]) and file.exists()):
            compile_ahead(nets[rank], problem, settings, validation)

    fits = []
    with ThreadPoolExecutor(1) as compiler:
        for rank, (net, file) in enumerate(zip(nets, files, strict=True)):
            # What goes wrong there goes wrong again in its own fit.
            compiler.submit(compile_member, rank + 1)
            member = fit_once(
                jax.random.fold_in(key, rank),
                net,
                problem,
                settings,
                validation=validation,
                file=file,
                progress=told(f"cohort {rank + 1}/{len(nets)}"),
            )
            fits.append(member)
    return fits


def oracle(cohort: Cohort, problem: Problem, proxy: Proxy, truth: Any) -> list[float] | None:
    """Evaluation only: PSNR in dB of what every cohort member restored on the proxy.

    The best of them is the choice of an oracle that knows the clean image,
    which is cut as the observation was. None where the proxy of an observation
    that differs from the image in size is another part of it.
    """
    clean = proxy(denoising(truth)).observed
    if clean.shape != cohort.problem.shape or (
        problem.observed.shape != problem.shape and cohort.problem is not problem
    ):
        return None
    return [float(quality.psnr(member.restored, clean)) for member in cohort.fits]
