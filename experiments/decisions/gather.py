r"""Gather finished fits into two small tables, from which decisions can be judged again.

    python -m experiments.decisions.gather --parts=noise25 --images=sample:chelsea \
        --input_dir=decisions --output_dir=docs/decisions

`curves.parquet` has a row a fit with its curves at every 5th iteration, and of
the debiased mean at every 20th. `members.parquet` has a row a case and split:
how much what its members restored, stopped by the least error of the debiased
mean, differs from the truth, pair by pair, and their residuals at the
measurements that validate. An image that is not finished in a part is left out.
"""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd
from absl import flags

from experiments import cli
from experiments.decisions.curves import PARTS, Part, Unit, pose, split_of, units
from isnas_jax import study
from isnas_jax.fitting import Fit
from isnas_jax.io import images, records
from isnas_jax.problems import Problem, classical
from isnas_jax.registry import Registry
from isnas_jax.searching import Cohort
from isnas_jax.study import store

FLAGS = flags.FLAGS

STEP = 5


class Member(NamedTuple):
    """What someone made of a case: of the split's part, and of the whole."""

    name: str
    origin: str
    score: float
    of_part: np.ndarray
    of_whole: np.ndarray


def load(folder: pathlib.Path, part: Part, unit: Unit, seed: int) -> dict[str, Fit]:
    """An architecture's fits by split; FileNotFoundError if one is not finished."""
    found = {}
    for name in ("whole", *part.splits):
        place = store.place("fits", unit.image, str(seed), unit.architecture, name)
        arrays, _ = records.read_arrays(folder / place.with_suffix(".npz"))
        found[name] = Fit.of_arrays(arrays)
    return found


def thinned(values: Any) -> np.ndarray:
    """Every 5th value, in four digits."""
    return np.array([float(f"{value:.4g}") for value in values[::STEP]], np.float32)


def rows_of(
    part: Part, name_of_part: str, case: study.Case, seed: int, unit: Unit, fits: dict[str, Fit]
) -> list[dict[str, Any]]:
    """A row a fit."""
    rows, truth = [], np.asarray(case.truth)
    for name, fit in fits.items():
        row: dict[str, Any] = {"part": name_of_part, **unit._asdict()}
        row |= {"seed": seed, "fitted": name}
        row |= {"loss": thinned(fit.loss), "psnr_mean": thinned(fit.psnr_mean)}
        means = list(debiased(fit).values())
        row["psnr_debiased"] = np.array([round(_psnr(image, truth), 3) for image in means])
        if name == "whole":
            # The variances take turns: a window's at even iterations, ES-EMV's at odd ones.
            row |= {
                "psnr": thinned(fit.psnr),
                "windowed": thinned(fit.criterion[::2][: len(fit.loss) // 2].repeat(2)),
                "moving": thinned(fit.criterion[1::2].repeat(2)),
            }
        else:
            row["validation"] = thinned(fit.validation)
            row["validation_debiased"] = validated(fit, split_of(part, case, seed, name)[1])
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


def _psnr(image: np.ndarray, truth: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(image - truth).mean()))


def validated(fit: Fit, validation: Problem) -> np.ndarray:
    """Validation errors of the debiased means at the snapshots."""
    means = map(jnp.asarray, debiased(fit).values())
    return np.array([float(validation.error(image)) for image in means])


def members_of(
    part: Part, case: study.Case, seed: int, split: str, fits: dict[Unit, dict[str, Fit]]
) -> list[Member]:
    """What each network, stopped by the validation, and each classical restoration made."""
    fitted, validation = split_of(part, case, seed, split)
    found = []
    for unit, of in fits.items():
        at = int(np.argmin(validated(of[split], validation)))
        means = [list(debiased(of[which]).values()) for which in (split, "whole")]
        later = min(round(part.refit_factor * at), len(means[1]) - 1)
        pictures = (means[0][at], means[1][later])
        found.append(Member(unit.architecture, unit.origin, unit.score, *pictures))
    for name in classical.names_of(part.task):
        made = (classical.restore(name, problem) for problem in (fitted, case.problem))
        found.append(Member(name, "classical", np.nan, *made))
    return found


def pairs(
    part: Part,
    name: str,
    case: study.Case,
    seed: int,
    split: str,
    fits: dict[Unit, dict[str, Fit]],
) -> dict[str, Any]:
    """The products of all pairs of members: of their errors by the truth and by the validation."""
    members = members_of(part, case, seed, split, fits)
    validation, truth = split_of(part, case, seed, split)[1], np.asarray(case.truth)
    of_part = np.stack([member.of_part for member in members])
    of_whole = np.stack([member.of_whole for member in members])
    scores = np.array([member.score for member in members])
    cohort = Cohort(members, scores, validation, validation, of_part, ())
    residuals = cohort.residuals().astype(np.float64)

    def products(pictures):
        off = (pictures - truth).reshape(len(members), -1).astype(np.float64)
        return (off @ off.T / truth.size).ravel()

    return {
        "part": name,
        "image": case.image,
        "seed": seed,
        "split": split,
        "names": [member.name for member in members],
        "origins": [member.origin for member in members],
        "scores": scores,
        "validation": (residuals @ residuals.T).ravel(),
        "of_part": products(of_part),
        "of_whole": products(of_whole),
    }


def main(_: Sequence[str]) -> None:
    """The story: every finished case's fits and members."""
    curves, members = [], []
    for name in FLAGS.parts:
        part = Registry("part", PARTS).find(name)
        for path in images.find(FLAGS.images).values():
            for seed in range(FLAGS.first_seed, FLAGS.first_seed + FLAGS.num_seeds):
                case = pose(part, path, seed, FLAGS.size)
                try:
                    fits = {
                        unit: load(pathlib.Path(FLAGS.input_dir, name), part, unit, seed)
                        for unit in units(part, case, seed)
                    }
                except FileNotFoundError:
                    print(f"{name}: {case.image} with seed {seed} is not finished")
                    continue
                for unit, found in fits.items():
                    curves += rows_of(part, name, case, seed, unit, found)
                for split in part.splits:
                    members.append(pairs(part, name, case, seed, split, fits))
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
