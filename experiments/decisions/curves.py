r"""Fit networks far past their best iteration and record the curves that every rule needs.

    python -m experiments.decisions.curves --experiment=noise25 --images=sample:chelsea \
        --output_dir=decisions

Each architecture of an experiment is fitted to all measurements and to the training
problem of each split, always from the same initialization. Each fit stores its curves
and the EMA at every 20th iteration. A command that was stopped resumes when it is
repeated. Several commands may use one folder if their images differ.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from isnas_jax import study
from isnas_jax.fitting import (
    Decision,
    Fit,
    FitConfig,
    FitJob,
    MovingVariance,
    WindowedVariance,
    cached_fit,
)
from isnas_jax.io import images
from isnas_jax.networks import NetworkConfig, free_space, network_for, sample_genotypes
from isnas_jax.problems import CoupledBootstrap, HoldOut, Problem, Split
from isnas_jax.registries import TASKS
from isnas_jax.registry import Registry
from isnas_jax.searching import psd_db_strip_mse, score
from isnas_jax.searching.cohort import lowest
from isnas_jax.study import store

from .. import building
from ..flags import define_images, define_seed
from ..main import FLAGS, run_script

SNAPSHOT_INTERVAL = 20  # iterations between two stored EMAs
CURVE_INTERVAL = 5  # iterations between two recorded values of a curve
CASE = ["experiment", "image", "seed"]  # columns that identify a case
ALL = "all"  # name of the fit to all measurements, next to those of the splits


@dataclasses.dataclass(frozen=True)
class RecordVariances:
    """Never stop; record the windowed variance at even iterations, the moving one at odd ones."""

    windowed: WindowedVariance
    moving: MovingVariance

    def init(self, problem, iterations):
        return self.windowed.init(problem, iterations), self.moving.init(problem, iterations)

    def update(self, state, step):
        windowed, windowed_decision = self.windowed.update(state[0], step)
        moving, moving_decision = self.moving.update(state[1], step)
        even = step.iteration % 2 == 0
        criterion = jnp.where(even, windowed_decision.criterion, moving_decision.criterion)
        return (windowed, moving), Decision(jnp.array(True), jnp.array(False), criterion)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Which networks to fit to which problem, and for how long.

    Baselines and the two random genotypes of lower score are fitted to all folds, other genotypes
    to one.
    """

    title: str  # heading of its tables
    task: str  # in `TASKS`
    options: Mapping[str, float]  # of the task's corruption
    iterations: int  # of each fit
    num_top: int  # genotypes with the lowest scores to fit
    num_random: int  # other genotypes to fit
    splits: Mapping[str, Split]
    folds: int = 1  # of the first split
    baselines: Sequence[str] = ("dip", "nas-dip")
    channels: int = 32
    num_genotypes: int = 64  # to draw and score
    refit_factor: float = 1.0  # length of a refit relative to the validated fits


_HELD_OUT: dict[str, Split] = {"held-out": HoldOut(0.1)}
_BOOTSTRAP: dict[str, Split] = {"bootstrap": CoupledBootstrap(0.15)}


def _denoising(
    sigma: int, iterations: int, num: int, splits: Mapping[str, Split] = _BOOTSTRAP
) -> Experiment:
    title, options = f"Denoising, σ = {sigma}", {"sigma": float(sigma)}
    return Experiment(title, "denoising", options, iterations, num, num, splits)


def _incomplete(title: str, task: str, options: Mapping[str, float]) -> Experiment:
    return Experiment(title, task, options, 1200, 3, 3, _HELD_OUT, folds=3, refit_factor=1.5)


EXPERIMENTS = {
    "noise25": _denoising(25, 800, 4, _HELD_OUT | _BOOTSTRAP),
    "inpainting": _incomplete("Inpainting, 50 % missing", "inpainting", {"missing": 50.0}),
    "super_resolution": _incomplete("Super-resolution ×2", "super_resolution", {"factor": 2}),
    "noise15": _denoising(15, 1100, 2),
    "noise50": _denoising(50, 600, 2),
    "wide": dataclasses.replace(
        _denoising(25, 800, 1),
        title="Denoising, σ = 25, 128 channels",
        num_random=0,
        baselines=("dip",),
        channels=128,
    ),
}


class Network(NamedTuple):
    """One architecture on one image."""

    image: str
    architecture: str  # a genotype, or a name in `BASELINES`
    origin: str  # "baseline", "top" (lowest scores) or "random"
    score: float  # nan for a baseline
    all_folds: bool  # whether to fit it to all folds or to the first


