"""ISNAS-DIP from a corrupted image to a restored one.

Score random genotypes without training, fit the best of them to the problem or
a proxy of it, choose among what they made of it, and restore with whom is chosen
(Arican et al., CVPR 2022, section 4). Members that a validation decided on are
compared by measurements that none of them was fitted to; networks were stopped
by the same ones, classical restorations were not. Images are float32 (H, W, C) in
[0, 1]. A truth may be given for the record; nothing is decided by it.
"""

import functools
import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, as_completed
from typing import Any, NamedTuple

import jax
import numpy as np

from isnas_jax import _keys, _programs
from isnas_jax.fitting import (
    Fit,
    FitConfig,
    Part,
    cached_fit,
    needs_validation,
    refit,
    unsplit,
    validates,
)
from isnas_jax.networks import BASELINES, network_for
from isnas_jax.ops import quality
from isnas_jax.problems import Problem, Proxy, check_problem, classical, denoising, pixels
from isnas_jax.running import Pool, ProgressCallback, Runner, Threads, silent
from isnas_jax.searching import scoring, stages
from isnas_jax.searching.cohort import Cohort, Fold, check_size
from isnas_jax.searching.config import Config, SearchConfig
from isnas_jax.searching.presets import quick
from isnas_jax.searching.result import SearchResult
from isnas_jax.searching.selection import weighted_mean
from isnas_jax.searching.strategies import Candidates, SearchContext


class _Run(NamedTuple):
    """What all stages of a run are given, and the keys of each."""

    problem: Problem
    config: Config
    draw_key: jax.Array  # the strategy's
    score_key: jax.Array
    choice_key: jax.Array  # of the cohort
    split_key: jax.Array
    fit_key: jax.Array  # of all networks, each by its name
    clean: Any
    folder: str | os.PathLike[str] | None
    show: Callable[[Sequence[Fit]], None]  # takes a member's fits when they have ended


def _begun(
    key: jax.Array,
    problem: Problem,
    config: Config | None,
    clean: Any,
    folder: str | os.PathLike[str] | None,
    preview: Callable[[np.ndarray], None] | None,
) -> _Run:
    """A run, if what it is given is what it should be."""
    _keys.check(key)
    check_problem(problem)
    _programs.check_concrete("what is restored", key, problem)
    if clean is not None:
        pixels.check_clean(clean, problem.shape)
    config = quick(problem) if config is None else config
    if not isinstance(config, Config):
        raise ValueError(f"{config!r} is no recipe; isnas_jax.presets.quick(problem) is one")
    # The first of three is for whoever corrupted the image by the same key.
    _, draw_key, stages_key = jax.random.split(key, 3)
    score_key, choice_key, split_key, fit_key = jax.random.split(stages_key, 4)
    return _Run(
        problem,
        config,
        draw_key,
        score_key,
        choice_key,
        split_key,
        fit_key,
        clean,
        folder,
        _best_so_far(problem, preview),
    )


def _best_so_far(
    problem: Problem, preview: Callable[[np.ndarray], None] | None
) -> Callable[[Sequence[Fit]], None]:
    """A function of a member's fits that calls `preview`, unless an earlier member was better."""
    least = np.inf

    def show(fits: Sequence[Fit]) -> None:
        nonlocal least
        image = np.mean([fit.restored for fit in fits], axis=0)
        if preview is None or image.shape != problem.shape:
            return
        parts = [part for fit in fits for part in fit.parts or (fit,)]
        errors = [p.validation[p.restored_at] for p in parts if p.validation is not None]
        if not errors or np.mean(errors) <= least:
            least = np.mean(errors) if errors else least
            preview(image)

    return show


def _results(run: _Run, begun: Mapping[Any, Sequence[Future]]) -> dict[Any, list[Fit]]:
    """The fits of several members, each member's shown as soon as they have ended."""
    waiting = dict(begun)
    for ended in as_completed(itertools.chain(*begun.values())):
        ended.result()  # an error need not wait for the member's other fits
        for name in [n for n, futures in waiting.items() if all(f.done() for f in futures)]:
            run.show([future.result() for future in waiting.pop(name)])
    return {name: [future.result() for future in futures] for name, futures in begun.items()}


def _network(problem: Problem, config: Config, member: Any) -> Any:
    """The network of a genotype or a name; None for a classical restoration."""
    names = classical.names_of(problem.task)
    if isinstance(member, str) and member in names:
        return None
    if isinstance(member, str) and member not in BASELINES:
        raise ValueError(
            f"member {member!r} is none of {problem.task}; "
            f"choose from {', '.join([*BASELINES, *names])}"
        )
    return network_for(problem, member, config.network, config.search.space)


