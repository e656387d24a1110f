"""Studies of many architectures: what there is to fit and to score, unit by unit.

A unit of work is one fit, or the scores of one architecture. It is a pure
function of the study and its own name: every key follows from the study's seed
and the names of what is computed, so that it does not matter when, where or
beside what a unit runs, or in what order things are listed. Images are float32
(H, W, C) in [0, 1].
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from isnas_jax import _keys, _programs
from isnas_jax.fitting import FitConfig
from isnas_jax.networks import BASELINES, SPACES, NetworkConfig, Space
from isnas_jax.problems import TASKS, Problem
from isnas_jax.searching import Metric, RandomInits


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """An image in a task.

    Attributes:
      image: Its name.
      clean: (H, W, C).
      problem: What a fit gets to see.
    """

    image: str
    clean: jax.Array
    problem: Problem

    @property
    def task(self) -> str:
        """Of the problem."""
        return self.problem.task


@dataclasses.dataclass(frozen=True)
class Study:
    """What to study: every architecture on every case with every seed.

    Attributes:
      seed: Everything random follows from it.
      cases: Images in tasks, no pair twice.
      genotypes: Architectures to score and to fit.
      baselines: Architectures to fit beside them, names in `BASELINES`.
      seeds: Fits of an architecture to a case; all architectures share their
        keys.
      network: What all networks have in common.
      fit: How a restoration would be fitted in each task.
      follow: To which iteration fits go on in each task, for the stopping
        rule only marks what would have been restored.
      metrics: What to score by.
      inits: Which random outputs of each genotype to score.
      space: Whose genotypes they are.
    """

    seed: int
    cases: Sequence[Case]
    genotypes: Sequence[Any]
    baselines: Sequence[str]
    seeds: int
    network: NetworkConfig
    fit: Mapping[str, FitConfig]
    follow: Mapping[str, int]
    metrics: Mapping[str, Metric]
    inits: RandomInits = RandomInits()
    space: Space = SPACES["free"]

    def __post_init__(self) -> None:
        for name in self.baselines:
            BASELINES[name]
        for names in (
            [f"{case.image} for {case.task}" for case in self.cases],
            [*map(str, self.genotypes), *self.baselines],
        ):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{twice[0]} is there twice")
        if self.seeds < 1:
            raise ValueError(f"seeds {self.seeds} must be at least 1")
        for task, config in self.fit.items():
            if self.follow[task] < config.iterations:
                raise ValueError(
                    f"{task}: fits of {config.iterations} iterations cannot be followed for "
                    f"{self.follow[task]} only"
                )


def fit_name(task: str, image: str, architecture: str, seed: int) -> tuple[str, ...]:
    """The name of a `FitUnit`."""
    return ("fits", task, image, architecture, str(seed))


class FitUnit(NamedTuple):
    """One fit."""

    architecture: str
    case: Case
    seed: int

    @property
    def name(self) -> tuple[str, ...]:
        """What tells it from all other units."""
        return fit_name(self.case.task, self.case.image, self.architecture, self.seed)


class ScoreUnit(NamedTuple):
    """The scores of one genotype in all cases."""

    architecture: str

    @property
    def name(self) -> tuple[str, ...]:
        """What tells it from all other units."""
        return ("scores", self.architecture)


Unit: TypeAlias = FitUnit | ScoreUnit


def units(study: Study) -> list[Unit]:
    """All there is to do, one architecture after the other: a beginning is a smaller study."""
    todo: list[Unit] = []
    for architecture in [*study.baselines, *map(str, study.genotypes)]:
        if architecture not in study.baselines:
            todo.append(ScoreUnit(architecture))
        # Cases of one task share compiled programs.
        for case in sorted(study.cases, key=lambda case: case.task):
            todo += [FitUnit(architecture, case, seed) for seed in range(study.seeds)]
    return todo


def shard(todo: Sequence[Unit], index: int, number: int) -> list[Unit]:
    """Every number-th architecture's units from the index-th on: what one of several does."""
    if not 0 <= index < number:
        raise ValueError(f"share {index} of {number} does not exist; the first is 0")
    architectures = list(dict.fromkeys(unit.architecture for unit in todo))
    ours = set(architectures[index::number])
    return [unit for unit in todo if unit.architecture in ours]


def group_by_program(todo: Iterable[Unit], most: int) -> list[list[Unit]]:
    """Units by what shares a program, no more than `most` at a time.

    That are fits of an architecture in a task and a size; of scores each has its own.
    """
    found: dict[Any, list[Unit]] = {}
    for unit in todo:
        kind: Any = unit.name
        if isinstance(unit, FitUnit):
            case = unit.case
            kind = unit.architecture, _programs.shapes(case.problem, case.clean)
        found.setdefault(kind, []).append(unit)
    return [
        kin[first : first + most] for kin in found.values() for first in range(0, len(kin), most)
    ]


def key_of(seed: int, *names: object) -> jax.Array:
    """The random key of something by its names, whatever else there is."""
    return _keys.named(jax.random.key(seed), *names)


def pose(seed: int, image: str, clean: np.ndarray, task: str, **options: Any) -> Case:
    """Corrupts a clean image (H, W, C) for a task; the options are those of `Task.corrupt`."""
    key = key_of(seed, "corruption", image, task)
    problem = TASKS[task].corrupt(key, jax.numpy.asarray(clean), **options)
    return Case(image, jax.numpy.asarray(clean), problem)