@dataclasses.dataclass(frozen=True)
class Recording:
    """The fits of an experiment to one image with one seed."""

    name: str  # of the experiment
    experiment: Experiment
    case: study.Case
    seed: int
    folder: pathlib.Path  # of the experiment's fits

    def _key(self, purpose: str, *names: str) -> jax.Array:
        return study.key_of(self.seed, purpose, self.case.image, self.experiment.task, *names)

    def networks(self) -> Iterator[Network]:
        """Yield the networks to fit: baselines, top genotypes by score, then random ones."""
        experiment, case = self.experiment, self.case
        for name in experiment.baselines:
            yield Network(case.image, name, "baseline", np.nan, True)
        key, total, num_top = self._key("pool"), experiment.num_genotypes, experiment.num_top
        genotypes = sample_genotypes(key, total, channels=experiment.channels)
        config = NetworkConfig(experiment.channels)
        nets = [network_for(case.problem, genotype, config) for genotype in genotypes]
        scores = score(key, nets, case.problem, {"score": psd_db_strip_mse})["score"]
        order = lowest(scores.mean(axis=1), total)
        # The genotypes are drawn at random, so their first ones are a random choice.
        random = [index for index in range(total) if index not in order[:num_top]]
        random = random[: experiment.num_random]
        top_half = [index for index in order if index in random][:2]
        for origin, indices in (("top", order[:num_top]), ("random", random)):
            for index in indices:
                value = float(scores[index].mean())
                yield Network(case.image, str(genotypes[index]), origin, value, index in top_half)

    def problems(self, all_folds: bool = True) -> dict[str, tuple[Problem, Problem]]:
        """Return the training and validation problem of each split, equal for all architectures.

        Further folds of the first split are named "held-out 2" and so on.
        """
        key, splits = self._key("split"), self.experiment.splits
        problems = {name: split(key, self.case.problem) for name, split in splits.items()}
        first, split = next(iter(splits.items()))
        for fold in range(1, self.experiment.folds if all_folds else 1):
            problems[f"{first} {fold + 1}"] = split(key, self.case.problem, fold)
        return problems

    def path(self, network: Network, fitted_to: str) -> pathlib.Path:
        """Return the folder of a fit to all measurements or to a split's training problem."""
        names = network.image, str(self.seed), network.architecture, fitted_to
        return self.folder / store.unit_path("fits", *names).with_suffix("")

    def fits(self, network: Network) -> dict[str, Fit]:
        """Return a network's fits by name: to each split's training problem, and to "all"."""
        case, config = self.case, NetworkConfig(self.experiment.channels)
        architecture = building.architecture(network.architecture, free_space)
        net = network_for(case.problem, architecture, config)
        key = self._key("fit", network.architecture)
        problems = self.problems(network.all_folds)
        # With a validation problem like the others, so that all fits run the same program.
        problems[ALL] = (case.problem, next(iter(problems.values()))[1])
        return {
            name: cached_fit(
                FitJob(jax.random.clone(key), net, training, case.clean, validation),
                fit_config(self.experiment),
                self.path(network, name),
            )
            for name, (training, validation) in problems.items()
        }


def fit_config(experiment: Experiment) -> FitConfig:
    """Return the config of the experiment's fits."""
    iterations = experiment.iterations
    rule = RecordVariances(WindowedVariance(50), MovingVariance(start=0))
    return FitConfig(iterations, rule, snapshots=tuple(range(0, iterations, SNAPSHOT_INTERVAL)))


def define_recordings() -> None:
    """Define the flags of the images and of the seed."""
    define_images()
    flags.DEFINE_integer("size", 64, "Side of the images in pixels.")
    define_seed("Seed of everything random.")


def recordings(name: str, folder: str) -> Iterator[Recording]:
    """Yield an experiment's recordings in a folder, one for the middle square of each image."""
    experiment = Registry("experiment", EXPERIMENTS)[name]
    task = TASKS[experiment.task]
    for path in building.find_images().values():
        clean = images.resize(images.crop_to_square(images.load(path)), FLAGS.size)
        image = path.removeprefix("sample:")
        case = study.pose(FLAGS.seed, image, clean, task, **experiment.options)
        yield Recording(name, experiment, case, FLAGS.seed, pathlib.Path(folder, name))


def define_flags() -> None:
    """Define the flags of this script."""
    flags.DEFINE_string("experiment", None, f"One of {', '.join(EXPERIMENTS)}.")
    flags.DEFINE_string("output_dir", "decisions", "Folder for the fits.")
    define_recordings()


def main() -> None:
    """For each image, score the genotypes, then fit the chosen networks."""
    for recording in recordings(FLAGS.experiment, FLAGS.output_dir):
        for network in recording.networks():
            print(FLAGS.experiment, *network, FLAGS.seed, flush=True)
            for name, fit in recording.fits(network).items():
                print(f"  {name}: {fit}", flush=True)


if __name__ == "__main__":
    run_script(main, define_flags)
