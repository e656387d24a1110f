"""Jobs in threads of this process."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

from isnas_jax.running.pool import Event, Progress, check_workers


class Threads:
    """Run jobs in threads of this process, in the order of their submission.

    With two threads, one compiles while the other computes. Jobs see the values of
    `jax.config.update` and the caller's `jax.default_device`, but no other JAX context manager.

    Args:
      progress: Takes the jobs' events, in their threads.
      workers: Number of jobs at a time; one takes the least memory.
    """

    def __init__(self, progress: Progress, *, workers: int = 2) -> None:
        check_workers(workers)
        self.workers = workers
        self._progress = progress
        self._threads = ThreadPoolExecutor(workers)
        self._ended = threading.Event()

    def submit(self, job: Callable[..., Any], *args: Any) -> Future:
        device = jax.config.jax_default_device  # type: ignore[attr-defined]

        def call():
            with jax.default_device(device):
                return job(self._report, *args)

        return self._threads.submit(call)

    def broadcast(self, value: Any) -> Any:
        return value

    def _report(self, event: Event) -> None:
        if self._ended.is_set():
            raise InterruptedError(f"{event.stage} was cancelled")
        self._progress(event)

    def __enter__(self) -> "Threads":
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
