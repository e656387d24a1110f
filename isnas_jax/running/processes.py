"""Jobs in processes, each bound to one core.

A small network does not fill several cores, so two fits on a core each end sooner than one after
the other on both.
"""

import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import connection, resource_tracker
from typing import Any

from isnas_jax.running._worker import (
    TRIES,
    Environment,
    Reference,
    WorkerDiedError,
    picklable_error,
    pickled,
)
from isnas_jax.running.pool import Progress, check_workers

_CONTEXT = multiprocessing.get_context("spawn")  # threads do not survive a fork


def cores() -> list[int]:
    """Return the cores that this process may use; on some systems just consecutive numbers."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _serve(pipe: connection.Connection, environment: Environment) -> None:
    """Run jobs in a worker process until the other end of the pipe closes."""
    environment.apply()
    sending = threading.Lock()
    values: dict[int, Any] = {}  # broadcast values, pickled until a job needs them

    def send(kind: str, value: Any) -> None:
        content = pickle.dumps((kind, value))
        try:
            with sending:
                pipe.send_bytes(content)
        except OSError:  # the parent is gone
            os._exit(1)

    def resolve(value: Any) -> Any:
        if not isinstance(value, Reference):
            return value
        if isinstance(values[value.number], bytes):
            values[value.number] = pickle.loads(values[value.number])
        return values[value.number]

    while True:
        try:
            request = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            job, args = pickle.loads(request)
            if isinstance(job, Reference):
                values[job.number] = args
                continue
            send("done", job(lambda event: send("event", event), *map(resolve, args)))
        except Exception as error:
            send("failed", picklable_error(error))


class _Process:
    """A worker process, as seen from the thread that waits for it."""

    def __init__(self, environment: Environment) -> None:
        self.references: set[int] = set()  # numbers of the values it has received
        self._pipe, worker_end = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(worker_end, environment), daemon=True)
        self._process.start()
        worker_end.close()

    def send(self, content: bytes) -> bool:
        """Send a message; return whether the process was there to receive it."""
        try:
            self._pipe.send_bytes(content)
        except OSError:
            return False
        return True

    def receive(self) -> bytes | None:
        """Return the next message; None if the process has ended."""
        try:
            return self._pipe.recv_bytes()
        except (EOFError, OSError):
            return None

    def end(self) -> int | None:
        """End the process and return its exit code."""
        self._process.terminate()
        self._process.join()
        return self._process.exitcode


class Processes:
    """Run jobs in processes, each bound to one core.

    A process that dies is replaced and its job runs again. If this process dies, workers end at
    their next event. A worker begins by importing the script that is run, so the script must do
    nothing unless its `__name__` is "__main__". Functions that are defined in a notebook or an
    interactive session cannot be sent.

    Args:
      progress: Takes the jobs' events, in threads.
      workers: Number of processes; by default one per core.
      modules: Extensions that workers import first, because jobs look them up by name.

    Raises:
      ValueError: For fewer than one worker, or within a worker.
    """

    def __init__(
        self, progress: Progress, *, workers: int | None = None, modules: Sequence[str] = ()
    ) -> None:
        if multiprocessing.parent_process() is not None:
            raise ValueError(
                "a process started by another cannot start more; guard scripts by if __name__ == "
                '"__main__"'
            )
        usable = cores()
        workers = len(usable) if workers is None else workers
        check_workers(workers)
        self.workers = workers
        self._progress = progress
        self._environment = Environment.current(modules)
        self._values: list[bytes] = []  # pickled messages of broadcast values
        self._processes: list[_Process] = []
        self._local = threading.local()  # the process of each thread
        self._ended = threading.Event()
        self._cores: queue.SimpleQueue[int] = queue.SimpleQueue()
        for worker in range(workers):
            self._cores.put(usable[worker % len(usable)])
        resource_tracker.ensure_running()  # starting it later would unblock Ctrl-C
        self._threads = ThreadPoolExecutor(workers, initializer=self._bind)

    def _bind(self) -> None:
        """Bind a thread, and the processes that it starts, to a core; block Ctrl-C there."""
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {self._cores.get()})
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def submit(self, job: Callable[..., Any], *args: Any) -> Future:
        numbers = [arg.number for arg in args if isinstance(arg, Reference)]
        return self._threads.submit(self._run, pickled((job, args)), numbers)

    def broadcast(self, value: Any) -> Reference:
        reference = Reference(len(self._values))
        self._values.append(pickled((reference, pickled(value))))
        return reference

    def _run(self, job: bytes, numbers: Sequence[int]) -> Any:
        """Run a job in the process of this thread."""
        code = None
        for _ in range(TRIES):
            process = self._current_process()
            missing = [self._values[number] for number in set(numbers) - process.references]
            process.references.update(numbers)
            alive = all(process.send(content) for content in [*missing, job])
            while alive and (answer := process.receive()) is not None:
                kind, value = pickle.loads(answer)
                if kind == "done":
                    return value
                if kind == "failed":
                    raise value
                try:
                    self._progress(value)
                except BaseException:  # the job's other messages would confuse the next
                    self._drop(process)
                    raise
            code = self._drop(process)
        raise WorkerDiedError(f"a job's process died {TRIES} times, at last with exit code {code}")

    def _current_process(self) -> _Process:
        """Return the process of this thread, started if there is none."""
        if getattr(self._local, "process", None) is None:
            self._local.process = _Process(self._environment)
            self._processes.append(self._local.process)
        if self._ended.is_set():
            self._drop(self._local.process)
            raise InterruptedError("the pool has ended")
        return self._local.process

    def _drop(self, process: _Process) -> int | None:
        self._local.process = None
        with contextlib.suppress(ValueError):
            self._processes.remove(process)
        return process.end()

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for process in list(self._processes):
            process.end()
        self._threads.shutdown(cancel_futures=True)
