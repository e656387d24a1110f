"""Runners: jobs in threads, in processes, or on a Ray cluster."""

from isnas_jax.running._worker import WorkerDiedError
from isnas_jax.running.pool import Event, Pool, Progress, Runner, check_workers, ignore, with_stage
from isnas_jax.running.processes import Processes, cores
from isnas_jax.running.ray import Ray
from isnas_jax.running.threads import Threads

__all__ = [
    "Event",
    "Pool",
    "Processes",
    "Progress",
    "Ray",
    "Runner",
    "Threads",
    "WorkerDiedError",
    "check_workers",
    "cores",
    "ignore",
    "with_stage",
]
