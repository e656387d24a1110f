"""Who does the work: this process, others on this machine, or whoever is added."""

from isnas_jax.registry import Registry
from isnas_jax.running._elsewhere import WorkerDiedError
from isnas_jax.running.here import Here
from isnas_jax.running.pool import Pool, ProgressCallback, Runner, check_workers, silent
from isnas_jax.running.processes import Processes, cores
from isnas_jax.running.ray import Ray

RUNNERS: Registry[Runner] = Registry("runner", {"here": Here, "processes": Processes, "ray": Ray})


__all__ = [
    "RUNNERS",
    "Here",
    "Pool",
    "Processes",
    "ProgressCallback",
    "Ray",
    "Runner",
    "WorkerDiedError",
    "check_workers",
    "cores",
    "silent",
]
