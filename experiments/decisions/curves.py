r"""Fit networks far past their best iteration, and keep what every decision would have seen.

    python -m experiments.decisions.curves --part=noise25 --images=sample:chelsea \
        --output_dir=decisions

Each architecture of a part is fitted to the whole observation and to what each
split leaves of it, some also to what further folds leave, from the same
initialization. A killed run started again
goes on where it was; several may share a folder, each with images of its own.
What is kept of each fit: its curves, and the exponential mean at every 20th
iteration.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from absl import flags

from isnas_jax import study
from isnas_jax.fitting import Fit, FitConfig, cached_fit
from isnas_jax.fitting.stopping import Decision, MovingVariance, WindowedVariance
from isnas_jax.io import images
from isnas_jax.networks import SPACES, NetworkConfig, network_for, parse_architecture
from isnas_jax.problems import CoupledBootstrap, HoldOut, Problem, Split
from isnas_jax.registry import Registry
from isnas_jax.searching import METRICS, score
from isnas_jax.searching.cohort import lowest
from isnas_jax.study import store

from .. import cli

FLAGS = flags.FLAGS

EVERY = 20


@dataclasses.dataclass(frozen=True)
class Criteria:
    """Never stops; records the variance of a window of 50 (even iterations) or ES-EMV's (odd)."""

    windowed: WindowedVariance
    moving: MovingVariance

    def init(self, problem):
        return self.windowed.init(problem), self.moving.init(problem)

    def update(self, state, step):
        windowed, first = self.windowed.update(state[0], step)
        moving, second = self.moving.update(state[1], step)
        criterion = jnp.where(step.iteration % 2 == 0, first.criterion, second.criterion)
        return (windowed, moving), Decision(jnp.array(True), jnp.array(False), criterion)


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the measuring.

    Attributes:
      task: Name in `TASKS`.
      options: Of its corruption.
      iterations: How far to fit.
      best: How many genotypes to fit, the best of a pool by score.
      drawn: How many others of the pool to fit.
      splits: By name; "whole" is fitted besides.
      folds: How many, of the first split, for the baselines and the two genotypes
        of the better scores among the drawn; the others have one.
      baselines: Named networks to fit.
      channels: Width of the networks.
      pool: How many genotypes to draw and to score.
      refit_factor: How much longer the whole is fitted than the part was, by default.
    """

    task: str
    options: Mapping[str, float]
    iterations: int
    best: int
    drawn: int
    splits: Mapping[str, Split]
    folds: int = 1
    baselines: Sequence[str] = ("dip", "nas-dip")
    channels: int = 32
    pool: int = 64
    refit_factor: float = 1.0


_HELD: dict[str, Split] = {"held-out": HoldOut(0.1)}
_BOOTSTRAP: dict[str, Split] = {"bootstrap": CoupledBootstrap(0.15)}
_BOTH = _HELD | _BOOTSTRAP
PARTS = {
    "noise25": Part("denoising", {"sigma": 25.0}, 800, 4, 4, _BOTH),
    "inpainting": Part("inpainting", {"missing": 50.0}, 1200, 3, 3, _HELD, 3, refit_factor=1.5),
    "enlarging": Part("super_resolution", {"factor": 2}, 1200, 3, 3, _HELD, 3, refit_factor=1.5),
    "noise15": Part("denoising", {"sigma": 15.0}, 1100, 2, 2, _BOOTSTRAP),
    "noise50": Part("denoising", {"sigma": 50.0}, 600, 2, 2, _BOOTSTRAP),
    "wide": Part("denoising", {"sigma": 25.0}, 800, 1, 0, _BOOTSTRAP, 1, ("dip",), 128),
}


class Unit(NamedTuple):
    """One architecture on one image."""

    image: str
    architecture: str  # a genotype, or a name in `BASELINES`
    origin: str  # "baseline", "best" or "drawn"
    score: float  # nan of a baseline
    folded: bool  # whether it is fitted to all folds


def pose(part: Part, image: str, seed: int, size: int) -> study.Case:
    """An image's middle square in the part's task."""
    clean = images.resize(images.crop_to_square(images.load(image)), size)
    return study.pose(seed, image.removeprefix("sample:"), clean, part.task, **part.options)


def units(part: Part, case: study.Case, seed: int) -> Iterator[Unit]:
    """Whom to fit: baselines, the best by score, others of the pool, in this order."""
    for name in part.baselines:
        yield Unit(case.image, name, "baseline", np.nan, True)
    key = study.key_of(seed, "pool", case.image, part.task)
    genotypes = SPACES["free"].sample(key, part.pool, part.channels)
    config = NetworkConfig(part.channels)
    nets = [network_for(case.problem, genotype, config) for genotype in genotypes]
    scores = score(key, nets, case.problem, {"score": METRICS["psd_db_strip_mse"]})["score"]
    order = lowest(scores.mean(axis=1), part.pool)
    # The pool is drawn at random, so that its first are a random choice.
    drawn = [index for index in range(part.pool) if index not in order[: part.best]][: part.drawn]
    better = [index for index in order if index in drawn][:2]
    for origin, chosen in (("best", order[: part.best]), ("drawn", drawn)):
        for index in chosen:
            value = float(scores[index].mean())
            yield Unit(case.image, str(genotypes[index]), origin, value, index in better)


def splits_of(
    part: Part, case: study.Case, seed: int, folded: bool = True
) -> dict[str, tuple[Problem, Problem]]:
    """What splits leave of a case, and what they validate with: the same for all architectures.

    By the splits' names, and for further folds of the first "held-out 2" and so on.
    """
    key = study.key_of(seed, "split", case.image, part.task)
    found = {name: split(key, case.problem) for name, split in part.splits.items()}
    first, split = next(iter(part.splits.items()))
    for fold in range(1, part.folds if folded else 1):
        found[f"{first} {fold + 1}"] = split(key, case.problem, fold)
    return found


def settings_of(part: Part) -> FitConfig:
    """How a part's networks are fitted."""
    criteria = Criteria(WindowedVariance(50), MovingVariance(start=0))
    return FitConfig(part.iterations, criteria, snapshots=tuple(range(0, part.iterations, EVERY)))


