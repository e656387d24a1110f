"""Restorations without a network, as points of reference; from scikit-image and bm3d.

Images are float32 (H, W, C) in [0, 1].
"""

import importlib.util
from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np

from isnas_jax.observations import Problem

# Takes a problem and the strength of its noise, in grey levels.
Restoration: TypeAlias = Callable[[Problem, float], np.ndarray]


def bm3d(problem: Problem, sigma: float) -> np.ndarray:
    """BM3D, or CBM3D for RGB (Dabov et al., 2007), told the noise's strength."""
    import bm3d as package

    observed = np.asarray(problem.observed)
    if observed.shape[-1] == 3:
        return package.bm3d_rgb(observed, sigma / 255)
    return package.bm3d(observed[..., 0], sigma / 255)[..., None]


def non_local_means(problem: Problem, sigma: float) -> np.ndarray:
    """Non-local means (Buades et al., 2005), told the noise's strength."""
    from skimage.restoration import denoise_nl_means

    return denoise_nl_means(
        np.asarray(problem.observed),
        h=0.8 * sigma / 255,
        sigma=sigma / 255,
        fast_mode=False,
        channel_axis=-1,
    )


def total_variation(problem: Problem, sigma: float) -> np.ndarray:
    """Total variation (Chambolle, 2004) at scikit-image's default weight."""
    from skimage.restoration import denoise_tv_chambolle

    del sigma
    return denoise_tv_chambolle(np.asarray(problem.observed), channel_axis=-1)


def biharmonic(problem: Problem, sigma: float) -> np.ndarray:
    """Biharmonic inpainting."""
    from skimage.restoration import inpaint_biharmonic

    del sigma
    missing = np.asarray(problem.operator(jnp.ones(problem.shape)))[..., 0] == 0
    return inpaint_biharmonic(np.asarray(problem.observed), missing, channel_axis=-1)


def bicubic(problem: Problem, sigma: float) -> np.ndarray:
    """Bicubic interpolation."""
    from skimage.transform import resize

    del sigma
    return resize(np.asarray(problem.observed), problem.shape, order=3)


# By task and name.
CLASSICAL: dict[str, dict[str, Restoration]] = {
    "denoising": {"non-local means": non_local_means, "total variation": total_variation},
    "inpainting": {"biharmonic": biharmonic},
    "super_resolution": {"bicubic": bicubic},
}
if importlib.util.find_spec("bm3d"):
    CLASSICAL["denoising"]["BM3D"] = bm3d


def restore(name: str, problem: Problem, task: str, sigma: float) -> np.ndarray:
    """A classical restoration (H, W, C), clipped; ValueError with the valid names."""
    known = CLASSICAL.get(task, {})
    if name not in known:
        raise ValueError(
            f"classical restoration {name!r} of {task} does not exist; "
            f"choose from {', '.join(known)}"
        )
    restored = known[name](problem, sigma).reshape(problem.shape)
    return np.clip(restored, 0, 1).astype(np.float32)
