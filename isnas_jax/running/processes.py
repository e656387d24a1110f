"""Jobs in processes of their own, each bound to a core of this machine.

Small networks do not fill several cores: two fits on a core each are done sooner
than one after the other on both.
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

from isnas_jax.running._workers import (
    TRIES,
    Shared,
    WorkerDiedError,
    WorkerEnvironment,
    sendable,
    worker_environment,
)
from isnas_jax.running.pool import ProgressCallback, check_workers

_CONTEXT = multiprocessing.get_context("spawn")  # threads do not survive a fork


def cores() -> list[int]:
    """The cores that this process may use; on some systems just as many numbers."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _work(pipe: connection.Connection, like: WorkerEnvironment) -> None:
    """A process: does jobs until nobody is left who asks. To each there is one answer."""
    like.settle()
    sending = threading.Lock()
    shared: dict[int, Any] = {}  # pickled until it is needed

    def send(kind: str, value: Any) -> None:
        content = pickle.dumps((kind, value))
        try:
            with sending:
                pipe.send_bytes(content)
        except OSError:  # nobody is left
            os._exit(1)

    def given(value: Any) -> Any:
        if isinstance(value, Shared):
            if isinstance(shared[value.number], bytes):
                shared[value.number] = pickle.loads(shared[value.number])
            return shared[value.number]
        return value

    while True:
        try:
            asked = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            job, args = pickle.loads(asked)
            if isinstance(job, Shared):
                shared[job.number] = args
                continue
            send("done", job(lambda *news: send("news", news), *map(given, args)))
        except Exception as error:
            send("failed", sendable(error))


class _Process:
    """A process, as the thread that waits for it sees it."""

    def __init__(self, like: WorkerEnvironment) -> None:
        self.knows: set[int] = set()  # numbers of shared values
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_work, args=(theirs, like), daemon=True)
        self._process.start()
        theirs.close()

    def send(self, content: bytes) -> bool:
        """Whether it could be sent."""
        try:
            self._pipe.send_bytes(content)
        except OSError:
            return False
        return True

    def receive(self) -> bytes | None:
        """What comes next; None once the process has ended."""
        try:
            return self._pipe.recv_bytes()
        except (EOFError, OSError):
            return None

    def end(self) -> int | None:
        """Ends it, if it has not ended; its exit code."""
        self._process.terminate()
        self._process.join()
        return self._process.exitcode


class Processes:
    """Jobs in as many processes as there are cores, each bound to one.

    A process that dies is replaced and its job done again. Where this process
    dies, they end at their next news. A process begins by importing the
    script that is run, which must therefore do nothing unless its `__name__` is
    "__main__"; what a notebook or an interactive session defines cannot be sent.

    Args:
      progress: Takes the jobs' news, in threads.
      workers: How many processes; one a core by default.
      modules: What they import first: extensions that jobs call by name.

    Raises:
      ValueError: For fewer than one, or within such a process.
    """

    def __init__(
        self,
        progress: ProgressCallback,
        *,
        workers: int | None = None,
        modules: Sequence[str] = (),
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
        self._like = worker_environment(modules)
        self._values: list[bytes] = []  # shared ones, pickled
        self._processes: list[_Process] = []
        self._own = threading.local()  # a thread's process
        self._ended = threading.Event()
        self._cores: queue.SimpleQueue[int] = queue.SimpleQueue()
        for worker in range(workers):
            self._cores.put(usable[worker % len(usable)])
        resource_tracker.ensure_running()  # its start would let Ctrl-C through again
        self._threads = ThreadPoolExecutor(workers, initializer=self._bind)

    def _bind(self) -> None:
        """What a thread hands on to the processes that it starts: a core, and no Ctrl-C."""
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {self._cores.get()})
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def submit(self, job: Callable[..., Any], *args: Any) -> Future:
        needs = [arg.number for arg in args if isinstance(arg, Shared)]
        return self._threads.submit(self._do, _pickled((job, args)), needs)

    def broadcast(self, value: Any) -> Shared:
        found = Shared(len(self._values))
        self._values.append(_pickled((found, _pickled(value))))
        return found

    def _do(self, job: bytes, needs: Sequence[int]) -> Any:
        """A job, in the thread of a process."""
        code = None
        for _ in range(TRIES):
            process = self._started()
            missing = [self._values[number] for number in set(needs) - process.knows]
            process.knows.update(needs)
            alive = all(process.send(content) for content in [*missing, job])
            while alive and (answer := process.receive()) is not None:
                kind, value = pickle.loads(answer)
                if kind == "done":
                    return value
                if kind == "failed":
                    raise value
                try:
                    self._progress(*value)
                except BaseException:  # nobody will hear the rest of this job
                    self._drop(process)
                    raise
            code = self._drop(process)
        raise WorkerDiedError(f"a job's process died {TRIES} times, at last with exit code {code}")

    def _started(self) -> _Process:
        """This thread's process."""
        if getattr(self._own, "process", None) is None:
            self._own.process = _Process(self._like)
            self._processes.append(self._own.process)
        if self._ended.is_set():
            self._drop(self._own.process)
            raise InterruptedError("the pool has ended")
        return self._own.process

    def _drop(self, process: _Process) -> int | None:
        self._own.process = None
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


def _pickled(value: Any) -> bytes:
    """ValueError for what cannot be sent."""
    try:
        return pickle.dumps(value)
    except Exception as error:
        raise ValueError(f"this cannot be sent to another process: {error}") from error
