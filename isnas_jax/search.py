"""ISNAS-DIP from a corrupted image to a restored one.

Score random genotypes without training, fit the best of them on a proxy of the
problem, select the one closest to the cohort's metric-weighted mean, build it
anew and fit it to the whole problem (Arican et al., CVPR 2022, section 4).
Images are float32 (H, W, C) in [0, 1]. A truth may be given for the record; no
stage before the evaluation looks at it.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from isnas_jax import metrics, observations, quality, records, scoring, selection, stopping
from isnas_jax.checkpoints import Checkpoint
from isnas_jax.fitting import REG_NOISE_STD, Fit, Progress, compile_ahead, fit
from isnas_jax.genotypes import Genotype
from isnas_jax.networks import build_network
from isnas_jax.observations import Problem

COHORTS = ("metric", "random")


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """How a network is fitted.

    Attributes:
      channels: Width of the feature maps.
      iterations: The most iterations of the restoration.
      stopping: Name in `stopping.STOPPING`.
      learning_rate: Adam's.
      reg_noise_std: Of the noise added to z at every iteration.
      mean_decay: Gamma of the exponential mean.
      remat: Trade time for memory; see `build_network`.
    """

    channels: int
    iterations: int
    stopping: str
    learning_rate: float = 0.01
    reg_noise_std: float = REG_NOISE_STD
    mean_decay: float = 0.99
    remat: bool = False

    def of_fit(self, iterations: int) -> dict[str, Any]:
        """The arguments of `fit` for a number of iterations."""
        return {
            "learning_rate": self.learning_rate,
            "reg_noise_std": self.reg_noise_std,
            "mean_decay": self.mean_decay,
            "stopping": stopping.find(self.stopping)(iterations),
        }


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """How an architecture is searched.

    Attributes:
      metric: Name of a metric, ours or published.
      num_inits: Random outputs of each genotype.
      cohort: How many genotypes to fit, N.
      cohort_by: "metric", or "random" for the control.
      cohort_iterations: The most iterations of a cohort fit.
      proxy: What the cohort is fitted to, a name in `observations.PROXIES`.
      proxy_size: Side in pixels of that proxy, unless it is "full".
    """

    metric: str
    num_inits: int
    cohort: int
    cohort_by: str
    cohort_iterations: int
    proxy: str
    proxy_size: int


@dataclasses.dataclass(frozen=True)
class Search:
    """A finished search over N genotypes with a cohort of M.

    Attributes:
      scores: (N, K) values of the metric, in the order of the genotypes.
      cohort: (M,) indices of the fitted genotypes.
      weights: (M,) of the cohort in its mean.
      cohort_fits: M fits to the proxy.
      mean: The weighted mean of what they restored.
      selected: Position of the chosen one in the cohort.
      fit: Restoration by the chosen genotype from a fresh initialisation;
        `fit.restored` is the result.
      seconds: Time that each stage took here, 0 if it was found finished.
    """

    scores: np.ndarray
    cohort: np.ndarray
    weights: np.ndarray
    cohort_fits: list[Fit]
    mean: np.ndarray
    selected: int
    fit: Fit
    seconds: dict[str, float]


def restore(
    key: jax.Array,
    net: Any,
    problem: Problem,
    settings: FitSettings,
    *,
    iterations: int | None = None,
    truth: Any = None,
    snapshots: Sequence[int] = (),
    file: pathlib.Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Fit:
    """`fit` by settings; with a file, finished work is found there and unfinished resumed.

    A fit that was found finished comes without `variables`.
    """
    iterations = iterations or settings.iterations
    checkpoint = file and file.with_suffix(".checkpoint")

    def compute():
        result = fit(
            key,
            net,
            problem,
            iterations=iterations,
            **settings.of_fit(iterations),
            truth=truth,
            snapshots=snapshots,
            progress=progress,
            checkpoint=Checkpoint(checkpoint) if checkpoint else None,
        )
        taken = {f"snapshot_{at}": image for at, image in result.snapshots.items()}
        fields = {name: value for name, value in vars(result).items() if value is not None}
        return taken | {
            name: np.asarray(value)
            for name, value in fields.items()
            if name not in ("snapshots", "variables")
        }

    arrays = records.once(file, compute)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    taken = {
        int(name.removeprefix("snapshot_")): arrays.pop(name)
        for name in list(arrays)
        if name.startswith("snapshot_")
    }
    absent = dict.fromkeys(("psnr", "psnr_mean", "best", "variables"))
    restored_at = int(arrays.pop("restored_at"))
    return Fit(**{**absent, **arrays, "restored_at": restored_at, "snapshots": taken})  # type: ignore[arg-type]


def search(
    key: jax.Array,
    problem: Problem,
    task: str,
    genotypes: Sequence[Genotype],
    search_settings: SearchSettings,
    fit_settings: FitSettings,
    *,
    truth: Any = None,
    folder: pathlib.Path | None = None,
    progress: Callable[[str, Any], None] | None = None,
) -> Search:
    """Searches an architecture for one problem and restores with it.

    Args:
      key: Random key; everything follows from it.
      problem: What is known of the image.
      task: Its name in `observations.TASKS`.
      genotypes: The candidates.
      search_settings: How to search.
      fit_settings: How to fit.
      truth: The clean image, for the PSNR curves of the final fit only.
      folder: Where to keep finished stages and the state of the running fit;
        it must not hold those of another search.
      progress: Called with the stage's name and ("score") a pair done and
        total, or ("cohort 1/15", "restore") a `Progress`.

    Raises:
      ValueError: For settings that cannot be.
    """
    if search_settings.cohort_by not in COHORTS:
        raise ValueError(
            f"cohort_by {search_settings.cohort_by!r} is not a choice; "
            f"choose from {', '.join(COHORTS)}"
        )
    if not 1 <= search_settings.cohort <= len(genotypes):
        raise ValueError(
            f"a cohort of {search_settings.cohort} from {len(genotypes)} genotypes; "
            f"1 to {len(genotypes)} can be"
        )
    metric = metrics.find(search_settings.metric)
    score_key, draw_key, cohort_key, restore_key = jax.random.split(key, 4)
    channels, size = fit_settings.channels, search_settings.cohort
    stand_in = observations.proxy(problem, task, search_settings.proxy, search_settings.proxy_size)
    seconds, clock = {}, time.perf_counter()

    def lap(stage):
        nonlocal clock
        seconds[stage] = time.perf_counter() - clock
        clock = time.perf_counter()

    def told(stage):
        return progress and (lambda *news: progress(stage, news if len(news) > 1 else news[0]))

    def network(index):
        return build_network(
            genotypes[index],
            out_channels=problem.shape[2],
            channels=channels,
            remat=fit_settings.remat,
        )

    def file(name):
        return folder / f"{name}.npz" if folder else None

    scores = scoring.score_in_blocks(
        score_key,
        genotypes,
        problem,
        {"score": metric},
        num_inits=search_settings.num_inits,
        channels=channels,
        folder=folder,
        progress=told("score"),
    )["score"]
    lap("score")
    means = scores.mean(axis=1)
    if search_settings.cohort_by == "metric":
        cohort = selection.best_by_score(means, size)
    else:
        cohort = selection.at_random(draw_key, len(genotypes), size)
    nets = [network(index) for index in cohort]

    def compile_member(rank):
        found = rank < size and file(f"cohort_{rank:02d}")
        if rank == size or (found and found.exists()):
            return
        iterations = search_settings.cohort_iterations
        options = fit_settings.of_fit(iterations)
        compile_ahead(nets[rank], stand_in, iterations=iterations, **options)

    fits = []
    with ThreadPoolExecutor(1) as compiler:
        for rank, net in enumerate(nets):
            # While this one fits; what goes wrong there goes wrong again in its own fit.
            compiler.submit(compile_member, rank + 1)
            member = restore(
                jax.random.fold_in(cohort_key, rank),
                net,
                stand_in,
                fit_settings,
                iterations=search_settings.cohort_iterations,
                file=file(f"cohort_{rank:02d}"),
                progress=told(f"cohort {rank + 1}/{size}"),
            )
            fits.append(member)
    lap("cohort")
    weights = selection.metric_weights(means[cohort])
    images = np.stack([member.restored for member in fits])
    mean = selection.weighted_mean(images, weights)
    selected = selection.closest(images, mean)
    final = restore(
        restore_key,
        nets[selected],
        problem,
        fit_settings,
        truth=truth,
        file=file("restore"),
        progress=told("restore"),
    )
    lap("restore")
    return Search(scores, cohort, weights, fits, mean, selected, final, seconds)


def oracle(
    result: Search, problem: Problem, settings: SearchSettings, truth: Any
) -> list[float] | None:
    """Evaluation only: PSNR in dB of what every cohort member restored on the proxy.

    The best of them is the choice of an oracle that knows the clean image,
    which is cut as the observation was. None where the observation and the
    image differ in size, unless the proxy is the whole problem.
    """
    clean = observations.denoising(truth)
    if problem.observed.shape != clean.shape and settings.proxy != "full":
        return None
    cut = observations.proxy(clean, "denoising", settings.proxy, settings.proxy_size).observed
    return [float(quality.psnr(member.restored, cut)) for member in result.cohort_fits]
