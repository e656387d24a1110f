"""What every runner offers: somewhere to put jobs, and what comes of them.

A runner is a function, (told) -> pool, and a pool a context manager; its end
gives up what is still at work. A job is called as job(told, *args), where `told`
takes a stage's name and where it is. The job, what it
is given and what it returns can be pickled; the same arguments give the same
again, so that it may be done anew somewhere else.
"""

from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

Told: TypeAlias = Callable[[str, Any], None]


def unheard(stage: str, news: Any) -> None:
    """Takes news that nobody wants to hear."""


class Pool(Protocol):
    """See the module's docstring."""

    def submit(self, job: Callable[..., Any], *args: Any) -> Future:
        """Takes a job, to be called with these arguments after `told`."""

    def share(self, value: Any) -> Any:
        """What stands for a value in the arguments of many jobs, so that it is sent but once."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


Runner: TypeAlias = Callable[[Told], Pool]