def check_config(problem: Problem, config: Config) -> None:
    """Raise ValueError if `search` cannot follow a recipe, before anything is computed."""
    search_config = config.search
    if search_config.cohort or not search_config.extra_members:
        check_size(
            search_config.cohort, getattr(search_config.strategy, "num", search_config.cohort)
        )
    for name in search_config.extra_members:
        _network(problem, config, name)
    for decide in (search_config.fit.stopping, search_config.selection, search_config.combination):
        if needs_validation(decide) and not search_config.fit.split:
            name = getattr(decide, "__name__", type(decide).__name__)
            raise ValueError(f"{name} needs a split to validate with")


def restore(
    key: jax.Array,
    problem: Problem,
    architecture: Any = "dip",
    config: Config | None = None,
    *,
    clean: Any = None,
    folder: str | os.PathLike[str] | None = None,
    progress: ProgressCallback | None = None,
    runner: Runner = Threads,
    preview: Callable[[np.ndarray], None] | None = None,
) -> Fit:
    """Restores with one architecture; `fit.restored` is the result.

    Where the recipe's fit validates, `fit.parts` are the fits to parts of
    the measurements that said for how many iterations: see `refit`. All are those
    of a search with this key that has the architecture in its cohort.

    Args:
      key: Random key; everything follows from it.
      problem: What is known of the image.
      architecture: A genotype of the recipe's space, or a name in `BASELINES`.
      config: Its network and fit are taken; `presets.quick(problem)` by default.
      clean: The clean image (H, W, C), for the PSNR curves only.
      folder: Where to keep and to find fits, finished or begun; others may be
        there too.
      progress: Called now and then with the stage ("validate", "restore") and a
        `Progress`, perhaps in other threads.
      runner: Who fits: see `RUNNERS`.
      preview: Called in this thread with the best restoration so far, (H, W, C), whenever
        fits have ended: that of the least validation error, else the latest.

    Raises:
      ValueError: For what cannot be.
      FloatingPointError: If the loss stops being finite.
    """
    run = _begun(key, problem, config, clean, folder, preview)
    net = network_for(problem, architecture, run.config.network, run.config.search.space)
    with runner(progress or silent) as pool:
        parts = _results(run, {"parts": _parts(run, pool, architecture, net)})["parts"]
        whole = _whole(run, pool, architecture, net, parts)
        return _results(run, {"whole": [whole]})["whole"][0]


def _folds(run: _Run, config: FitConfig, problem: Problem) -> list[dict[str, Any]]:
    """What the fits of a network to a problem are given: one, or one for each fold.

    The split's key is that of the run, so that errors are paired.
    """
    parts: list[tuple[Problem, Problem | None]] = [(problem, None)]
    if config.split:
        parts = [config.split(run.split_key, problem, fold) for fold in range(config.folds)]
    elif needs_validation(config.stopping):
        raise ValueError(f"{type(config.stopping).__name__} needs a split to validate with")
    for fold, (part, validation) in enumerate(parts, start=1):
        if not (part.weights > 0).any() or (validation and not (validation.weights > 0).any()):
            raise ValueError(f"fold {fold} leaves nothing to fit or nothing to validate with")
    clean = run.clean if problem is run.problem else None
    return [
        {"problem": part, "config": unsplit(config), "validation": validation, "clean": clean}
        for part, validation in parts
    ]


def _fit_folds(
    run: _Run, pool: Pool, member: Any, net: Any, folds: list[dict[str, Any]], stage: str
) -> list[Future]:
    """A network's fits to what the folds leave, as jobs."""
    key, futures = _keys.named(run.fit_key, member), []
    for number, fold in enumerate(folds, start=1):
        of_all = f", fold {number}/{len(folds)}" if len(folds) > 1 else ""
        futures.append(pool.submit(_fit_fold, run.folder, key, net, fold, stage + of_all))
    return futures


def _fit_fold(
    progress: ProgressCallback,
    folder: Any,
    key: jax.Array,
    net: Any,
    fold: dict[str, Any],
    stage: str,
) -> Fit:
    """A network's fit to what a fold leaves."""
    return cached_fit(key, net, **fold, folder=folder, progress=functools.partial(progress, stage))


def _parts(run: _Run, pool: Pool, member: Any, net: Any, of_all: str = "") -> list[Future]:
    """A member's fits to the split's parts of the whole, as jobs; none without a validation."""
    config = run.config.fit
    if not validates(config):
        return []
    folds = _folds(run, config, run.problem)
    return _fit_folds(run, pool, member, net, folds, f"validate{of_all}")


