r"""Gather finished fits into two small tables, from which decisions can be judged again.

    python -m experiments.decisions.gather --parts=noise25 --images=sample:chelsea \
        --input_dir=decisions --output_dir=docs/decisions

`curves.parquet` has a row a fit with its curves at every 5th iteration, and of
the debiased mean at every 20th. `members.parquet` has a row a case and split:
how much what its members restored, stopped by the least error of the debiased
mean, differs from the clean image, pair by pair, and their residuals at the
measurements that validate. An image that is not finished in a part is left out.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd
from absl import flags

from isnas_jax import study
from isnas_jax.fitting import Fit
from isnas_jax.io import images, records
from isnas_jax.ops import quality
from isnas_jax.problems import Problem, classical
from isnas_jax.registry import Registry
from isnas_jax.searching import Cohort, Fold
from isnas_jax.searching.presets import quick
from isnas_jax.study import store

from .. import cli
from .curves import EVERY, PARTS, Part, Unit, pose, splits_of, units

FLAGS = flags.FLAGS

STEP = 5


class Recorded(NamedTuple):
    """A fit, and at its snapshots the means without bias and their validation errors."""

    fit: Fit
    means: list[np.ndarray]
    errors: np.ndarray  # none of the whole, which is not validated


class Member(NamedTuple):
    """What someone made of a case: of the splits' parts, and of the whole."""

    name: str
    origin: str
    score: float
    of_parts: list[np.ndarray]
    of_whole: np.ndarray


def load(
    folder: pathlib.Path, part: Part, case: study.Case, unit: Unit, seed: int
) -> dict[str, Recorded]:
    """An architecture's fits by split; FileNotFoundError if one is not finished."""
    found, splits = {}, splits_of(part, case, seed, unit.folded)
    for name in ("whole", *splits):
        place = store.unit_path("fits", unit.image, str(seed), unit.architecture, name)
        kept = list((folder / place.with_suffix("")).glob("*.npz"))
        if not kept:
            raise FileNotFoundError(f"no fit in {folder / place.with_suffix('')}")
        if len(kept) > 1:
            raise ValueError(f"{len(kept)} fits in {folder / place.with_suffix('')}, not one")
        arrays, _ = records.read_arrays(kept[0])
        fit = Fit.of_arrays(arrays)
        means, errors = list(debiased(fit).values()), np.zeros(0)
        if name != "whole":
            _, validation = splits[name]
            errors = np.array([float(validation.error(jnp.asarray(mean))) for mean in means])
        found[name] = Recorded(fit, means, errors)
    return found


def thinned(values: Any) -> np.ndarray:
    """Every 5th value, in four digits."""
    return np.array([float(f"{value:.4g}") for value in values[::STEP]], np.float32)


