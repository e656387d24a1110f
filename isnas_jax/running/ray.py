"""Jobs as tasks of a Ray cluster: a new one on this machine, or a running one. Needs ray."""

import collections
import functools
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from isnas_jax.running._worker import (
    TRIES,
    Environment,
    Reference,
    WorkerDiedError,
    picklable_error,
    pickled,
)
from isnas_jax.running.pool import Event, Progress, check_workers

# Tasks in the cluster for each that it can run at once; the others wait in this process.
_TASKS_PER_SLOT = 2
# Seconds between two deliveries of events.
_INTERVAL = 0.5


class _Reporter:
    """The `progress` of a job: delivers the latest event of each stage at intervals."""

    def __init__(self, queue: Any, number: int) -> None:
        self._queue, self._number = queue, number
        self._latest: dict[tuple, Event] = {}
        self._delivered = -_INTERVAL

    def __call__(self, event: Event) -> None:
        self._latest[event.stage] = event
        if time.monotonic() - self._delivered > _INTERVAL:
            self.flush()

    def flush(self) -> None:
        import ray

        if self._latest:
            # Waiting for the delivery bounds the queue, and ends a job if its driver died.
            try:
                self._queue.put((self._number, list(self._latest.values())))
            except ray.exceptions.RayError as error:
                raise InterruptedError("the driver is gone") from error
            self._latest, self._delivered = {}, time.monotonic()


@functools.cache
def _fetch(reference: Any) -> Any:
    """Return a broadcast value, which a worker receives once."""
    import ray

    return ray.get(reference)


def _run_job(
    number: int,
    queue: Any,
    environment: Environment,
    references: Mapping[int, Any],
    content: bytes,
) -> tuple[str, Any]:
    """Run a job in a worker; return ("done", its result) or ("failed", its error)."""
    import ray

    try:
        environment.apply()
        job, args = ray.cloudpickle.loads(content)
        reporter = _Reporter(queue, number)
        resolved = [_fetch(references[a.number]) if isinstance(a, Reference) else a for a in args]
        result = job(reporter, *resolved)
        reporter.flush()
        return "done", result
    except Exception as error:
        return "failed", picklable_error(error)


class _Job(NamedTuple):
    """A job that waits or runs, and the future of its result."""

    number: int
    future: Future
    references: Mapping[int, Any]
    content: bytes


def _check_listening(address: str | None) -> None:
    """Raise OSError if nothing listens there; Ray itself would retry for minutes."""
    host, _, port = (address or "").rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


