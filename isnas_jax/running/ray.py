"""Jobs as tasks of a Ray cluster, one started here or one that is there already. Needs ray."""

import collections
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from isnas_jax.running._workers import (
    TRIES,
    Shared,
    WorkerDiedError,
    WorkerEnvironment,
    sendable,
    worker_environment,
)
from isnas_jax.running.pool import ProgressCallback, check_workers

# Tasks in the cluster for each that it can do at once: so many wait there, the rest here.
_AHEAD = 2
# How often news are passed on.
_SECONDS = 0.5


class _Board:
    """An actor: what jobs, by number, last told of each stage, until the driver takes it."""

    def __init__(self) -> None:
        self._told: list[tuple[int, dict[str, Any]]] = []

    def put(self, number: int, told: dict[str, Any]) -> None:
        self._told.append((number, told))

    def take(self) -> list[tuple[int, dict[str, Any]]]:
        told, self._told = self._told, []
        return told


class _Telling:
    """A job's `progress`: passes on a stage's latest news, now and then."""

    def __init__(self, board: Any, number: int) -> None:
        self._board, self._number = board, number
        self._told: dict[str, Any] = {}
        self._last = -_SECONDS

    def __call__(self, stage: str, news: Any) -> None:
        self._told[stage] = news
        if time.monotonic() - self._last > _SECONDS:
            self.flush()

    def flush(self) -> None:
        import ray

        if self._told:
            # Waits, so that nobody is told more than can be heard; who told is dead tells no more.
            try:
                ray.get(self._board.put.remote(self._number, self._told))
            except ray.exceptions.RayError as error:
                raise InterruptedError("nobody listens any more") from error
            self._told, self._last = {}, time.monotonic()


_fetched: dict[str, Any] = {}  # a worker's shared values, by reference


def _value(reference: Any) -> Any:
    import ray

    if reference.hex() not in _fetched:
        _fetched[reference.hex()] = ray.get(reference)
    return _fetched[reference.hex()]


def _do(
    number: int, board: Any, like: WorkerEnvironment, references: Mapping[int, Any], content: bytes
) -> tuple[str, Any]:
    """A job, in a worker: ("done", what it returned) or ("failed", its error)."""
    import ray

    try:
        like.settle()
        job, args = ray.cloudpickle.loads(content)
        telling = _Telling(board, number)
        given = [_value(references[a.number]) if isinstance(a, Shared) else a for a in args]
        found = job(telling, *given)
        telling.flush()
        return "done", found
    except Exception as error:
        return "failed", sendable(error)


class _Job(NamedTuple):
    """What is asked of a worker, and what is promised for it."""

    number: int
    future: Future
    references: Mapping[int, Any]
    content: bytes


def _check_listening(address: str | None) -> None:
    """OSError where nobody answers; Ray would ask again for minutes."""
    host, _, port = (address or "").rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def _deaths(exceptions: Any) -> tuple[type[Exception], ...]:
    """What Ray raises where a task's process or node has ended too often."""
    return exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.OutOfMemoryError