def rows_of(
    part: str, case: study.Case, seed: int, unit: Unit, fits: dict[str, Recorded]
) -> list[dict[str, Any]]:
    """A row a fit."""
    rows = []
    for name, (fit, means, errors) in fits.items():
        row: dict[str, Any] = {"part": part, **unit._asdict()}
        row |= {"seed": seed, "fitted": name}
        row |= {"loss": thinned(fit.loss), "psnr_ema": thinned(fit.psnr_ema)}
        reached = [float(quality.psnr(image, case.clean)) for image in means]
        row["psnr_debiased"] = np.array(reached).round(3)
        if name == "whole":
            # The variances take turns: a window's at even iterations, ES-EMV's at odd ones.
            row |= {
                "psnr": thinned(fit.psnr),
                "windowed": thinned(fit.criterion[::2][: len(fit.loss) // 2].repeat(2)),
                "moving": thinned(fit.criterion[1::2].repeat(2)),
            }
        else:
            row["validation"] = thinned(fit.validation)
            row["validation_debiased"] = errors
        rows.append(row)
    return rows


def debiased(fit: Fit, decay: float = 0.99) -> dict[int, np.ndarray]:
    """The means at the snapshots without the first output's excess weight.

    m_t = decay^t x_0 + ..., where x_0 deserves (1 - decay) decay^t.
    """
    first = fit.snapshots[0]
    return {
        at: (mean - decay ** (at + 1) * first) / (1 - decay ** (at + 1))
        for at, mean in fit.snapshots.items()
    }


def stop(errors: np.ndarray, most: int) -> int:
    """Where the default rule stops among errors at every 20th iteration, of most iterations."""
    recorded = pd.Series(errors[: most // EVERY])
    smoothed, at = recorded.ewm(alpha=1 - 0.9**EVERY, adjust=False).mean().to_numpy(), 0
    patience = most // 10 // EVERY
    while (later := smoothed[at + 1 : at + 1 + patience]).size and later.min() < smoothed[at]:
        at += 1 + int(np.argmax(later < smoothed[at]))
    return at


def members_of(
    part: Part,
    case: study.Case,
    splits: Mapping[str, tuple[Problem, Problem]],
    fits: Mapping[Unit, Mapping[str, Recorded]],
) -> list[Member]:
    """What networks, stopped by the validation, and classical restorations made.

    Those who were fitted to what all of the splits leave.
    """
    found, most = [], quick(case.problem).fit.iterations
    for unit, of in fits.items():
        if not splits.keys() <= of.keys():
            continue
        stops = [stop(of[name].errors, most) for name in splits]
        whole = of["whole"].means
        later = min(round(part.refit_factor * float(np.mean(stops))), len(whole) - 1)
        parts = [of[name].means[at] for name, at in zip(splits, stops, strict=True)]
        found.append(Member(unit.architecture, unit.origin, unit.score, parts, whole[later]))
    for name in classical.names_of(part.task):
        parts = [classical.restore(name, fitted) for fitted, _ in splits.values()]
        made = classical.restore(name, case.problem)
        found.append(Member(name, "classical", np.nan, parts, made))
    return found


def cohort_of(
    case: study.Case, splits: Mapping[str, tuple[Problem, Problem]], members: Sequence[Member]
) -> Cohort:
    """The members as a search has them."""
    folds = [
        Fold(*split, np.stack([member.of_parts[fold] for member in members]), [None] * len(members))
        for fold, split in enumerate(splits.values())
    ]
    scores = np.array([member.score for member in members])
    return Cohort([member.name for member in members], scores, case.problem, folds)


def pairs(
    part: str,
    case: study.Case,
    seed: int,
    splits: Mapping[str, tuple[Problem, Problem]],
    fits: Mapping[Unit, Mapping[str, Recorded]],
) -> dict[str, Any]:
    """Inner products of all pairs of members, of true errors and of validation residuals."""
    members = members_of(PARTS[part], case, splits, fits)
    cohort, clean = cohort_of(case, splits, members), np.asarray(case.clean)
    residuals = cohort.residuals.astype(np.float64)

    def products(pictures):
        off = (pictures - clean).reshape(len(members), -1).astype(np.float64)
        return (off @ off.T / clean.size).ravel()

    return {
        "part": part,
        "image": case.image,
        "seed": seed,
        "split": next(iter(splits)) + (f", {len(splits)} folds" if len(splits) > 1 else ""),
        "names": cohort.members,
        "origins": [member.origin for member in members],
        "scores": cohort.scores,
        "validation": (residuals @ residuals.T).ravel(),
        "of_part": products(cohort.images),
        "of_whole": products(np.stack([member.of_whole for member in members])),
    }


def main(_: Sequence[str]) -> None:
    """The story: every finished case's fits and members."""
    curves, members = [], []
    for name in FLAGS.parts:
        part = Registry("part", PARTS)[name]
        for path in images.find(FLAGS.images).values():
            for seed in range(FLAGS.first_seed, FLAGS.first_seed + FLAGS.num_seeds):
                case = pose(part, path, seed, FLAGS.size)
                try:
                    fits = {
                        unit: load(pathlib.Path(FLAGS.input_dir, name), part, case, unit, seed)
                        for unit in units(part, case, seed)
                    }
                except FileNotFoundError:
                    print(f"{name}: {case.image} with seed {seed} is not finished")
                    continue
                for unit, found in fits.items():
                    curves += rows_of(name, case, seed, unit, found)
                splits = splits_of(part, case, seed)
                for split in part.splits:
                    members.append(pairs(name, case, seed, {split: splits[split]}, fits))
                if part.folds > 1:
                    first = next(iter(part.splits))
                    folds = {n: of for n, of in splits.items() if n.startswith(first)}
                    members.append(pairs(name, case, seed, folds, fits))
    folder = pathlib.Path(FLAGS.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for rows, table in ((curves, "curves"), (members, "members")):
        pd.DataFrame(rows).to_parquet(
            folder / f"{table}.parquet", index=False, compression="zstd", compression_level=19
        )
        print(f"{len(rows)} rows in {folder / table}.parquet")


if __name__ == "__main__":
    flags.DEFINE_list("parts", list(PARTS), "Parts by name.")
    flags.DEFINE_list("images", None, "The images that were fitted.")
    flags.DEFINE_string("input_dir", "decisions", "Folder of the fits.")
    flags.DEFINE_string("output_dir", "docs/decisions", "Folder of the tables.")
    flags.DEFINE_integer("size", 64, "Side of the images in pixels.")
    flags.DEFINE_integer("first_seed", 0, "The first seed.")
    flags.DEFINE_integer("num_seeds", 1, "How many seeds.")
    cli.run(main)
