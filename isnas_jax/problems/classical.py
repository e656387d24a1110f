"""Restorations without a network, as points of reference; from scikit-image and bm3d.

They see nothing of a measurement whose weight is 0: what no task expects to
miss is filled in first. Images are float32 (H, W, C) in [0, 1].
"""

import dataclasses
import importlib.util
from collections.abc import Callable

import numpy as np

from isnas_jax.problems.noise import estimate_sigma
from isnas_jax.problems.problem import Problem
from isnas_jax.registry import Registry


def _noise_std(problem: Problem) -> float:
    """Of the noise, in units of the image: as known, else estimated."""
    known = problem.sigma
    return float(estimate_sigma(_filled(problem)) if known is None else known) / 255


def _filled(problem: Problem) -> np.ndarray:
    """The observation, missing measurements filled in biharmonically."""
    observed = np.asarray(problem.observed)
    missing = np.broadcast_to(np.asarray(problem.weights) == 0, observed.shape)
    if not missing.any():
        return observed
    from skimage.restoration import inpaint_biharmonic

    # Plane by plane, for a measurement may be missing in one channel only.
    planes = (np.array(np.moveaxis(array, -1, 0), order="C") for array in (observed, missing))
    return np.stack([inpaint_biharmonic(*pair) for pair in zip(*planes, strict=True)], axis=-1)


def observed(problem: Problem) -> np.ndarray:
    """Return the observation itself, which weak noise leaves better than any restoration."""
    return _filled(problem)


def bm3d(problem: Problem) -> np.ndarray:
    """BM3D, or CBM3D for RGB (Dabov et al., 2007), by the noise's strength."""
    import bm3d as package

    observed, std = _filled(problem), _noise_std(problem)
    if observed.shape[-1] == 3:
        return package.bm3d_rgb(observed, std)
    return package.bm3d(observed[..., 0], std)[..., None]


def non_local_means(problem: Problem) -> np.ndarray:
    """Non-local means (Buades et al., 2005), by the noise's strength."""
    from skimage.restoration import denoise_nl_means

    std = _noise_std(problem)
    restored = denoise_nl_means(
        _filled(problem), h=0.8 * std, sigma=std, fast_mode=False, channel_axis=-1
    )
    return restored.reshape(problem.shape)  # it drops a single channel


def total_variation(problem: Problem) -> np.ndarray:
    """Total variation (Chambolle, 2004) at scikit-image's default weight."""
    from skimage.restoration import denoise_tv_chambolle

    return denoise_tv_chambolle(_filled(problem), channel_axis=-1)


def biharmonic(problem: Problem) -> np.ndarray:
    """Biharmonic inpainting."""
    return _filled(problem)


def bicubic(problem: Problem) -> np.ndarray:
    """Bicubic interpolation."""
    from skimage.transform import resize

    return resize(_filled(problem), problem.shape, order=3)


@dataclasses.dataclass(frozen=True)
class Classical:
    """A restoration for one task.

    Attributes:
      task: Name in `TASKS`.
      restore: From a problem to an image (H, W, C).
    """

    task: str
    restore: Callable[[Problem], np.ndarray]


CLASSICAL: Registry[Classical] = Registry(
    "classical restoration",
    {
        "observed": Classical("denoising", observed),
        "non-local means": Classical("denoising", non_local_means),
        "total variation": Classical("denoising", total_variation),
        "biharmonic": Classical("inpainting", biharmonic),
        "bicubic": Classical("super_resolution", bicubic),
    },
)
if importlib.util.find_spec("bm3d"):
    CLASSICAL["BM3D"] = Classical("denoising", bm3d)


def names_of(task: str) -> list[str]:
    """The classical restorations for a task."""
    return [name for name, entry in CLASSICAL.items() if entry.task == task]


def check(name: str, problem: Problem) -> Classical:
    """The classical restoration of that name; ValueError if it is not one of the problem's task."""
    entry = CLASSICAL[name]
    if entry.task != problem.task:
        raise ValueError(
            f"{name!r} restores {entry.task}, not {problem.task}; "
            f"choose from {', '.join(names_of(problem.task))}"
        )
    return entry


def restore(name: str, problem: Problem) -> np.ndarray:
    """A classical restoration (H, W, C), clipped.

    Raises:
      ValueError: For a name that is not valid, with the valid ones, or if what
        it makes is no image of the problem.
    """
    restored = np.asarray(check(name, problem).restore(problem), np.float32)
    if restored.shape != problem.shape:
        raise ValueError(f"{name!r} made an image of {restored.shape}, not of {problem.shape}")
    if not np.isfinite(restored).all():
        raise ValueError(f"{name!r} made an image with values that are not finite")
    return np.clip(restored, 0, 1)
