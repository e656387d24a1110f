"""Who does the work: this process, others on this machine, or whoever is added."""

from isnas_jax.registry import Registry
from isnas_jax.running._workers import WorkerDiedError
from isnas_jax.running.pool import Pool, ProgressCallback, Runner, check_workers, silent
from isnas_jax.running.processes import Processes, cores
from isnas_jax.running.ray import Ray
from isnas_jax.running.threads import Threads

RUNNERS: Registry[Runner] = Registry(
    "runner", {"threads": Threads, "processes": Processes, "ray": Ray}
)


__all__ = [
    "RUNNERS",
    "Pool",
    "Processes",
    "ProgressCallback",
    "Ray",
    "Runner",
    "Threads",
    "WorkerDiedError",
    "check_workers",
    "cores",
    "silent",
]
