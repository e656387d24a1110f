r"""Gather finished fits into two small tables, which `tables` judges decisions from.

    python -m experiments.decisions.gather --experiments=noise25 --images=sample:chelsea \
        --input_dir=decisions --output_dir=docs/decisions

`curves.parquet` has one row per fit, with its curves at every 5th iteration and those of
the bias-corrected EMA at every 20th. `members.parquet` has one row per case and split,
with inner products between the errors of the members' restorations, and between their
validation residuals. The fits of a member stop as by default. Cases with unfinished fits
are skipped.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd
from absl import flags

from isnas_jax.fitting import Fit
from isnas_jax.io import cache
from isnas_jax.ops import quality
from isnas_jax.problems import Problem, classical
from isnas_jax.registries import CLASSICAL
from isnas_jax.searching import Cohort, Fold
from isnas_jax.searching.presets import quick

from ..main import FLAGS, run_script
from .curves import (
    ALL,
    CURVE_INTERVAL,
    EXPERIMENTS,
    SNAPSHOT_INTERVAL,
    Network,
    Recording,
    define_recordings,
    recordings,
)
from .stopping import least_validation


class RecordedFit(NamedTuple):
    """A fit, and the bias-corrected EMA at its snapshots with the validation errors."""

    fit: Fit
    emas: list[np.ndarray]
    errors: np.ndarray  # empty for the fit to all measurements


class Member(NamedTuple):
    """Restorations by one network or classical method."""

    name: str
    origin: str
    score: float
    by_split: list[np.ndarray]  # from the training problem of each split
    restored: np.ndarray  # from all measurements


SplitProblems = Mapping[str, tuple[Problem, Problem]]
Fits = Mapping[Network, Mapping[str, RecordedFit]]


def load(recording: Recording, network: Network) -> dict[str, RecordedFit]:
    """Return a network's fits by name; FileNotFoundError if one is not finished."""
    fits, problems = {}, recording.problems(network.all_folds)
    for name in (ALL, *problems):
        path = recording.path(network, name)
        files = list(path.glob("*.npz"))
        if not files:
            raise FileNotFoundError(f"no fit in {path}")
        if len(files) > 1:
            raise ValueError(f"{len(files)} fits in {path}; there must be one")
        arrays, _ = cache.read_arrays(files[0])
        fit = Fit.from_arrays(arrays)
        emas, errors = list(debiased(fit).values()), np.zeros(0)
        if name != ALL:
            _, validation = problems[name]
            errors = np.array([float(validation.error(jnp.asarray(ema))) for ema in emas])
        fits[name] = RecordedFit(fit, emas, errors)
    return fits


def debiased(fit: Fit, decay: float = 0.99) -> dict[int, np.ndarray]:
    """Return the bias-corrected EMAs at the snapshots.

    The EMA m_t starts from the first output x_0, whose weight is decay^t instead of
    (1 - decay) decay^t: the excess is removed, and the rest is divided by its weights.
    """
    first = fit.snapshots[0]
    return {
        iteration: (ema - decay ** (iteration + 1) * first) / (1 - decay ** (iteration + 1))
        for iteration, ema in fit.snapshots.items()
    }


def thin(values: Any) -> np.ndarray:
    """Return every 5th value, rounded to four digits."""
    return np.array([float(f"{value:.4g}") for value in values[::CURVE_INTERVAL]], np.float32)


