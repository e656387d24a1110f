"""The rows that units of a study add to its tables."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np
import pyarrow as pa

from isnas_jax.fitting import Fit, FitConfig, FitJob, RunToEnd, fit_each
from isnas_jax.io import Checkpoint
from isnas_jax.ops import quality
from isnas_jax.problems import Problem, denoising
from isnas_jax.running import Event, Progress
from isnas_jax.searching import random_outputs, score_outputs
from isnas_jax.study import store
from isnas_jax.study.units import Case, FitUnit, ScoreUnit, Study, key_of

SNAPSHOT_INTERVAL = 20  # iterations between two PSNRs of the EMA of equation 4


def compute_fits(
    study: Study,
    work: Sequence[FitUnit],
    on_end: Callable[[FitUnit, pa.Table | FloatingPointError], None],
    progress: Progress,
    checkpoints: Sequence[Checkpoint],
) -> None:
    """Compute fits that share a program, and pass on the rows of each, or its error."""
    task = work[0].case.task
    net = study.build(work[0].architecture, work[0].case.problem)
    config = followed_config(study, task)
    jobs = []
    for unit, checkpoint in zip(work, checkpoints, strict=True):
        key = key_of(study.seed, "fit", unit.case.image, task, unit.seed)
        jobs.append(FitJob(key, net, unit.case.problem, unit.case.clean, checkpoint=checkpoint))

    def end(index: int, result: Fit | FloatingPointError) -> None:
        unit = work[index]
        if isinstance(result, Fit):
            on_end(unit, fit_row(unit, result, config.ema_decay))
        else:
            on_end(unit, result)

    def report(event: Event) -> None:
        progress(event._replace(stage=work[event.stage[1] - 1].name))

    fit_each(jobs, config, end, progress=report)


def followed_config(study: Study, task: str) -> FitConfig:
    """Return the config of a task's fits, which do not end where a restoration would."""
    config, iterations = study.fit[task], study.follow[task]
    return dataclasses.replace(
        config,
        iterations=iterations,
        stopping=RunToEnd(config.stopping, config.iterations),
        snapshots=tuple(range(0, iterations, SNAPSHOT_INTERVAL) if config.debias else ()),
    )


def _biased_psnr(result: Fit, ema_decay: float, clean: jax.Array) -> jax.Array | None:
    """Return the PSNR of the EMA of equation 4 at the snapshots of the EMA without its bias.

    Both average the same outputs; equation 4 gives a larger weight to the first, snapshot 0.
    """
    if not result.snapshots:
        return None
    emas = np.stack([*result.snapshots.values()])
    bias = np.float32(ema_decay) ** (np.array([*result.snapshots], np.float32) + 1)
    bias = bias.reshape(-1, 1, 1, 1)
    return jax.vmap(quality.psnr, (0, None))((1 - bias) * emas + bias * emas[0], clean)


def fit_row(unit: FitUnit, result: Fit, ema_decay: float) -> pa.Table:
    """Return the row of a fit; see `store.FITS`."""
    case = unit.case
    psnr, psnr_ema = np.asarray(result.psnr), np.asarray(result.psnr_ema)
    same_size = case.problem.observed.shape == case.clean.shape
    row = (
        unit.architecture,
        case.image,
        case.task,
        unit.seed,
        sum(leaf.size for leaf in jax.tree.leaves(result.variables)),
        len(result.loss),
        quality.psnr(case.problem.observed, case.clean) if same_size else None,
        psnr.max(),
        psnr.argmax(),
        psnr_ema.max(),
        psnr_ema.argmax(),
        psnr[-1],
        psnr_ema[-1],
        result.loss[-1],
        result.restored_at,
        quality.psnr(result.restored, case.clean),
        quality.ssim(result.restored, case.clean),
        result.loss,
        psnr,
        psnr_ema,
        _biased_psnr(result, ema_decay, case.clean),
        result.validation,
        result.criterion,
        store.to_bytes(result.restored),
        store.to_bytes(result.best),
    )
    return store.table([row], store.FITS)


def compute_scores(study: Study, unit: ScoreUnit) -> pa.Table:
    """Return the rows of a genotype's scores in all cases."""
    outputs: dict[Sequence[int], jax.Array] = {}
    rows = []
    for case in study.cases:
        shape = case.problem.shape
        if shape not in outputs:
            outputs[shape] = draw_outputs(study, unit.architecture, case.problem)
        rows += score_rows(study, unit.architecture, case, outputs[shape])
    return store.table(rows, store.score_schema(study.metrics))


def draw_outputs(study: Study, architecture: str, problem: Problem) -> jax.Array:
    """Return an architecture's random outputs (K, H, W, C) for images of a problem's shape."""
    net = study.build(architecture, problem)
    return random_outputs(key_of(study.seed, "score"), net, problem.shape, study.inits)


def score_rows(study: Study, architecture: str, case: Case, outputs: jax.Array) -> list[tuple]:
    """Return the rows of a case's scores; see `store.score_schema`."""
    problem = case.problem
    compared = {"observed": (problem, outputs), "clean": (denoising(case.clean), outputs)}
    if bool((problem.weights == 0).any()):
        known = (problem.weights > 0).astype(outputs.dtype)
        masked = known * jax.vmap(problem.operator)(outputs)
        compared["masked"] = denoising(problem.observed), masked
    rows = []
    for reference, (target, shown) in compared.items():
        scores = score_outputs(shown, target, study.metrics)
        for output in range(study.inits.num):
            row = (architecture, case.image, case.task, reference, output)
            rows.append((*row, *(scores[name][output] for name in study.metrics)))
    return rows


def image_row(case: Case) -> pa.Table:
    """Return the row of a case's images; see `store.IMAGES`."""
    sizes = *case.clean.shape, *case.problem.observed.shape[:2]
    pixels = map(store.to_bytes, (case.clean, case.problem.observed))
    return store.table([(case.image, case.task, *sizes, *pixels)], store.IMAGES)