class Ray:
    """Jobs as tasks of a Ray cluster.

    A task whose worker or node dies is done again. As many tasks are in the
    cluster as it can do at once, and as many again; of news that soon follow each
    other the last is heard. Where this process dies, so do its tasks. A cluster that
    is connected already, by `ray.init`, is taken, and left as it is. On other
    machines than this one, what jobs are made of has to be installed, and what
    they read and write has to be shared.

    Args:
      progress: Takes the jobs' news, in a thread.
      workers: The most jobs at a time; by default what the cluster's resources allow.
      modules: What workers import first: extensions that jobs call by name.
      address: Of a cluster ("auto": this machine's), by default that of the variable
        RAY_ADDRESS or a new one on this machine.
      cpus: What a job asks of a node, and in how many threads it computes.
      gpus: What a job asks of a node; shares of one are possible.

    Raises:
      ValueError: For numbers that cannot be, where no cluster is at the address, or no
        node of it has room for a job.
      ModuleNotFoundError: Without ray.
    """

    def __init__(
        self,
        progress: ProgressCallback,
        *,
        workers: int | None = None,
        modules: Sequence[str] = (),
        address: str | None = None,
        cpus: int = 1,
        gpus: float = 0,
    ) -> None:
        check_workers(1 if workers is None else workers)
        if cpus < 1 or gpus < 0:
            raise ValueError(f"cpus {cpus} must be at least 1 and gpus {gpus} not negative")
        try:
            import ray
        except ModuleNotFoundError:
            raise ModuleNotFoundError("ray is missing: pip install 'isnas_jax[ray]'") from None
        self._ray: Any = ray
        self._ours = not ray.is_initialized()
        if self._ours:
            try:
                _check_listening(address)
                # Without an address, Ray would take whatever cluster runs on this machine.
                address = address or os.environ.get("RAY_ADDRESS", "local")
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
            except OSError as error:
                raise ValueError(f"no Ray cluster at {address}") from error
        self._progress = progress
        self._workers, self._cpus, self._gpus = workers, cpus, gpus
        if not self._room():
            if self._ours:
                ray.shutdown()
            raise ValueError(f"no node of the Ray cluster has {cpus} CPUs and {gpus} GPUs")
        # XLA takes as many threads as it is said to have cores: the same sums everywhere.
        environment = {"NPROC": str(cpus)}
        if 0 < gpus < 1:  # who shares a GPU takes no more of its memory than it needs
            environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        self._task = ray.remote(_do).options(
            num_cpus=cpus,
            num_gpus=gpus,
            max_retries=TRIES - 1,
            runtime_env={"env_vars": environment},
        )
        # Beside the driver, for it must not go with another node.
        node = ray.get_runtime_context().get_node_id()
        beside = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        board: Any = ray.remote(_Board)
        self._board = board.options(num_cpus=0, scheduling_strategy=beside).remote()
        self._like = ray.put(worker_environment(modules))
        self._values: list[Any] = []  # references to shared ones
        self._waiting: collections.deque[_Job] = collections.deque()
        self._jobs = 0
        self._change, self._ended = threading.Condition(), False
        self._lost: ConnectionError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[..., Any], *args: Any) -> Future:
        try:
            content = self._ray.cloudpickle.dumps((job, args))
        except Exception as error:
            raise ValueError(f"this cannot be sent to another process: {error}") from error
        numbers = {arg.number for arg in args if isinstance(arg, Shared)}
        references = {number: self._values[number] for number in numbers}
        future: Future = Future()
        with self._change:
            if self._lost:
                raise self._lost
            self._jobs += 1
            self._waiting.append(_Job(self._jobs, future, references, content))
            self._change.notify()
        return future

    def broadcast(self, value: Any) -> Shared:
        self._values.append(self._ray.put(value))
        return Shared(len(self._values) - 1)

    def _run(self) -> None:
        """The thread between jobs and cluster: nobody waits for ever, whatever happens to it."""
        at_work: dict[Any, _Job] = {}  # by the reference to what will come of it
        try:
            self._work(at_work)
            for reference in at_work:
                self._ray.cancel(reference, force=True)
        except Exception as error:
            with self._change:
                self._lost = ConnectionError(f"the Ray cluster is lost: {error}")
        for job in at_work.values():
            job.future.set_exception(self._lost or InterruptedError("the pool has ended"))
        for job in self._waiting:
            if self._lost and job.future.set_running_or_notify_cancel():
                job.future.set_exception(self._lost)
            job.future.cancel()

    def _work(self, at_work: dict[Any, _Job]) -> None:
        while True:
            with self._change:
                while not (self._ended or self._waiting or at_work):
                    self._change.wait()
                if self._ended:
                    break
                self._launch(at_work)
            if at_work:
                done, _ = self._ray.wait(list(at_work), timeout=_SECONDS)
                self._hear(at_work)
                for reference in done:
                    if job := at_work.pop(reference, None):
                        self._finish(job.future, reference)

    @property
    def workers(self) -> int:
        """How many jobs the cluster's nodes can do now, or may do at most."""
        there = self._room()
        return max(1, min(there, self._workers or there))

    def _room(self) -> int:
        """How many jobs have room on the nodes at a time."""
        there = 0
        for node in self._ray.nodes():
            has = node["Resources"] if node["Alive"] else {}
            fit = int(has.get("CPU", 0) // self._cpus)
            if self._gpus:
                # A share is of one GPU.
                each = int(1 // self._gpus) if self._gpus < 1 else 1 / self._gpus
                fit = min(fit, int(has.get("GPU", 0) * each))
            there += fit
        return there

    def _launch(self, at_work: dict[Any, _Job]) -> None:
        most = self._workers or _AHEAD * self.workers
        while self._waiting and len(at_work) < most:
            job = self._waiting.popleft()
            if job.future.set_running_or_notify_cancel():
                given = job.number, self._board, self._like, job.references, job.content
                try:
                    at_work[self._task.remote(*given)] = job
                except Exception as error:
                    job.future.set_exception(error)
                    raise

    def _hear(self, at_work: dict[Any, _Job]) -> None:
        references = {job.number: reference for reference, job in at_work.items()}
        for number, told in self._ray.get(self._board.take.remote()):
            reference = references.get(number)
            if reference not in at_work:  # its listener has failed, or it died meanwhile
                continue
            try:
                for stage, news in told.items():
                    self._progress(stage, news)
            except BaseException as error:
                self._ray.cancel(reference, force=True)
                at_work.pop(reference).future.set_exception(error)

    def _finish(self, future: Future, reference: Any) -> None:
        try:
            kind, value = self._ray.get(reference)
        except _deaths(self._ray.exceptions) as error:
            reason = f"a job's worker died {TRIES} times: {error}"
            kind, value = "failed", WorkerDiedError(reason)
        except Exception as error:
            kind, value = "failed", RuntimeError(f"{type(error).__name__}: {error}")
        if kind == "done":
            future.set_result(value)
        else:
            future.set_exception(value)

    def __enter__(self) -> "Ray":
        return self

    def __exit__(self, *_: object) -> None:
        with self._change:
            self._ended = True
            self._change.notify()
        self._thread.join()
        if not self._lost:
            self._ray.kill(self._board)
        if self._ours:
            self._ray.shutdown()