def _whole(
    run: _Run, pool: Pool, member: Any, net: Any, fits: Sequence[Fit], of_all: str = ""
) -> Future:
    """A member's fit to the whole problem, by its fits to the split's parts if there is a split."""
    config, stage = run.config.fit, f"restore{of_all}"
    if validates(config):
        key = _keys.named(run.fit_key, member)
        whole = {"problem": run.problem, "config": config, "clean": run.clean}
        folds = _folds(run, config, run.problem)
        parts = [Part(fold["problem"], fit) for fold, fit in zip(folds, fits, strict=True)]
        return pool.submit(_refit, run.folder, key, net, whole, parts, stage)
    (future,) = _fit_folds(run, pool, member, net, _folds(run, unsplit(config), run.problem), stage)
    return future


def _refit(
    progress: ProgressCallback,
    folder: Any,
    key: jax.Array,
    net: Any,
    whole: dict[str, Any],
    parts: Sequence[Part],
    stage: str,
) -> Fit:
    """A network's fit to the whole by its fits to parts."""
    heard = functools.partial(progress, stage)
    return refit(key, net, **whole, parts=parts, folder=folder, progress=heard)


def search(
    key: jax.Array,
    problem: Problem,
    config: Config | None = None,
    *,
    clean: Any = None,
    folder: str | os.PathLike[str] | None = None,
    progress: ProgressCallback | None = None,
    runner: Runner = Threads,
    preview: Callable[[np.ndarray], None] | None = None,
) -> SearchResult:
    """Searches an architecture for one problem and restores with it.

    A network's random numbers follow from the key and the network's name, and
    all members of a cohort share one split.

    Args:
      key: Random key; everything follows from it.
      problem: What is known of the image.
      config: What to do; `presets.quick(problem)` by default.
      clean: The clean image, for the PSNR curves only.
      folder: Where to keep and to find scores and fits, finished or begun;
        several searches may share it, and what they have in common.
      progress: Called with the stage's name and ("score") a pair done and
        total, or ("cohort 1/15", "restore 1/3") a `Progress`; perhaps in other threads.
      runner: Who fits the networks: see `RUNNERS`. Processes with other numbers of
        cores than this one add up floating-point numbers in other orders.
      preview: Called in this thread with the best restoration so far, (H, W, C), whenever
        a member's fits have ended: that of the least validation error, else the latest.

    Raises:
      ValueError: For what cannot be.
      FloatingPointError: If a loss stops being finite.
    """
    run, progress = _begun(key, problem, config, clean, folder, preview), progress or silent
    search_config = run.config.search
    check_config(problem, run.config)
    others = [_network(problem, run.config, name) for name in search_config.extra_members]
    proxy = search_config.proxy(problem)
    folds = _folds(run, search_config.fit, proxy)
    clock, seconds = [time.perf_counter()], {}

    def lap(stage):
        clock.append(time.perf_counter())
        seconds[stage] = clock[-1] - clock[-2]

    with runner(progress) as pool:
        begun: dict[str, list[Future]] = {}
        number = search_config.cohort + sum(net is not None for net in others)

        def begin(members, nets):
            for member, net in reversed([*zip(members, nets, strict=True)]):
                if net is not None:
                    stage = f"cohort {len(begun) + 1}/{number}"
                    begun[str(member)] = _fit_folds(run, pool, member, net, folds, stage)

        # Who is known already begins while the others are scored.
        begin(search_config.extra_members, others)
        candidates = _score(progress, run)
        lap("score")
        chosen = _chosen(run, candidates)
        genotypes = [candidates.genotypes[index] for index in chosen]
        members = [*genotypes, *search_config.extra_members]
        if len(set(map(str, members))) < len(members):
            names = ", ".join(map(str, members))
            raise ValueError(f"the cohort is {names}, where different members are needed")
        nets = [_network(problem, run.config, genotype) for genotype in genotypes]
        begin(genotypes, nets)
        nets += others
        scores = np.append(candidates.means[chosen], np.full(len(others), np.nan))
        cohort = Cohort(members, scores, proxy, _made(run, members, folds, begun))
        lap("cohort")
        selected, weights = _choose(search_config, cohort)
        fits, images = _restore_with(run, pool, cohort, weights, nets)
    mean = weighted_mean(np.stack(list(images.values())), weights[list(images)])
    lap("restore")
    return SearchResult(candidates, cohort, selected, weights, images, fits, mean, seconds)