class Ray:
    """Run jobs as tasks of a Ray cluster.

    A task runs again if its worker or node dies. If this process dies, its tasks end too. Of
    events in quick succession, the last one of each stage arrives. A connection that `ray.init`
    made is used, and kept at the end. Other machines need the same packages installed, and a
    shared file system for the files that jobs read and write.

    Args:
      progress: Takes the jobs' events, in a thread.
      workers: Largest number of jobs at a time; by default as many as the cluster has room for.
      modules: Extensions that workers import first, because jobs look them up by name.
      address: Address of a cluster; "auto" is the one on this machine. By default that of the
        variable RAY_ADDRESS, or else a new cluster on this machine.
      cpus: Cores for each job, which computes in as many threads.
      gpus: GPUs for each job; fractions of one are possible.

    Raises:
      ValueError: For impossible numbers, for an address without a cluster, or if no node has
        room for a job.
      ModuleNotFoundError: Without ray.
    """

    def __init__(
        self,
        progress: Progress,
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
            import ray.util.queue
        except ModuleNotFoundError:
            raise ModuleNotFoundError("ray is missing: pip install 'isnas_jax[ray]'") from None
        self._ray: Any = ray
        self._owns_cluster = not ray.is_initialized()
        if self._owns_cluster:
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
            if self._owns_cluster:
                ray.shutdown()
            raise ValueError(f"no node of the Ray cluster has {cpus} CPUs and {gpus} GPUs")
        # XLA uses as many threads as it is told to, so that sums are the same on all nodes.
        environment = {"NPROC": str(cpus)}
        if 0 < gpus < 1:  # jobs on one GPU allocate memory only as they need it
            environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        self._task = ray.remote(_run_job).options(
            num_cpus=cpus,
            num_gpus=gpus,
            max_retries=TRIES - 1,
            runtime_env={"env_vars": environment},
        )
        # On the driver's node, so that it survives the loss of other nodes.
        node = ray.get_runtime_context().get_node_id()
        affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        options = {"num_cpus": 0, "scheduling_strategy": affinity}
        self._queue = ray.util.queue.Queue(actor_options=options)  # of events, by job number
        self._environment = ray.put(Environment.current(modules))
        self._values: list[Any] = []  # references to broadcast values
        self._waiting: collections.deque[_Job] = collections.deque()
        self._jobs = 0
        self._change, self._ended = threading.Condition(), False
        self._lost: ConnectionError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[..., Any], *args: Any) -> Future:
        content = pickled((job, args), self._ray.cloudpickle.dumps)
        numbers = {arg.number for arg in args if isinstance(arg, Reference)}
        references = {number: self._values[number] for number in numbers}
        future: Future = Future()
        with self._change:
            if self._lost:
                raise self._lost
            self._jobs += 1
            self._waiting.append(_Job(self._jobs, future, references, content))
            self._change.notify()
        return future

    def broadcast(self, value: Any) -> Reference:
        self._values.append(self._ray.put(value))
        return Reference(len(self._values) - 1)

    def _run(self) -> None:
        """Move jobs to the cluster and results back, in a thread; every future gets an answer."""
        running: dict[Any, _Job] = {}  # by the reference to its result
        try:
            self._work(running)
            for reference in running:
                self._ray.cancel(reference, force=True)
        except Exception as error:
            with self._change:
                self._lost = ConnectionError(f"the Ray cluster is lost: {error}")
        for job in running.values():
            job.future.set_exception(self._lost or InterruptedError("the pool has ended"))
        for job in self._waiting:
            if self._lost and job.future.set_running_or_notify_cancel():
                job.future.set_exception(self._lost)
            job.future.cancel()

    def _work(self, running: dict[Any, _Job]) -> None:
        while True:
            with self._change:
                while not (self._ended or self._waiting or running):
                    self._change.wait()
                if self._ended:
                    break
                self._launch(running)
            if running:
                done, _ = self._ray.wait(list(running), timeout=_INTERVAL)
                self._report(running)
                for reference in done:
                    if job := running.pop(reference, None):
                        self._finish(job.future, reference)

    @property
    def workers(self) -> int:
        """Number of jobs that the nodes have room for, at most the given one."""
        room = self._room()
        return max(1, min(room, self._workers or room))

    def _room(self) -> int:
        """Return how many jobs the nodes have room for."""
        room = 0
        for node in self._ray.nodes():
            resources = node["Resources"] if node["Alive"] else {}
            jobs = int(resources.get("CPU", 0) // self._cpus)
            if self._gpus:
                # A fraction of a GPU must lie on one GPU.
                per_gpu = int(1 // self._gpus) if self._gpus < 1 else 1 / self._gpus
                jobs = min(jobs, int(resources.get("GPU", 0) * per_gpu))
            room += jobs
        return room

    def _launch(self, running: dict[Any, _Job]) -> None:
        most = self._workers or _TASKS_PER_SLOT * self.workers
        while self._waiting and len(running) < most:
            job = self._waiting.popleft()
            if job.future.set_running_or_notify_cancel():
                args = job.number, self._queue, self._environment, job.references, job.content
                try:
                    running[self._task.remote(*args)] = job
                except Exception as error:
                    job.future.set_exception(error)
                    raise

    def _report(self, running: dict[Any, _Job]) -> None:
        references = {job.number: reference for reference, job in running.items()}
        for number, events in self._queue.get_nowait_batch(self._queue.qsize()):
            reference = references.get(number)
            if reference not in running:  # its callback failed, or it died
                continue
            try:
                for event in events:
                    self._progress(event)
            except BaseException as error:
                self._ray.cancel(reference, force=True)
                running.pop(reference).future.set_exception(error)

    def _finish(self, future: Future, reference: Any) -> None:
        errors = self._ray.exceptions
        try:
            kind, value = self._ray.get(reference)
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as error:
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
            self._queue.shutdown(force=True)
        if self._owns_cluster:
            self._ray.shutdown()
