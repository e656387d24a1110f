"""Restoration problems: what is observed, the tasks, smaller stand-ins, classical solutions."""

from isnas_jax.problems import pixels
from isnas_jax.problems.classical import CLASSICAL, Classical
from isnas_jax.problems.noise import estimate_sigma
from isnas_jax.problems.problem import (
    Downsampling,
    Identity,
    Operator,
    Problem,
    check_problem,
    denoising,
    inpainting,
    super_resolution,
)
from isnas_jax.problems.proxies import PROXIES, Proxy
from isnas_jax.problems.splits import SPLITS, CoupledBootstrap, HoldOut, Split, hold_out, nothing
from isnas_jax.problems.tasks import TASKS, Task

__all__ = [
    "CLASSICAL",
    "PROXIES",
    "SPLITS",
    "TASKS",
    "Classical",
    "CoupledBootstrap",
    "Downsampling",
    "HoldOut",
    "Identity",
    "Operator",
    "Problem",
    "Proxy",
    "Split",
    "Task",
    "check_problem",
    "denoising",
    "estimate_sigma",
    "hold_out",
    "inpainting",
    "nothing",
    "pixels",
    "super_resolution",
]
