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
from typing import Any, NamedTuple

import jax
import numpy as np

from isnas_jax.fitting import Fit, needs_validation
from isnas_jax.networks import network_for
from isnas_jax.problems import Classical, Problem, classical
from isnas_jax.running import Pool, Progress, Runner, Threads, ignore
from isnas_jax.searching import scoring
from isnas_jax.searching.cohort import Cohort, Fold, check_size
from isnas_jax.searching.config import Config, SearchConfig
from isnas_jax.searching.plan import plan_search
from isnas_jax.searching.result import Restoration, SearchResult
from isnas_jax.searching.run import (
    FoldProblem,
    Run,
    begin,
    collect,
    split_folds,
    submit_fold_fits,
    submit_restoration,
    submit_validation,
)
from isnas_jax.searching.selection import weighted_mean
from isnas_jax.searching.strategies import Candidates, SearchContext


class Decision(NamedTuple):
    """The members to restore with.

    Attributes:
      selected: Index of the selected member.
      weights: (M,), of the members in the restoration.
    """

    selected: int
    weights: np.ndarray


def check_config(problem: Problem, config: Config) -> None:
    """Raise ValueError if `search` would refuse a config, before anything is computed."""
    search = config.search
    if search.cohort or not search.extra_members:
        check_size(search.cohort, getattr(search.strategy, "num", search.cohort))
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
        decision = decide(search_config, cohort)
        restorations = restore_members(run, pool, cohort, decision.weights, fits.networks)
    images = np.stack([restoration.image for restoration in restorations.values()])
    restored = weighted_mean(images, decision.weights[list(restorations)])
    lap("restore")
    return SearchResult(candidates, cohort, *decision, restorations, restored, seconds)


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
    context = SearchContext(run.problem, search_config.space, channels, score)
    return search_config.strategy(run.keys.strategy, context)


def select_cohort(run: Run, candidates: Candidates) -> list[int]:
    """Return the indices of the candidates to fit, checked."""
    search_config = run.config.search
    if not search_config.cohort:
        return []
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
        self.count = plan_search(run.config)["cohort"].fits
        self.networks: dict[str, Any] = {}
        self.futures: dict[str, list[Future]] = {}

    def submit(self, members: Sequence[Any]) -> None:
        """Begin the fits of members, the last first."""
        networks = [_network(self.run.problem, self.run.config, member) for member in members]
        for member, net in reversed([*zip(members, networks, strict=True)]):
            if str(member) in self.networks:
                raise ValueError(f"the cohort contains {member} more than once")
            self.networks[str(member)] = net
            if net is not None:
                first = len(self.futures) * len(self.folds)
                stages = [("cohort", first + i + 1, self.count) for i in range(len(self.folds))]
                config = self.run.config.cohort_fit
                self.futures[str(member)] = submit_fold_fits(
                    self.run, self.pool, member, net, self.folds, config, stages
                )

    def cohort(self, members: Sequence[Any], scores: np.ndarray) -> Cohort:
        """Wait for all fits and return the cohort."""
        # Classical restorations come first: their errors take no time to find.
        classics = {
            str(member): [classical.restore(member, fold.training) for fold in self.folds]
            for member in members
            if str(member) not in self.futures
        }
        fits = collect(self.run, self.futures)
        folds = [
            _fold([str(member) for member in members], number, problems, fits, classics)
            for number, problems in enumerate(self.folds)
        ]
        return Cohort(members, scores, self.problem, folds)


def _fold(
    names: Sequence[str],
    number: int,
    problems: FoldProblem,
    fits: Mapping[str, Sequence[Fit]],
    classics: Mapping[str, Sequence[np.ndarray]],
) -> Fold:
    fold_fits = [fits[name][number] if name in fits else None for name in names]
    images = [
        fit.restored if fit else classics[name][number]
        for name, fit in zip(names, fold_fits, strict=True)
    ]
    return Fold(*problems, np.stack(images), fold_fits)


def decide(search_config: SearchConfig, cohort: Cohort) -> Decision:
    """Select a member and weigh all members, without the clean image; ValueError if invalid."""
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
    return Decision(selected, weights)


def restore_members(
    run: Run, pool: Pool, cohort: Cohort, weights: np.ndarray, networks: Mapping[str, Any]
) -> dict[int, Restoration]:
    """Restore the whole problem with each member that has a weight, by its index."""
    indices = np.flatnonzero(weights > 0).tolist()
    members = {index: cohort.members[index] for index in indices}
    nets = {index: networks[str(member)] for index, member in members.items()}
    fitted = [index for index in indices if nets[index] is not None]
    numbers = {index: (number, len(fitted)) for number, index in enumerate(fitted, start=1)}
    if run.config.cohort_is_restoration:
        fits = {index: cohort.fits(index) for index in fitted}
    else:
        if run.config.cohort_validates_restoration:
            validated = {index: cohort.fits(index) for index in fitted}
        else:
            futures = {
                index: submit_validation(run, pool, members[index], nets[index], *numbers[index])
                for index in fitted
            }
            validated = collect(run, futures)
        restoring = {
            index: [
                submit_restoration(
                    run, pool, members[index], nets[index], validated[index], *numbers[index]
                )
            ]
            for index in fitted
        }
        fits = collect(run, restoring)
    restorations = {}
    for index in indices:
        fit = fits[index][0] if index in fits else None
        image = fit.restored if fit else classical.restore(members[index], run.problem)
        restorations[index] = Restoration(image, fit)
    return restorations
