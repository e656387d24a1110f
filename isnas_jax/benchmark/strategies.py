"""Search strategies on the benchmark, at equal simulated seconds.

A strategy is a function (key, clock) that fits architectures on the clock until its time is up.
The architectures with finished fits are its cohort. Needs pandas.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import jax
import numpy as np
import pandas as pd

from isnas_jax.benchmark.evaluation import genotypes, restore
from isnas_jax.benchmark.portfolios import portfolio
from isnas_jax.benchmark.rows import CURVE_INTERVAL
from isnas_jax.benchmark.table import Benchmark, Known
from isnas_jax.networks import Genotype
from isnas_jax.networks.genotypes import decode_cell
from isnas_jax.registry import Registry
from isnas_jax.study.intervals import over_images

_LARGEST_PORTFOLIO = 16


class TimeIsUpError(Exception):
    """The next fit would take more than the time that is left."""


@dataclasses.dataclass
class Clock:
    """The simulated time of a search on one image.

    Attributes:
      bench: The benchmark.
      image: The image to restore.
      task: Its task.
      budget: Simulated seconds for all fits.
      iterations: How long each architecture has been fitted, by its name.
      finished: Architectures whose stopping rule ended their fit, in this order.
      seconds: Simulated seconds that were spent.
    """

    bench: Benchmark
    image: str
    task: str
    budget: float
    iterations: dict[str, float] = dataclasses.field(default_factory=dict)
    finished: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    def fit(self, architecture: str, at: int | str = "stop") -> Known:
        """Continue a fit to an iteration, a multiple of 10, or to its end.

        Returns:
          What is known then. Only the iterations that are new cost time.

        Raises:
          TimeIsUpError: If the time is not enough; nothing is spent.
        """
        known = self.bench.query(architecture, self.image, self.task, at=at)
        before = self.iterations.get(architecture, 0.0)
        seconds = max(0.0, 1 - before / known.iterations) * known.seconds
        if self.seconds + seconds > self.budget:
            raise TimeIsUpError
        self.seconds += seconds
        self.iterations[architecture] = max(before, known.iterations)
        if at == "stop" and architecture not in self.finished:
            self.finished.append(architecture)
        return known


Strategy: TypeAlias = Callable[[jax.Array, Clock], None]


def run_strategy(strategy: Strategy, key: jax.Array, clock: Clock) -> list[str]:
    """Run a strategy until it returns or its time is up, and return its cohort."""
    with contextlib.suppress(TimeIsUpError):
        strategy(key, clock)
    return clock.finished


def _shuffled(key: jax.Array, clock: Clock) -> list[str]:
    names = genotypes(clock.bench)
    return [names[index] for index in np.asarray(jax.random.permutation(key, len(names)))]


def random(key: jax.Array, clock: Clock) -> None:
    """Fit random genotypes: the control."""
    for name in _shuffled(key, clock):
        clock.fit(name)


@dataclasses.dataclass(frozen=True)
class SuccessiveHalving:
    """Fit genotypes briefly; repeatedly keep the half with the lowest errors, for twice as long.

    All fits are then finished, the best ranked first, while there is time. Jamieson and Talwalkar,
    AISTATS 2016.

    Attributes:
      num: Number of genotypes at first.
      iterations: Iterations of the first, brief fits, a multiple of 10.
    """

    num: int = 8
    iterations: int = 50

    def __call__(self, key: jax.Array, clock: Clock) -> None:
        """Run the rounds, then finish the fits in the order of their ranks."""
        names, iterations = _shuffled(key, clock)[: self.num], self.iterations
        curve = clock.bench.curve(names[0], clock.image, clock.task)
        last = CURVE_INTERVAL * (len(curve) - 1)
        ranked: list[str] = []
        while len(names) > 1:
            errors = [clock.fit(name, at=min(iterations, last)).validation for name in names]
            order = [names[index] for index in np.argsort(errors)]
            names, ranked = order[: len(order) // 2], order[len(order) // 2 :] + ranked
            iterations *= 2
        for name in names + ranked:
            clock.fit(name)


@dataclasses.dataclass(frozen=True)
class Evolution:
    """Regularized evolution: fit the neighbor of the best of a sample of the population.

    Real et al., AAAI 2019. The genotypes of the benchmark are not all those of the space. A
    neighbor is therefore one of the nearest in cell and skips that was not fitted yet.

    Attributes:
      population: Size of the population, from which the oldest leave; None keeps all.
      sample: Number of random members, of which the best is the parent.
    """

    population: int | None = 6
    sample: int = 3

    def __call__(self, key: jax.Array, clock: Clock) -> None:
        """Fit genotypes until the time is up."""
        names = _shuffled(key, clock)
        first = self.population or 6
        population = [(clock.fit(name).validation, name) for name in names[:first]]
        rest = names[first:]
        for step in range(len(rest)):
            step_key = jax.random.fold_in(key, step)
            drawn = np.asarray(jax.random.permutation(step_key, len(population)))[: self.sample]
            _, parent = min(population[index] for index in drawn)
            child = min(rest, key=lambda name: distance(parent, name))
            rest.remove(child)
            population.append((clock.fit(child).validation, child))
            if self.population:
                del population[0]


def fast_random(key: jax.Array, clock: Clock) -> None:
    """Fit random genotypes, each of which takes a quarter of the time at most."""
    for name in _shuffled(key, clock):
        if clock.bench.query(name, clock.image, clock.task).seconds <= clock.budget / 4:
            clock.fit(name)


def portfolio_of_others(key: jax.Array, clock: Clock) -> None:
    """Fit the portfolio of the task's other images; each fit may take a quarter of the time."""
    del key
    for name in _portfolio_of_others(clock.bench, clock.task, clock.image, clock.budget / 4):
        clock.fit(name)


