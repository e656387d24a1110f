"""Jobs in threads of this process."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from isnas_jax.running.pool import Told


class Here:
    """Jobs in threads of this process, in the order they came.

    Two at a time: one compiles while the other is at work, and small networks
    leave a CPU's cores idle now and then. At the pool's end, what is still at
    work stops at its next news.

    Args:
      told: Takes the jobs' news, in their threads.
      number: How many jobs at a time; one takes the least memory.
    """

    def __init__(self, told: Told, *, number: int = 2) -> None:
        if number < 1:
            raise ValueError(f"number {number} of jobs at a time must be at least 1")
        self._told = told
        self._threads = ThreadPoolExecutor(number)
        self._ended = threading.Event()

    def submit(self, job: Callable[..., Any], *args: Any) -> Future:
        return self._threads.submit(job, self._tell, *args)

    def share(self, value: Any) -> Any:
        return value

    def _tell(self, stage: str, news: Any) -> None:
        if self._ended.is_set():
            raise InterruptedError(f"{stage} was given up")
        self._told(stage, news)

    def __enter__(self) -> "Here":
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