def fits(part: Part, case: study.Case, unit: Unit, seed: int, folder: Any) -> dict[str, Fit]:
    """An architecture's fits to the whole and to what the splits leave, by the splits' names."""
    problem = case.problem
    architecture = parse_architecture(unit.architecture)
    net = network_for(problem, architecture, NetworkConfig(part.channels))
    problems = splits_of(part, case, seed, unit.folded)
    # Validated like the others, so that one program serves all.
    problems["whole"] = (problem, next(iter(problems.values()))[1])
    found = {}
    for name, (fitted, validation) in problems.items():
        place = store.unit_path("fits", case.image, str(seed), unit.architecture, name)
        found[name] = cached_fit(
            study.key_of(seed, "fit", case.image, part.task, unit.architecture),
            net,
            fitted,
            settings_of(part),
            validation=validation,
            clean=case.clean,
            folder=pathlib.Path(folder, place.with_suffix("")),
        )
    return found


def main(_: Sequence[str]) -> None:
    """The story: image after image, score a pool, fit the chosen."""
    if not FLAGS.images:
        raise ValueError("give --images: files, folders or sample:NAME")
    part = Registry("part", PARTS)[FLAGS.part]
    folder = pathlib.Path(FLAGS.output_dir, FLAGS.part)
    for path in images.find(FLAGS.images).values():
        for seed in range(FLAGS.first_seed, FLAGS.first_seed + FLAGS.num_seeds):
            case = pose(part, path, seed, FLAGS.size)
            for unit in units(part, case, seed):
                print(FLAGS.part, *unit, seed, flush=True)
                for name, done in fits(part, case, unit, seed, folder).items():
                    print(f"  {name}: {done}", flush=True)


if __name__ == "__main__":
    flags.DEFINE_string("part", None, "What to measure: " + ", ".join(PARTS) + ".")
    flags.DEFINE_list("images", None, "Clean images: files, folders or sample:NAME.")
    flags.DEFINE_string("output_dir", "decisions", "Folder of the fits.")
    flags.DEFINE_integer("size", 64, "Side of the images in pixels.")
    flags.DEFINE_integer("first_seed", 0, "The first seed.")
    flags.DEFINE_integer("num_seeds", 1, "How many seeds.")
    cli.run(main)
