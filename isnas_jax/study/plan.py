"""The cost of a study, estimated from trials of a few of its architectures."""

import dataclasses
import functools
import statistics
import timeit
from collections.abc import Iterable
from typing import NamedTuple

import jax

from isnas_jax.fitting import (
    FitJob,
    FixedIterations,
    batched_by_default,
    fit_many,
    lower_steps,
    program_memory,
)
from isnas_jax.running import Progress, Runner, Threads, ignore
from isnas_jax.study.rows import draw_outputs, score_rows
from isnas_jax.study.units import Case, FitUnit, ScoreUnit, Study, Unit, group_by_program

# Steps of a trial.
_STEPS = 5
# Largest number of architectures to try, and of fits of each.
_MOST = 16


class Trial(NamedTuple):
    """The cost of one architecture on the largest image."""

    memory: int  # bytes that a fit takes
    compiling: float  # seconds of the first fits more than of the same fits again
    step: float  # seconds per fit, in a batch of up to 16 where fits run in batches
    scoring: float  # seconds of the scores in all cases; 0 for a baseline


@dataclasses.dataclass(frozen=True)
class Plan:
    """The estimated cost of units.

    Attributes:
      fits: Number of fits.
      scores: Number of architectures to score.
      iterations: Iterations of all fits together.
      programs: Number of programs to compile, one per network and size.
      workers: Number of units at a time.
      trials: Costs of some architectures, measured while so many units were running.
      hours: Time until all units are finished, if the other architectures cost the same and a
        step's time is proportional to the number of pixels.
    """

    fits: int
    scores: int
    iterations: int
    programs: int
    workers: int
    trials: tuple[Trial, ...]
    hours: float


def run_trial(progress: Progress, study: Study, architecture: str, case: Case, fits: int) -> Trial:
    """Compile an architecture and run a few steps of so many fits, as a job."""
    del progress
    net = study.build(architecture, case.problem)
    config = dataclasses.replace(
        study.fit[case.task], iterations=_STEPS, chunk=_STEPS, stopping=FixedIterations()
    )

    def run() -> None:
        fit_many([FitJob(jax.random.key(0), net, case.problem, case.clean)] * fits, config)

    first, second = (timeit.timeit(run, number=1) for _ in range(2))  # the first compiles
    compiled = lower_steps(net, case.problem, config, clean=case.clean).compile()
    is_baseline = architecture in map(str, study.baselines)
    return Trial(
        program_memory(compiled),
        max(0.0, first - second),
        second / _STEPS / fits,
        0.0 if is_baseline else _scoring_seconds(study, architecture, case),
    )


def _scoring_seconds(study: Study, architecture: str, case: Case) -> float:
    """Estimate the time of an architecture's scores from one output, without compilation."""
    single = dataclasses.replace(study, inits=dataclasses.replace(study.inits, num=1))

    def draw():
        return jax.block_until_ready(draw_outputs(single, architecture, case.problem))

    measure = functools.partial(score_rows, single, architecture, case, draw())
    measure()  # metrics are compiled once per process
    drawing, measuring = (timeit.timeit(call, number=1) for call in (draw, measure))
    shapes = len({case.problem.shape for case in study.cases})
    return study.inits.num * (shapes * drawing + len(study.cases) * measuring)


def plan(study: Study, todo: Iterable[Unit], *, runner: Runner = Threads) -> Plan:
    """Estimate the cost of units by trying a few of their architectures.

    Args:
      study: The study.
      todo: Some of its units.
      runner: The runner that would compute them; it runs the trials.
    """
    todo = list(todo)
    fits = [unit for unit in todo if isinstance(unit, FitUnit)]
    scores = [unit for unit in todo if isinstance(unit, ScoreUnit)]
    names = list(dict.fromkeys(unit.architecture for unit in todo))
    if not names:
        return Plan(0, 0, 0, 0, 1, (), 0.0)
    baselines = set(map(str, study.baselines))  # few, and unlike the others
    names = [name for name in names if name not in baselines] or names

    def pixels(case: Case) -> int:
        return case.problem.shape[0] * case.problem.shape[1]

    largest = max(study.cases, key=pixels)
    programs = len(group_by_program(fits, len(fits)))
    batches = batched_by_default()
    batch = min(_MOST, -(-len(fits) // programs)) if programs and batches else 1
    with runner(ignore) as pool:
        count = min(len(names), _MOST, max(3, pool.workers))
        tried = [names[index * len(names) // count] for index in range(count)]
        shared, case = pool.broadcast(study), pool.broadcast(largest)
        # Batches of one process run one after another.
        workers = 1 if batches and isinstance(pool, Threads) else pool.workers
        futures = (pool.submit(run_trial, shared, name, case, batch) for name in tried)
        trials = tuple(future.result() for future in (futures if workers == 1 else [*futures]))
    steps = sum(study.follow[unit.case.task] * pixels(unit.case) for unit in fits)
    step = statistics.mean(trial.step for trial in trials)
    compiling = statistics.mean(trial.compiling for trial in trials)
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
