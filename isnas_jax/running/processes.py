"""Jobs in processes of their own, each bound to a core of this machine.

Networks of few channels do not fill a core's neighbours: two fits on a core
each are done sooner than one after the other on both.
"""

import collections
import dataclasses
import importlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from multiprocessing import connection
from typing import Any, NamedTuple

import jax

from isnas_jax.running.pool import Told

# How often a job may take its process with it before it is given up.
_TRIES = 3


class WorkerDiedError(RuntimeError):
    """The process of a job ended again and again: for want of memory, most likely."""


def cores() -> list[int]:
    """The cores that this process may use; on some systems just as many numbers."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


class _Shared(NamedTuple):
    """Stands for a value that is sent to a process once."""

    number: int


def _work(
    pipe: connection.Connection, core: int, config: Mapping[str, Any], modules: Sequence[str]
) -> None:
    """A process: does jobs until nobody is left who asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other end says when to stop
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    for name, value in config.items():
        if jax.config.values.get(name) != value:
            jax.config.update(name, value)
    for module in modules:
        importlib.import_module(module)

    def send(kind: str, value: Any) -> None:
        content = pickle.dumps((kind, value))
        try:
            pipe.send_bytes(content)
        except OSError:
            os._exit(1)

    shared: dict[int, Any] = {}
    while True:
        try:
            asked = pipe.recv_bytes()
        except EOFError:
            return
        try:
            job, args = pickle.loads(asked)
            if isinstance(job, _Shared):
                shared[job.number] = args
                continue
            given = (shared[arg.number] if isinstance(arg, _Shared) else arg for arg in args)
            send("done", job(lambda *news: send("news", news), *given))
        except Exception as error:
            try:
                send("failed", error)
            except Exception:
                send("failed", RuntimeError(f"{type(error).__name__}: {error}"))


@dataclasses.dataclass
class _Job:
    content: bytes  # pickled, with its arguments
    needs: list[int]  # numbers of shared values
    ticket: Future
    tries: int = 0


@dataclasses.dataclass
class _Worker:
    process: Any
    pipe: connection.Connection
    core: int
    knows: set[int]  # numbers of shared values
    job: _Job | None = None


class Processes:
    """Jobs in as many processes as there are cores, each bound to one.

    A process that dies is replaced and its job done again. Where this process
    dies, they end at their next news.

    Args:
      told: Takes the jobs' news, in a thread.
      number: How many processes; one a core by default.
      modules: What they import first: extensions that jobs call by name.
    """

    def __init__(
        self, told: Told, *, number: int | None = None, modules: Sequence[str] = ()
    ) -> None:
        if number is not None and number < 1:
            raise ValueError(f"number {number} of processes must be at least 1")
        usable = cores()
        self._told = told
        self._modules = tuple(modules)
        self._cores = [usable[index % len(usable)] for index in range(number or len(usable))]
        self._jobs: collections.deque[_Job] = collections.deque()
        self._values: list[bytes] = []  # shared ones, pickled
        self._workers: list[_Worker] = []
        self._context = multiprocessing.get_context("spawn")  # threads do not survive a fork
        self._bell, self._ring = self._context.Pipe(duplex=False)
        self._open = True
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def submit(self, job: Callable[..., Any], *args: Any) -> Future:
        ticket: Future = Future()
        needs = [arg.number for arg in args if isinstance(arg, _Shared)]
        self._jobs.append(_Job(pickle.dumps((job, args)), needs, ticket))
        self._ring.send_bytes(b"job")
        return ticket

    def share(self, value: Any) -> _Shared:
        found = _Shared(len(self._values))
        self._values.append(pickle.dumps((found, value)))
        return found

    def _serve(self) -> None:
        """Hands out jobs and takes what comes back, until the pool is closed."""
        try:
            while self._open:
                self._hand_out()
                ready = connection.wait([self._bell, *(worker.pipe for worker in self._workers)])
                if self._bell in ready:
                    self._bell.recv_bytes()
                for worker in [worker for worker in self._workers if worker.pipe in ready]:
                    self._hear(worker)
        except Exception as error:  # of whoever is told, say: nobody must wait for ever
            for job in [*(worker.job for worker in self._workers), *self._jobs]:
                if job:
                    job.ticket.set_exception(error)

    def _hand_out(self) -> None:
        while self._jobs:
            worker = next((worker for worker in self._workers if worker.job is None), None)
            if worker is None and len(self._workers) == len(self._cores):
                return
            worker = worker or self._start()
            worker.job = self._jobs.popleft()
            worker.job.tries += 1
            try:
                for number in set(worker.job.needs) - worker.knows:
                    worker.pipe.send_bytes(self._values[number])
                    worker.knows.add(number)
                worker.pipe.send_bytes(worker.job.content)
            except OSError:
                self._lose(worker)

    def _start(self) -> _Worker:
        core = next(iter(set(self._cores) - {worker.core for worker in self._workers}), None)
        core = self._cores[len(self._workers)] if core is None else core
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_work, args=(theirs, core, dict(jax.config.values), self._modules), daemon=True
        )
        process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours, core, set()))
        return self._workers[-1]

    def _hear(self, worker: _Worker) -> None:
        try:
            kind, value = pickle.loads(worker.pipe.recv_bytes())
        except (EOFError, OSError):
            self._lose(worker)
            return
        if kind == "news":
            self._told(*value)
            return
        assert worker.job is not None
        ticket, worker.job = worker.job.ticket, None
        if kind == "done":
            ticket.set_result(value)
        else:
            ticket.set_exception(value)

    def _lose(self, worker: _Worker) -> None:
        """Gives what a dead process had to another."""
        self._workers.remove(worker)
        worker.process.join()
        job = worker.job
        if job is None:
            return
        if job.tries < _TRIES:
            self._jobs.appendleft(job)
        else:
            code = worker.process.exitcode
            job.ticket.set_exception(
                WorkerDiedError(
                    f"a job's process died {_TRIES} times, at last with exit code {code}"
                )
            )

    def __enter__(self) -> "Processes":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._ring.send_bytes(b"end")
        self._thread.join()
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        for job in self._jobs:
            job.ticket.cancel()
