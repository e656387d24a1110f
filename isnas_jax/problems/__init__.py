"""Restoration problems: observations, tasks, splits, proxies and classical restorations."""

from isnas_jax.problems import classical, pixels
from isnas_jax.problems.classical import (
    Classical,
    bicubic,
    biharmonic,
    bm3d,
    estimate_sigma,
    non_local_means,
    observed,
    total_variation,
)
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
from isnas_jax.problems.proxies import Crop, Decimate, Proxy, Resize
from isnas_jax.problems.splits import CoupledBootstrap, HoldOut, Split, without_measurements
from isnas_jax.problems.tasks import PUBLISHED_TASKS, Task, add_noise, downscale, remove_pixels

__all__ = [
    "PUBLISHED_TASKS",
    "Classical",
    "CoupledBootstrap",
    "Crop",
    "Decimate",
    "Downsampling",
    "HoldOut",
    "Identity",
    "Operator",
    "Problem",
    "Proxy",
    "Resize",
    "Split",
    "Task",
    "add_noise",
    "bicubic",
    "biharmonic",
    "bm3d",
    "check_problem",
    "classical",
    "denoising",
    "downscale",
    "estimate_sigma",
    "inpainting",
    "non_local_means",
    "observed",
    "pixels",
    "remove_pixels",
    "super_resolution",
    "total_variation",
    "without_measurements",
]
