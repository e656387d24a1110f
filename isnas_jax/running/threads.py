"""Jobs in threads of this process."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

from isnas_jax.running.pool import ProgressCallback, check_workers


class Threads:
    """Jobs in threads of this process, in the order they came.

    Two at a time: one compiles while the other is at work, and small networks
    leave a CPU's cores idle now and then. They see what `jax.config.update`
    set and the caller's `jax.default_device`, but no other setting of a `with`.

    Args:
      progress: Takes the jobs' news, in their threads.
      workers: How many jobs at a time; one takes the least memory.
    """

    def __init__(self, progress: ProgressCallback, *, workers: int = 2) -> None:
        check_workers(workers)
        self.workers = workers
        self._progress = progress
        self._threads = ThreadPoolExecutor(workers)
        self._ended = threading.Event()

    def submit(self, job: Callable[..., Any], *args: Any) -> Future:
        device = jax.config.jax_default_device  # type: ignore[attr-defined]

        def call():
            with jax.default_device(device):
                return job(self._tell, *args)

        return self._threads.submit(call)

    def broadcast(self, value: Any) -> Any:
        return value

    def _tell(self, stage: str, news: Any) -> None:
        if self._ended.is_set():
            raise InterruptedError(f"{stage} was given up")
        self._progress(stage, news)

    def __enter__(self) -> "Threads":
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
