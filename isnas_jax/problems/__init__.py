"""Restoration problems: what is observed, the tasks, smaller stand-ins, classical solutions."""

from isnas_jax.problems.classical import CLASSICAL
from isnas_jax.problems.problem import (
    Downsampling,
    Identity,
    Operator,
    Problem,
    denoising,
    inpainting,
    super_resolution,
)
from isnas_jax.problems.proxies import PROXIES, Proxy
from isnas_jax.problems.splits import SPLITS, CoupledBootstrap, HoldOut, Split, hold_out
from isnas_jax.problems.tasks import TASKS, Task

__all__ = [
    "CLASSICAL",
    "PROXIES",
    "SPLITS",
    "TASKS",
    "CoupledBootstrap",
    "Downsampling",
    "HoldOut",
    "Identity",
    "Operator",
    "Problem",
    "Proxy",
    "Split",
    "Task",
    "denoising",
    "hold_out",
    "inpainting",
    "super_resolution",
]
