"""The protocol of runners: a pool that takes jobs and returns futures.

A runner is a function (progress) -> pool. A pool is a context manager; leaving it cancels the jobs
that are still running. A job is called as job(progress, *args), where `progress` takes `Event`s.
The job, its arguments and its result must be picklable. Equal arguments must give equal results,
because a job may run again in another process.
"""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, Self, TypeAlias

from isnas_jax.running.events import Progress


class Pool(Protocol):
    """See the module's docstring."""

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
