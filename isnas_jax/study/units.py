"""A study and its units of work.

A unit is one fit, or the scores of one genotype. It is a pure function of the study and the unit's
name: every key follows from the study's seed and from names, so that it does not matter when or
where a unit runs. Images are float32 (H, W, C) in [0, 1].
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from isnas_jax import _keys, _programs
from isnas_jax.fitting import FitConfig
from isnas_jax.networks import Baseline, NetworkConfig, Space, free_space, network_for
from isnas_jax.problems import Problem, Task
from isnas_jax.registry import refuse_names, short_repr
from isnas_jax.searching import Metric, NetworkMetric, RandomInits


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A problem of a study, with its clean image.

    Attributes:
      image: Name of the image.
      clean: (H, W, C).
      problem: The problem to restore.
    """

    image: str
    clean: jax.Array
    problem: Problem

    @property
    def task(self) -> str:
        """The task of the problem."""
        return self.problem.task


@dataclasses.dataclass(frozen=True)
class Study:
    """Every architecture on every case with every seed.

    Attributes:
      seed: Seed of everything random.
      cases: Images in tasks, each pair once.
      genotypes: Architectures to score and to fit.
      baselines: Architectures to fit only.
      seeds: The seeds of an architecture's fits to a case; all architectures share their keys.
      network: What all networks have in common.
      fit: How a restoration is fitted in each task.
      follow: Iterations that fits run in each task; the stopping rule only marks what a
        restoration would return.
      metrics: Metrics by name.
      inits: The random initializations to score.
      space: The search space of the genotypes.
    """

    seed: int
    cases: Sequence[Case]
    genotypes: Sequence[Any]
    baselines: Sequence[Baseline]
    seeds: Sequence[int]
    network: NetworkConfig
    fit: Mapping[str, FitConfig]
    follow: Mapping[str, int]
    metrics: Mapping[str, Metric]
    inits: RandomInits = RandomInits()
    space: Space = free_space

    def __post_init__(self) -> None:
        for baseline in self.baselines:
            if not isinstance(baseline, Baseline):
                raise ValueError(
                    f"baseline {short_repr(baseline)} is not a baseline, such as isnas_jax.dip"
                )
        for names in (
            [f"{case.image} for {case.task}" for case in self.cases],
            [*map(str, self.genotypes), *map(str, self.baselines)],
        ):
            if repeated := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{repeated[0]} occurs twice in the study")
        for name, metric in self.metrics.items():
            if isinstance(metric, NetworkMetric):
                raise ValueError(
                    f"metric {name!r} needs the network; a study has metrics of images only"
                )
        if not isinstance(self.seeds, Sequence) or not self.seeds:
            raise ValueError(f"seeds {self.seeds!r} must be a sequence such as range(1)")
        object.__setattr__(self, "seeds", tuple(self.seeds))
        for task, config in self.fit.items():
            if self.follow[task] < config.iterations:
                raise ValueError(
                    f"{task}: fits of {config.iterations} iterations cannot be followed for "
                    f"{self.follow[task]} only"
                )

    @functools.cached_property
    def architectures(self) -> dict[str, Any]:
        """Genotypes and baselines by their names."""
        both = (*self.baselines, *self.genotypes)
        return {str(architecture): architecture for architecture in both}

    def build(self, name: str, problem: Problem) -> Any:
        """Build an architecture's network for a problem."""
        return network_for(problem, self.architectures[name], self.network, self.space)


def fit_name(task: str, image: str, architecture: str, seed: int) -> tuple[str, ...]:
    """Return the name of a `FitUnit`."""
    return ("fits", task, image, architecture, str(seed))


class FitUnit(NamedTuple):
    """One fit."""

    architecture: str
    case: Case
    seed: int

    @property
    def name(self) -> tuple[str, ...]:
        """Its name, different from those of all other units."""
        return fit_name(self.case.task, self.case.image, self.architecture, self.seed)


class ScoreUnit(NamedTuple):
    """The scores of one genotype in all cases."""

    architecture: str

    @property
    def name(self) -> tuple[str, ...]:
        """Its name, different from those of all other units."""
        return ("scores", self.architecture)


Unit: TypeAlias = FitUnit | ScoreUnit


def units(study: Study) -> list[Unit]:
    """Return all units, one architecture after another: the first ones are a smaller study."""
    result: list[Unit] = []
    baselines = set(map(str, study.baselines))
    for architecture in study.architectures:
        if architecture not in baselines:
            result.append(ScoreUnit(architecture))
        # Cases of one task share compiled programs.
        for case in sorted(study.cases, key=lambda case: case.task):
            result += [FitUnit(architecture, case, seed) for seed in study.seeds]
    return result


def shard(work: Sequence[Unit], index: int, count: int) -> list[Unit]:
    """Return the units of every count-th architecture from the index-th on."""
    if not 0 <= index < count:
        raise ValueError(f"shard {index} of {count} does not exist; the first is 0")
    architectures = list(dict.fromkeys(unit.architecture for unit in work))
    chosen = set(architectures[index::count])
    return [unit for unit in work if unit.architecture in chosen]


def group_by_program(work: Iterable[Unit], most: int) -> list[list[Unit]]:
    """Group units that share a compiled program, at most so many together.

    Fits of one architecture in one task and size share it. The scores of each architecture stay
    alone.
    """
    groups: dict[Any, list[Unit]] = {}
    for unit in work:
        program: Any = unit.name
        if isinstance(unit, FitUnit):
            shapes = _programs.shapes(unit.case.problem, unit.case.clean)
            program = unit.architecture, shapes
        groups.setdefault(program, []).append(unit)
    return [
        group[first : first + most]
        for group in groups.values()
        for first in range(0, len(group), most)
    ]


def key_of(seed: int, *names: object) -> jax.Array:
    """Return the random key that belongs to names."""
    return _keys.fold_in_names(jax.random.key(seed), *names)


def pose(seed: int, image: str, clean: np.ndarray, task: Task, **options: Any) -> Case:
    """Corrupt a clean image (H, W, C) for a task, with the options of `Task.corrupt`."""
    refuse_names(task=task)
    key = key_of(seed, "corruption", image, task.name)
    array = jnp.asarray(clean)
    return Case(image, array, task.corrupt(key, array, **options))
