"""ISNAS-DIP from a corrupted image to a restored one.

Score random genotypes without training, fit the best of them to the problem or
a proxy of it, choose among what they made of it, and restore with whom is chosen
(Arican et al., CVPR 2022, section 4). Members that a validation decided on are
compared by measurements which none of them saw. Images are float32 (H, W, C) in
[0, 1]. A truth may be given for the record; nothing is decided by it.
"""

import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from isnas_jax import figures
from isnas_jax.fitting import (
    Fit,
    FitSettings,
    Progress,
    compile_ahead,
    fit_once,
    fit_whole,
    validates,
)
from isnas_jax.io import records
from isnas_jax.networks import BASELINES, network_for
from isnas_jax.ops import quality
from isnas_jax.problems import Problem, Proxy, classical, denoising
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
      cohort: M members and what they made of the proxy.
      selected: Position of the chosen one in the cohort.
      weights: (M,) of the members in what is returned.
      images: What members with a weight made of the whole problem, (H, W, C) by
        position in the cohort.
      fits: The fits that made them; None for classical restorations.
      restored: (H, W, C), the result: the weighted mean of the images.
      seconds: Time that each stage took here, next to none if it was found finished.
    """

    candidates: Candidates
    cohort: Cohort
    selected: int
    weights: np.ndarray
    images: dict[int, np.ndarray]
    fits: dict[int, Fit | None]
    restored: np.ndarray
    seconds: dict[str, float]

    @property
    def architecture(self) -> Any:
        """The selected member: a genotype, or a name."""
        return self.cohort.members[self.selected]

    @property
    def fit(self) -> Fit | None:
        """The fit of the selected member or else of the greatest weight; None without networks."""
        ranks = sorted(self.fits, key=lambda rank: (rank != self.selected, -self.weights[rank]))
        return next((fit for rank in ranks if (fit := self.fits[rank])), None)

    def __repr__(self) -> str:
        shares = ", ".join(
            f"{weight:.2f} {member}"
            for member, weight in zip(self.cohort.members, self.weights, strict=True)
            if weight > 0
        )
        return (
            f"Search of {len(self.candidates.genotypes)} candidates, cohort of "
            f"{len(self.cohort.members)}, selected {self.architecture}; restored by {shares}"
        )

    def plot(self) -> Any:
        """A matplotlib figure: what was decided, and what came of it."""
        return figures.decisions(self.restored, self.tracks())

    def tracks(self) -> list[figures.Track]:
        """The cohort as a figure shows it."""
        return [
            figures.Track(
                name=str(member),
                curves=fit.curves() if fit else {},
                restored_at=fit.restored_at if fit else None,
                selected=rank == self.selected,
                weight=float(self.weights[rank]),
            )
            for rank, (member, fit) in enumerate(
                zip(self.cohort.members, self.cohort.fits, strict=True)
            )
        ]


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


def is_network(member: Any) -> bool:
    """Whether a member of a cohort is a network: a genotype or a name in `BASELINES`."""
    return not isinstance(member, str) or member in BASELINES


def restore(
    key: jax.Array,
    problem: Problem,
    architecture: Any = "dip",
    recipe: Recipe | None = None,
    *,
    truth: Any = None,
    file: str | os.PathLike[str] | None = None,
    progress: Callable[[str, Progress], None] | None = None,
) -> Fit:
    """Restores with one architecture; `fit.restored` is the result.

    Where the recipe's fit validates, `fit.part` is the fit to a part of the
    measurements that said for how many iterations: see `fit_whole`.

    Args:
      key: Random key; everything follows from it.
      problem: What is known of the image.
      architecture: A genotype of the recipe's space, or a name in `BASELINES`.
      recipe: Its network and fit are taken; `presets.quick(problem)` by default.
      truth: The clean image (H, W, C), for the PSNR curves only.
      file: An .npz file where a finished or begun restoration is kept and found.
      progress: Called now and then with "validate" or "restore" and a `Progress`.

    Raises:
      ValueError: For what cannot be, or if the file is of another restoration.
      FloatingPointError: If the loss stops being finite.
    """
    recipe = _checked(problem, recipe)
    net = network_for(problem, architecture, recipe.network, recipe.search.space)
    return fit_whole(key, net, problem, recipe.fit, truth=truth, file=file, progress=progress)


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
      truth: The clean image, for the PSNR curves only.
      folder: Where to keep finished stages and the state of the running fit.
      progress: Called with the stage's name and ("score") a pair done and
        total, or ("cohort 1/15", "restore 1/3") a `Progress`.

    Raises:
      ValueError: For what cannot be, or if the folder is of another search,
        naming the difference.
      FloatingPointError: If a loss stops being finite.
    """
    recipe = _checked(problem, recipe)
    settings = recipe.search
    check_size(settings.cohort, getattr(settings.strategy, "num", settings.cohort))
    for name in settings.members:
        if not is_network(name):
            classical.check(name, problem)
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

    def network(member):
        return network_for(problem, member, recipe.network, settings.space)

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
    members = [*(candidates.genotypes[index] for index in chosen), *settings.members]
    scores = np.append(candidates.means[chosen], np.full(len(settings.members), np.nan))
    nets = [network(member) if is_network(member) else None for member in members]
    keys = [jax.random.fold_in(cohort_key, rank) for rank in range(len(members))]
    stand_in, validation = settings.proxy(problem), None
    # A restoration is the second half of what the cohort began, if that was of its kind.
    begun = stand_in is problem and settings.fit == recipe.fit and validates(recipe.fit)
    if settings.fit.split:  # once, so that the members' errors are paired
        stand_in, validation = settings.fit.split(split_key, stand_in)
    fits = _fit_in_turn(
        keys,
        nets,
        settings.fit,
        {"problem": stand_in, "validation": validation, "truth": truth if begun else None},
        files=[place and place / f"cohort_{rank:02d}.npz" for rank in range(len(members))],
        told=lambda rank: told(f"cohort {rank + 1}/{len(members)}"),
    )
    images = [
        fit.restored if fit else classical.restore(member, stand_in)
        for member, fit in zip(members, fits, strict=True)
    ]
    cohort = Cohort(members, scores, stand_in, validation, np.stack(images), fits)
    lap("cohort")

    selected, weights = _choose(settings, cohort)
    final: dict[int, Fit | None] = {}
    ranks = np.flatnonzero(weights > 0).tolist()
    for number, rank in enumerate(ranks, start=1):
        of_all = f" {number}/{len(ranks)}" if len(ranks) > 1 else ""
        fresh = restore_key if rank == selected else jax.random.fold_in(stages_key, 5 + rank)
        final[rank] = nets[rank] and fit_whole(
            keys[rank] if begun else fresh,
            nets[rank],
            problem,
            recipe.fit,
            part=fits[rank] if begun else None,
            truth=truth,
            file=place and place / f"restore_{rank:02d}.npz",
            progress=progress and functools.partial(_tell, progress, of_all),
        )
    restored = {
        rank: fit.restored if fit else classical.restore(members[rank], problem)
        for rank, fit in final.items()
    }
    lap("restore")
    mean = weighted_mean(np.stack(list(restored.values())), weights[list(restored)])
    return Search(candidates, cohort, selected, weights, restored, final, mean, seconds)


