"""ISNAS-DIP: from a corrupted image to a restored one (Arican et al., CVPR 2022, section 4).

Score random genotypes without training, select a cohort, fit it, decide which members to restore
with, and restore. Members that validation stopped are compared by measurements that none of them
was fitted to. Images are float32 (H, W, C) in [0, 1]. A clean image is only recorded: no stage
decides by it.
"""

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np

from isnas_jax.fitting import Fit, needs_validation
from isnas_jax.networks import dip, network_for
from isnas_jax.problems import Classical, Problem, classical
from isnas_jax.running import Pool, Progress, Runner, Threads, ignore
from isnas_jax.searching import scoring
from isnas_jax.searching.cohort import Cohort, Fold, check_size
from isnas_jax.searching.config import Config, SearchConfig, plan_search
from isnas_jax.searching.result import Restoration, SearchResult
from isnas_jax.searching.run import (
    Run,
    begin,
    collect,
    fit_whole,
    numbered,
    split_folds,
    submit_fits,
)
from isnas_jax.searching.selection import weighted_mean
from isnas_jax.searching.strategies import Candidates, SearchContext, has_scores


def check_config(problem: Problem, config: Config) -> None:
    """Raise ValueError if `search` would refuse a config, before anything is computed."""
    search = config.search
    if search.cohort or not search.extra_members:
        check_size(search.cohort, getattr(search.strategy, "num", search.cohort))
    if not search.cohort or not has_scores(search.strategy):
        _check_without_scores(search)
    for member in search.extra_members:
        _network(problem, config, member)
    decisions = (config.cohort_fit.stopping, search.selection, search.combination)
    for decision, fit in (
        *((decision, config.cohort_fit) for decision in decisions),
        (config.fit.stopping, config.fit),
    ):
        if needs_validation(decision) and not fit.split:
            name = getattr(decision, "__name__", type(decision).__name__)
            raise ValueError(f"{name} needs a split to validate with")


def _check_without_scores(search: SearchConfig) -> None:
    """Raise ValueError if a search needs scores, for a cohort that has none."""
    for decision in (search.selection, search.combination):
        if getattr(decision, "needs_scores", False):
            raise ValueError(f"{decision.__name__} needs members with scores")


def _network(problem: Problem, config: Config, member: Any) -> Any:
    """Return the network of a genotype or a baseline; None for a classical restoration."""
    if isinstance(member, Classical):
        classical.check(member, problem)
        return None
    return network_for(problem, member, config.network, config.search.space)


def search(
    key: jax.Array,
    problem: Problem,
    config: Config | None = None,
    *,
    clean: Any = None,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress = ignore,
    runner: Runner = Threads,
) -> SearchResult:
    """Search an architecture for one problem and restore with it.

    The random numbers of a network follow from the key and the network's name. All members of a
    cohort have the same splits.

    Args:
      key: Random key of everything.
      problem: The problem to restore.
      config: The config; by default `presets.quick(problem)`.
      clean: The clean image (H, W, C), for the PSNR curves only.
      folder: Caches scores and fits on disk; searches may share it.
      progress: Takes an `Event` now and then, perhaps in other threads: the stages "score",
        "cohort", "validate" and "restore", and in this thread "preview" with the best image so far.
      runner: Runs the fits. Processes with other numbers of cores than this one add up
        floating-point numbers in other orders.

    Raises:
      ValueError: For impossible inputs.
      FloatingPointError: If a loss becomes infinite or nan.
    """
    run = begin(key, problem, config, clean, folder, progress)
    check_config(problem, run.config)
    search_config, clock, seconds = run.config.search, [time.perf_counter()], {}

    def lap(stage: str) -> None:
        clock.append(time.perf_counter())
        seconds[stage] = clock[-1] - clock[-2]

    with runner(progress) as pool:
        fits = _CohortFits(run, pool)
        fits.submit(search_config.extra_members)  # while candidates are scored
        candidates = score_candidates(run)
        lap("score")
        chosen = select_cohort(run, candidates)
        genotypes = [candidates.genotypes[index] for index in chosen]
        fits.submit(genotypes)
        scores = [*candidates.means[chosen], *(np.nan for _ in search_config.extra_members)]
        cohort = fits.cohort([*genotypes, *search_config.extra_members], np.array(scores))
        lap("cohort")
        selected, weights = decide(search_config, cohort)
        restorations = restore_members(run, pool, cohort, weights, fits.networks)
    images = np.stack([restoration.image for restoration in restorations.values()])
    restored = weighted_mean(images, weights[list(restorations)])
    lap("restore")
    return SearchResult(candidates, cohort, selected, weights, restorations, restored, seconds)


def score_candidates(run: Run) -> Candidates:
    """Run the search strategy; without a cohort to select, score nothing."""
    search_config = run.config.search
    if not search_config.cohort:
        return Candidates([], np.zeros((0, search_config.inits.num)))

    def score(genotypes: Sequence[Any]) -> np.ndarray:
        return scoring.score(
            run.keys.score,
            [_network(run.problem, run.config, genotype) for genotype in genotypes],
            run.problem,
            {"score": search_config.metric},
            search_config.inits,
            folder=run.folder,
            progress=run.progress,
        )["score"]

    channels = run.config.network.channels
    context = SearchContext(run.problem, search_config.space, channels, search_config.cohort, score)
    return search_config.strategy(run.keys.strategy, context)