@functools.lru_cache(maxsize=64)
def _portfolio_of_others(bench: Benchmark, task: str, image: str, max_seconds: float) -> list[str]:
    others = [other for other in bench.images(task) if other != image]
    return portfolio(bench, task, others, _LARGEST_PORTFOLIO, max_seconds=max_seconds)


def distance(first: str, second: str) -> int:
    """Return the number of fields and skip bits in which two genotypes differ."""
    a, b = Genotype.parse(first), Genotype.parse(second)
    fields = zip(decode_cell(a.cell), decode_cell(b.cell), strict=True)
    bits = zip(a.skips, b.skips, strict=True)
    return sum(x != y for x, y in fields) + sum(x != y for x, y in bits)


#: Strategies by the names that `evaluate_strategy` uses.
STRATEGIES: Registry[Strategy] = Registry(
    "strategy",
    {
        "random": random,
        "fast random": fast_random,
        "successive halving": SuccessiveHalving(),
        "evolution": Evolution(population=None),
        "regularized evolution": Evolution(),
        "portfolio": portfolio_of_others,
    },
)


def compare_strategies(
    bench: Benchmark,
    strategies: Mapping[str, Strategy],
    budgets: Sequence[float],
    *,
    key: jax.Array,
    repeats: int = 10,
) -> pd.DataFrame:
    """Run strategies on all images of the benchmark at equal simulated seconds.

    Args:
      bench: The benchmark.
      strategies: Strategies by name.
      budgets: Simulated seconds of a search, for all of its fits.
      key: Random key.
      repeats: Runs of each strategy on an image, with a key each; strategies share keys.

    Returns:
      A row per task, image, budget and strategy, with means over the runs: the number of members
      `cohort`, the PSNR in dB of the member with the lowest validation error, `psnr_single`, and of
      the stack, `psnr_stack`; nan if a run finished no fit.
    """
    keys = jax.random.split(key, repeats)
    rows = []
    for task in bench.tasks:
        for image, budget, name in itertools.product(bench.images(task), budgets, strategies):
            runs = []
            for run_key in keys:
                clock = Clock(bench, image, task, budget)
                members = run_strategy(strategies[name], jax.random.clone(run_key), clock)
                psnrs = restore(bench, members, image, task) if members else (np.nan, np.nan)
                runs.append((len(members), *psnrs))
            rows.append((task, image, budget, name, *np.mean(runs, axis=0)))
    columns = ["task", "image", "budget", "strategy", "cohort", "psnr_single", "psnr_stack"]
    return pd.DataFrame(rows, columns=columns)


def strategy_table(runs: pd.DataFrame, task: str) -> pd.DataFrame:
    """Return a task's means over images, less those of "random", with intervals over images.

    Args:
      runs: The table of `compare_strategies`.
      task: The task.
    """
    runs = runs[runs["task"] == task]
    control = runs[runs["strategy"] == "random"].set_index(["image", "budget"])
    rows = []
    for (budget, name), group in runs.groupby(["budget", "strategy"], sort=False):
        row = {"seconds": budget, "strategy": name, "cohort": f"{group['cohort'].mean():.1f}"}
        for kind in ("psnr_single", "psnr_stack"):
            row[kind] = f"{group[kind].mean(skipna=False):.2f}"  # nan without a fit on some image
            if not control.empty:
                gain = group.join(control[kind].rename("control"), on=["image", "budget"])
                gain["gain"] = gain[kind] - gain["control"]
                row[f"{kind} less random"] = over_images(gain, "gain").shown()
        rows.append(row)
    return pd.DataFrame(rows).set_index(["seconds", "strategy"])