def curve_rows(
    recording: Recording, network: Network, fits: Mapping[str, RecordedFit]
) -> list[dict[str, Any]]:
    """Return the rows of `curves.parquet` for one network, one per fit."""
    rows = []
    for name, (fit, emas, errors) in fits.items():
        row: dict[str, Any] = {"experiment": recording.name, **network._asdict()}
        row |= {"seed": recording.seed, "fitted_to": name}
        row |= {"loss": thin(fit.loss), "psnr_ema": thin(fit.psnr_ema)}
        psnrs = [float(quality.psnr(ema, recording.case.clean)) for ema in emas]
        row["psnr_debiased"] = np.array(psnrs).round(3)
        if name == ALL:
            # `RecordVariances` alternates: windowed at even iterations, moving at odd ones.
            row |= {
                "psnr": thin(fit.psnr),
                "windowed_variance": thin(fit.criterion[::2][: len(fit.loss) // 2].repeat(2)),
                "moving_variance": thin(fit.criterion[1::2].repeat(2)),
            }
        else:
            row |= {"validation": thin(fit.validation), "validation_debiased": errors}
        rows.append(row)
    return rows


def members_of(recording: Recording, problems: SplitProblems, fits: Fits) -> list[Member]:
    """Return the restorations of all networks fitted to these splits, and the classical ones."""
    members: list[Member] = []
    experiment, problem = recording.experiment, recording.case.problem
    iterations = quick(problem).fit.iterations
    for network, recorded in fits.items():
        if not problems.keys() <= recorded.keys():
            continue
        stops = [
            least_validation(recorded[name].errors, SNAPSHOT_INTERVAL, iterations)
            for name in problems
        ]
        emas = recorded[ALL].emas
        refit_stop = min(round(experiment.refit_factor * float(np.mean(stops))), len(emas) - 1)
        by_split = [recorded[name].emas[at] for name, at in zip(problems, stops, strict=True)]
        members.append(
            Member(network.architecture, network.origin, network.score, by_split, emas[refit_stop])
        )
    for name, method in CLASSICAL.items():
        if method.task == experiment.task:
            by_split = [classical.restore(method, training) for training, _ in problems.values()]
            restored = classical.restore(method, problem)
            members.append(Member(name, "classical", np.nan, by_split, restored))
    return members


def cohort_of(problem: Problem, problems: SplitProblems, members: Sequence[Member]) -> Cohort:
    """Return the members as the cohort of a search, with one fold per split."""
    restorations = [np.stack(images) for images in zip(*(m.by_split for m in members), strict=True)]
    folds = [
        Fold(*pair, images, [None] * len(members))
        for pair, images in zip(problems.values(), restorations, strict=True)
    ]
    scores = np.array([member.score for member in members])
    return Cohort([member.name for member in members], scores, problem, folds)


def member_row(recording: Recording, problems: SplitProblems, fits: Fits) -> dict[str, Any]:
    """Return a row of `members.parquet`; products of M members are (M, M), flattened."""
    case, members = recording.case, members_of(recording, problems, fits)
    cohort, clean = cohort_of(case.problem, problems, members), np.asarray(case.clean)
    residuals = cohort.residuals.astype(np.float64)

    def error_products(restorations):
        errors = (restorations - clean).reshape(len(members), -1).astype(np.float64)
        return (errors @ errors.T / clean.size).ravel()

    folds = f", {len(problems)} folds" if len(problems) > 1 else ""
    return {
        "experiment": recording.name,
        "image": case.image,
        "seed": recording.seed,
        "split": next(iter(problems)) + folds,
        "names": cohort.members,
        "origins": [member.origin for member in members],
        "scores": cohort.scores,
        "residual_products": (residuals @ residuals.T).ravel(),
        "split_error_products": error_products(cohort.images),
        "error_products": error_products(np.stack([member.restored for member in members])),
    }


def rows_of(recording: Recording) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a case's rows of both tables; FileNotFoundError if a fit is not finished."""
    fits = {network: load(recording, network) for network in recording.networks()}
    curves = [row for network in fits for row in curve_rows(recording, network, fits[network])]
    problems, splits = recording.problems(), recording.experiment.splits
    groups = [{split: problems[split]} for split in splits]
    if recording.experiment.folds > 1:
        first = next(iter(splits))
        groups.append({name: pair for name, pair in problems.items() if name.startswith(first)})
    return curves, [member_row(recording, group, fits) for group in groups]


def define_flags() -> None:
    """Define the flags of this script."""
    flags.DEFINE_list("experiments", list(EXPERIMENTS), "Experiments by name.")
    flags.DEFINE_string("input_dir", "decisions", "Folder of the fits.")
    flags.DEFINE_string("output_dir", "docs/decisions", "Folder for the tables.")
    define_recordings()


def main() -> None:
    """Gather the fits of each finished case and write the two tables."""
    tables: dict[str, list[dict[str, Any]]] = {"curves": [], "members": []}
    for name in FLAGS.experiments:
        for recording in recordings(name, FLAGS.input_dir):
            try:
                curves, members = rows_of(recording)
            except FileNotFoundError as error:
                print(f"{name}, {recording.case.image} skipped: {error}")
                continue
            tables["curves"] += curves
            tables["members"] += members
    folder = pathlib.Path(FLAGS.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for table, rows in tables.items():
        file = folder / f"{table}.parquet"
        frame = pd.DataFrame(rows)
        frame.to_parquet(file, index=False, compression="zstd", compression_level=19)
        print(f"{len(rows)} rows in {file}")


if __name__ == "__main__":
    run_script(main, define_flags)