def _tell(progress: Callable[[str, Any], None], of_all: str, stage: str, news: Any) -> None:
    progress(stage + of_all, news)


def _choose(settings: SearchSettings, cohort: Cohort) -> tuple[int, np.ndarray]:
    """The selected position and the combination's weights, checked."""
    members = len(cohort.members)
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


def _fit_in_turn(
    keys: Sequence[jax.Array],
    nets: Sequence[Any],
    settings: FitSettings,
    given: Mapping[str, Any],
    *,
    files: Sequence[pathlib.Path | None],
    told: Callable[[int], Any],
) -> list[Fit | None]:
    """Fits networks one after the other, compiling the next meanwhile; None stays None."""

    def compile_one(rank):
        if nets[rank] and not ((file := files[rank]) and file.exists()):
            compile_ahead(nets[rank], settings=settings, **given)

    fits: list[Fit | None] = []
    with ThreadPoolExecutor(1) as compiler:
        for rank, (key, net, file) in enumerate(zip(keys, nets, files, strict=True)):
            if rank + 1 < len(nets):
                # What goes wrong there goes wrong again in its own fit.
                compiler.submit(compile_one, rank + 1)
            fits.append(
                net
                and fit_once(key, net, settings=settings, file=file, progress=told(rank), **given)
            )
    return fits


def oracle(cohort: Cohort, problem: Problem, proxy: Proxy, truth: Any) -> list[float] | None:
    """Evaluation only: PSNR in dB of what every cohort member restored on the proxy.

    The best of them is the choice of an oracle that knows the clean image,
    which is cut as the observation was. None where the proxy of an observation
    that differs from the image in size is another part of it.
    """
    clean = proxy(denoising(truth)).observed
    if clean.shape != cohort.problem.shape or (
        problem.observed.shape != problem.shape and cohort.problem.shape != problem.shape
    ):
        return None
    return [float(quality.psnr(image, clean)) for image in cohort.images]
