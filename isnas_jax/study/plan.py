"""What a study will take, from a few of its architectures tried out for a moment."""

import dataclasses
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax

from isnas_jax.fitting import (
    FitJob,
    FixedIterations,
    Progress,
    batched_by_default,
    fit_many,
    lower_steps,
    program_memory,
)
from isnas_jax.running import ProgressCallback, Runner, Threads, silent
from isnas_jax.study.units import Case, FitUnit, ScoreUnit, Study, Unit, group_by_program
from isnas_jax.study.work import draw_outputs, network, score_rows

# Steps between two looks at the clock, the second of which tells what a step takes.
_STEPS = 3
# The most architectures to try, and fits of one.
_MOST = 16


class Trial(NamedTuple):
    """What one architecture took, on the largest image.

    Attributes:
      operations: Of a step of one fit, floating-point.
      traffic: Bytes that it reads and writes.
      memory: Bytes that a fit holds.
      compiling: Seconds until the first step.
      step: Seconds for each fit; in a batch of up to 16 where fits go by batches.
      scoring: Seconds of its scores in all cases, if each takes what this one did, its
        metrics compiled; 0 of a baseline.
    """

    operations: float
    traffic: float
    memory: int
    compiling: float
    step: float
    scoring: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """What units will take.

    Attributes:
      fits: How many fits.
      scores: How many architectures to score.
      iterations: Of all fits together.
      programs: How many to compile: a network and a size each.
      workers: How many units are worked on at a time.
      trials: Of some architectures, while so many were at work.
      hours: Until all is done, if the others are like them: time of a step in
        proportion to pixels.
    """

    fits: int
    scores: int
    iterations: int
    programs: int
    workers: int
    trials: tuple[Trial, ...]
    hours: float


def run_trial(
    progress: ProgressCallback, study: Study, architecture: str, case: Case, fits: int
) -> Trial:
    """Compiles an architecture and runs a few steps of so many fits, as a job."""
    del progress
    net = network(study, architecture, case.problem)
    config = dataclasses.replace(
        study.fit[case.task], iterations=2 * _STEPS, chunk=_STEPS, stopping=FixedIterations()
    )
    clock, batch = [time.perf_counter()], set()

    def look(index: int, _: Progress) -> None:
        # Those of the first batch have news at the same time; one after another, it is alone.
        if index == 0:
            clock.append(time.perf_counter())
        if len(clock) == 2:
            batch.add(index)

    one = FitJob(jax.random.key(0), net, case.problem, case.clean)
    fit_many([one] * fits, config, progress=look)
    first, second = (after - before for before, after in itertools.pairwise(clock[:3]))
    compiled = lower_steps(net, case.problem, config, clean=case.clean).compile()
    costs = compiled.cost_analysis() or {}
    return Trial(
        costs.get("flops", 0.0),
        costs.get("bytes accessed", 0.0),
        program_memory(compiled),
        max(0.0, first - second),
        second / _STEPS / len(batch),
        0.0 if architecture in study.baselines else _scoring(study, architecture, case),
    )


def _scoring(study: Study, architecture: str, case: Case) -> float:
    """Seconds of an architecture's scores, by one random output, its compilation apart."""
    one = dataclasses.replace(study, inits=dataclasses.replace(study.inits, num=1))

    def draw():
        return jax.block_until_ready(draw_outputs(one, architecture, case.problem))

    outputs = draw()
    measure = functools.partial(score_rows, one, architecture, case, outputs)
    measure()  # metrics are compiled once a process
    drawing, measuring = _seconds(draw), _seconds(measure)
    shapes = len({case.problem.shape for case in study.cases})
    return study.inits.num * (shapes * drawing + len(study.cases) * measuring)


def _seconds(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def plan(study: Study, todo: Iterable[Unit], *, runner: Runner = Threads) -> Plan:
    """What units will take with a runner, by trying out a few architectures of theirs.

    Args:
      study: The study.
      todo: Some of its units.
      runner: Who would do them, and does the trials.
    """
    todo = list(todo)
    fits = [unit for unit in todo if isinstance(unit, FitUnit)]
    scores = [unit for unit in todo if isinstance(unit, ScoreUnit)]
    names = list(dict.fromkeys(unit.architecture for unit in todo))
    if not names:
        return Plan(0, 0, 0, 0, 1, (), 0.0)
    # Baselines are few, and not like the others.
    names = [name for name in names if name not in study.baselines] or names

    def pixels(case: Case) -> int:
        return case.problem.shape[0] * case.problem.shape[1]

    largest = max(study.cases, key=pixels)
    programs = len(group_by_program(fits, len(fits)))
    at_once = min(_MOST, -(-len(fits) // programs)) if programs and batched_by_default() else 1
    with runner(silent) as pool:
        number = min(len(names), _MOST, max(3, pool.workers))
        tried = [names[index * len(names) // number] for index in range(number)]
        shared, case = pool.broadcast(study), pool.broadcast(largest)
        # Batches of one process take turns.
        workers = 1 if batched_by_default() and isinstance(pool, Threads) else pool.workers
        futures = (pool.submit(run_trial, shared, name, case, at_once) for name in tried)
        trials = tuple(future.result() for future in (futures if workers == 1 else [*futures]))
    steps = sum(study.follow[unit.case.task] * pixels(unit.case) for unit in fits)
    step, compiling = (
        statistics.mean(getattr(trial, field) for trial in trials)
        for field in ("step", "compiling")
    )
    scoring = statistics.mean([trial.scoring for trial in trials if trial.scoring] or [0.0])
    seconds = step * steps / pixels(largest) + compiling * programs + scoring * len(scores)
    return Plan(
        len(fits),
        len(scores),
        sum(study.follow[unit.case.task] for unit in fits),
        programs,
        workers,
        trials,
        seconds / min(workers, len(todo)) / 3600,
    )