def select_cohort(run: Run, candidates: Candidates) -> list[int]:
    """Return the indices of the candidates to fit, checked."""
    search_config = run.config.search
    if not search_config.cohort:
        return []
    if not candidates.scored:
        _check_without_scores(search_config)
        check_size(search_config.cohort, len(candidates.genotypes))
        return list(range(search_config.cohort))
    selection = search_config.cohort_selection(
        run.keys.cohort_selection, candidates, search_config.cohort
    )
    indices = np.asarray(selection).tolist()
    if len(indices) < 1 or len(set(indices)) < len(indices):
        raise ValueError(f"the cohort {indices} must consist of different candidates")
    return indices


class _CohortFits:
    """The fits of a cohort to the problem or its proxy; they begin when a member is known."""

    def __init__(self, run: Run, pool: Pool) -> None:
        self.run, self.pool = run, pool
        proxy = run.config.search.proxy
        self.problem = proxy(run.problem) if proxy else run.problem
        if run.config.cohort_validates_restoration:
            self.folds = run.folds
        else:
            self.folds = split_folds(run.keys.split, run.config.cohort_fit, self.problem)
        self.stages = numbered("cohort", plan_search(run.config)["cohort"].fits)
        self.networks: dict[str, Any] = {}
        self.futures: dict[str, list[Future]] = {}

    def submit(self, members: Sequence[Any]) -> None:
        """Begin the fits of members, the last first."""
        networks: dict[str, Any] = {}
        for member in members:
            if str(member) in self.networks | networks:
                raise ValueError(f"the cohort contains {member} more than once")
            networks[str(member)] = _network(self.run.problem, self.run.config, member)
        self.networks |= networks
        fitted = {name: net for name, net in reversed(networks.items()) if net is not None}
        self.futures |= submit_fits(
            self.run, self.pool, fitted, self.folds, self.run.config.cohort_fit, self.stages
        )

    def cohort(self, members: Sequence[Any], scores: np.ndarray) -> Cohort:
        """Wait for all fits and return the cohort."""
        # Classical restorations come first: their errors take no time to find.
        images = {
            str(member): [classical.restore(member, training) for training, _ in self.folds]
            for member in members
            if str(member) not in self.futures
        }
        fits = collect(self.run, self.futures)
        images |= {name: [fit.restored for fit in fold_fits] for name, fold_fits in fits.items()}
        names, none = [str(member) for member in members], [None] * len(self.folds)
        folds = [
            Fold(
                *problems,
                np.stack([images[name][number] for name in names]),
                [fits.get(name, none)[number] for name in names],
            )
            for number, problems in enumerate(self.folds)
        ]
        return Cohort(members, scores, self.problem, folds)


def decide(search_config: SearchConfig, cohort: Cohort) -> tuple[int, np.ndarray]:
    """Return the index of a member and the weights (M,) of all; ValueError if invalid."""
    members = len(cohort.members)
    selected = search_config.selection(cohort)
    if selected not in range(members):
        raise ValueError(f"the selection returned {selected!r}; it must be 0 to {members - 1}")
    weights = np.asarray(search_config.combination(cohort, selected), np.float64)
    if weights.shape != (members,) or not (weights >= 0).all() or abs(weights.sum() - 1) > 1e-6:
        raise ValueError(
            f"the combination returned the weights {weights.tolist()}; it must return {members} "
            "that are not negative and add up to 1"
        )
    return selected, weights


def restore_members(
    run: Run, pool: Pool, cohort: Cohort, weights: np.ndarray, networks: Mapping[str, Any]
) -> dict[int, Restoration]:
    """Restore the whole problem with each member that has a weight, by its index."""
    members = {index: cohort.members[index] for index in np.flatnonzero(weights > 0).tolist()}
    names = {index: str(member) for index, member in members.items()}
    fitted = {name: index for index, name in names.items() if networks[name] is not None}
    cohort_fits = {name: cohort.fits(index) for name, index in fitted.items()}
    if run.config.cohort_is_restoration:
        fits = {name: fit for name, (fit,) in cohort_fits.items()}
    else:
        validated = cohort_fits if run.config.cohort_validates_restoration else None
        fits = fit_whole(run, pool, {name: networks[name] for name in fitted}, validated)
    restorations = {}
    for index, member in members.items():
        fit = fits.get(names[index])
        image = fit.restored if fit else classical.restore(member, run.problem)
        restorations[index] = Restoration(image, fit)
    return restorations


def restore(
    key: jax.Array,
    problem: Problem,
    architecture: Any = dip,
    config: Config | None = None,
    *,
    clean: Any = None,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress = ignore,
    runner: Runner = Threads,
) -> Fit:
    """Restore with one architecture, without a search; `fit.restored` is the image.

    If the config's fit validates, `fit.fold_fits` are the validated fits that chose the number
    of iterations: see `refit`. The fits equal those of a search with the same key that has the
    architecture in its cohort.

    Args:
      key: Random key of everything.
      problem: The problem to restore.
      architecture: A genotype of the config's space, or a baseline such as `isnas_jax.dip`.
      config: Its network and fit count; by default `presets.quick(problem)`.
      clean: As for `search`.
      folder: Caches fits on disk.
      progress: As for `search`, with the stages "validate", "restore" and "preview".
      runner: Runs the fits.

    Raises:
      ValueError: For impossible inputs.
      FloatingPointError: If the loss becomes infinite or nan.
    """
    run = begin(key, problem, config, clean, folder, progress)
    net = network_for(problem, architecture, run.config.network, run.config.search.space)
    with runner(progress) as pool:
        return fit_whole(run, pool, {str(architecture): net})[str(architecture)]
