"""What every runner offers: somewhere to put jobs, and what comes of them.

A runner is a function, (progress) -> pool, and a pool a context manager whose end
gives up what is still at work. A job is called as job(progress, *args), where
`progress` takes a stage's name and where it is. The job, what it is given and
what it returns can be pickled; the same arguments give the same again, so that
it may be done anew somewhere else.
"""

from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

ProgressCallback: TypeAlias = Callable[[str, Any], None]


def silent(stage: str, news: Any) -> None:
    """Takes news that nobody wants to hear."""


class Pool(Protocol):
    """See the module's docstring."""

    @property
    def workers(self) -> int:
        """How many jobs are done at a time."""

    def submit(self, job: Callable[..., Any], *args: Any) -> Future:
        """Takes a job, to be called with these arguments after `progress`."""

    def broadcast(self, value: Any) -> Any:
        """What stands for a value in the arguments of many jobs, so that it is sent but once."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


Runner: TypeAlias = Callable[[ProgressCallback], Pool]


def check_workers(workers: int) -> None:
    """ValueError unless so many can work at once."""
    if workers < 1:
        raise ValueError(f"workers {workers} must be at least 1")
