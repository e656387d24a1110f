"""Runners: pools that take jobs and return futures, and the events that jobs report."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol, Self, TypeAlias

import numpy as np


class Event(NamedTuple):
    """One progress report.

    Attributes:
      stage: What is in progress: a kind and, where there are several, a number from 1 and their
        count, such as ("score",), ("cohort", 2, 9), ("restore", 1, 3) or ("preview",). Units of
        a study report by their name.
      done: Iterations or evaluations done so far; previews have 1 of 1.
      total: The largest number there will be; a fit that stopped early reports the number done.
      loss: Latest loss of a fit; nan elsewhere.
      seconds: Time since this stage began in this process, compilation included.
      image: (H, W, C), the best restoration so far, when a new one is available; else None.
    """

    stage: tuple
    done: float
    total: float
    loss: float = float("nan")
    seconds: float = 0.0
    image: np.ndarray | None = None


Progress: TypeAlias = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Ignore all events."""


def with_stage(progress: Progress, *stage: object) -> Progress:
    """Return a callback that reports every event under the given stage."""
    return lambda event: progress(event._replace(stage=stage))


class Pool(Protocol):
    """What a runner, a function (progress) -> pool, returns: a context manager that takes jobs.

    Leaving it cancels the jobs that are still running. A job is called as `job(progress, *args)`,
    where `progress` takes an `Event`. The job, its arguments and its result must be picklable.
    Equal arguments must give equal results, because a job may run again in another process.
    """

    @property
    def workers(self) -> int:
        """Number of jobs that run at a time."""

    def submit(self, job: Callable[..., Any], *args: Any) -> Future:
        """Call a job with `progress` and these arguments, now or later."""

    def broadcast(self, value: Any) -> Any:
        """Return a stand-in for a value in the arguments of many jobs; the value is sent once."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


Runner: TypeAlias = Callable[[Progress], Pool]


def check_workers(workers: int) -> None:
    """Raise ValueError for fewer than one worker."""
    if workers < 1:
        raise ValueError(f"workers {workers} must be at least 1")