def _score(progress: ProgressCallback, run: _Run) -> Candidates:
    """The strategy's candidates; none where nobody wants them."""
    config = run.config.search
    if not config.cohort:
        return Candidates([], np.zeros((0, config.inits.num)))

    def score(genotypes):
        return scoring.score(
            run.score_key,
            [_network(run.problem, run.config, genotype) for genotype in genotypes],
            run.problem,
            {"score": config.metric},
            config.inits,
            folder=run.folder,
            progress=lambda *news: progress("score", news),
        )["score"]

    scope = SearchContext(run.problem, config.space, run.config.network.channels, score)
    return config.strategy(run.draw_key, scope)


def _chosen(run: _Run, candidates: Candidates) -> list[int]:
    """Whom of the candidates to fit, checked."""
    config = run.config.search
    if not config.cohort:
        return []
    chosen = np.asarray(config.cohort_selection(run.choice_key, candidates, config.cohort)).tolist()
    if len(chosen) < 1 or len(set(chosen)) < len(chosen):
        raise ValueError(f"the cohort is {chosen}, where different candidates are needed")
    return chosen


def _made(
    run: _Run,
    members: Sequence[Any],
    folds: list[dict[str, Any]],
    begun: dict[str, list[Future]],
) -> list[Fold]:
    """What the members make of the proxy, or of each fold's part of it."""
    # Those without a network first: what is wrong with them takes no time to find out.
    classics = {
        str(member): [classical.restore(member, fold["problem"]) for fold in folds]
        for member in members
        if str(member) not in begun
    }
    fits = _results(run, begun)
    names, found = [str(member) for member in members], []
    for number, fold in enumerate(folds):
        of_fold = {name: of[number] for name, of in fits.items()}
        images = {name: fit.restored for name, fit in of_fold.items()}
        images |= {name: of[number] for name, of in classics.items()}
        made, by = np.stack([images[name] for name in names]), [*map(of_fold.get, names)]
        found.append(Fold(fold["problem"], fold["validation"], made, by))
    return found


def _choose(config: SearchConfig, cohort: Cohort) -> tuple[int, np.ndarray]:
    """The selected position and the combination's weights, checked."""
    members = len(cohort.members)
    selected = config.selection(cohort)
    if selected not in range(members):
        raise ValueError(f"{selected!r} was selected, where 0 to {members - 1} can be")
    weights = np.asarray(config.combination(cohort, selected), np.float64)
    if weights.shape != (members,) or not (weights >= 0).all() or abs(weights.sum() - 1) > 1e-6:
        raise ValueError(
            f"the combination's weights are {weights.tolist()}, where {members} are needed that "
            "are not negative and add up to 1"
        )
    return selected, weights


def _restore_with(
    run: _Run, pool: Pool, cohort: Cohort, weights: np.ndarray, nets: list[Any]
) -> tuple[dict[int, Fit | None], dict[int, np.ndarray]]:
    """Fits and images of the members with a weight, of the whole problem."""
    # A cohort fitted so to the whole problem has done the work, to a part of it the first half.
    done = stages.cohort_restores(run.problem, run.config)
    ranks = np.flatnonzero(weights > 0).tolist()
    of_all = {
        rank: f" {number}/{len(ranks)}" if len(ranks) > 1 else ""
        for number, rank in enumerate(ranks, start=1)
    }
    fitted = {
        rank: (cohort.members[rank], nets[rank])
        for rank in ranks
        if nets[rank] is not None and not done
    }
    if stages.fits_agree(run.problem, run.config):
        parts = {rank: cohort.fits(rank) for rank in fitted}
    else:
        begun = {rank: _parts(run, pool, *of, of_all[rank]) for rank, of in fitted.items()}
        parts = _results(run, begun)
    futures = {
        rank: [_whole(run, pool, *of, parts[rank], of_all[rank])] for rank, of in fitted.items()
    }
    wholes = _results(run, futures)
    fits: dict[int, Fit | None] = {}
    for rank in ranks:
        if nets[rank] is None:
            fits[rank] = None
        else:
            fits[rank] = wholes[rank][0] if rank in wholes else cohort.fits(rank)[0]
    images = {
        rank: fit.restored if fit else classical.restore(cohort.members[rank], run.problem)
        for rank, fit in fits.items()
    }
    return fits, images


def oracle(cohort: Cohort, problem: Problem, proxy: Proxy, clean: Any) -> list[float] | None:
    """Evaluation only: PSNR in dB of what every cohort member restored on the proxy.

    The best of them is the choice of an oracle that knows the cut image,
    which is cut as the observation was. None where the proxy of an observation
    that differs from the image in size is another part of it.
    """
    cut = proxy(denoising(clean)).observed
    if cut.shape != cohort.problem.shape or (
        problem.observed.shape != problem.shape and cohort.problem.shape != problem.shape
    ):
        return None
    return [float(quality.psnr(image, cut)) for image in cohort.images]
