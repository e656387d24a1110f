"""Classical restorations and noise estimation, from scikit-image, bm3d and PyWavelets.

Restorations ignore measurements of weight 0. Tasks other than inpainting may have such measurements
after a split; they are filled by biharmonic inpainting first. Images are float32 (H, W, C)
in [0, 1].
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from isnas_jax.problems import pixels
from isnas_jax.problems.problem import Problem

MIN_SIDE = 8
_NORMAL_QUARTILE = 0.6744897501960817  # 75th percentile of the standard normal distribution


def estimate_sigma(image: Any) -> float:
    """Estimate the standard deviation of normal noise in gray levels (0 to 255).

    The estimate is the median magnitude of the finest diagonal wavelet coefficients (Donoho
    and Johnstone, 1994), averaged over channels. Fine texture raises it; clipping or
    smoothing of the noise lowers it. A constant channel contributes 0.

    Args:
      image: Floats (H, W, C) in [0, 1], with sides of at least 8 pixels.

    Raises:
      ValueError: If the image has another type, shape or range, or is too small.
    """
    import pywt

    values = pixels.check_image(image)
    pixels.check_range(values)
    if min(values.shape[:2]) < MIN_SIDE:
        raise ValueError(
            f"noise cannot be estimated from {values.shape[0]} x {values.shape[1]} pixels; the "
            f"smallest side is {MIN_SIDE}"
        )
    # Without the subtraction, a constant image would have coefficients from rounding.
    diagonal = pywt.dwt2(values - values[:1, :1], "db2", axes=(0, 1))[1][2]
    sigmas = [
        np.median(np.abs(nonzero)) / _NORMAL_QUARTILE
        if (nonzero := channel[channel != 0]).size
        else 0.0
        for channel in np.moveaxis(diagonal, -1, 0)
    ]
    return 255 * float(np.mean(sigmas))


def _noise_std(problem: Problem) -> float:
    """Return the known or estimated standard deviation of the noise, for images in [0, 1]."""
    sigma = problem.sigma
    return float(estimate_sigma(_biharmonic(problem)) if sigma is None else sigma) / 255


def _biharmonic(problem: Problem) -> np.ndarray:
    """Return the observation with missing measurements filled by biharmonic inpainting."""
    observed = np.asarray(problem.observed)
    missing = np.broadcast_to(np.asarray(problem.weights) == 0, observed.shape)
    if not missing.any():
        return observed
    from skimage.restoration import inpaint_biharmonic

    # Each channel has a mask of its own.
    planes = (np.array(np.moveaxis(array, -1, 0), order="C") for array in (observed, missing))
    return np.stack([inpaint_biharmonic(*pair) for pair in zip(*planes, strict=True)], axis=-1)


def _bm3d(problem: Problem) -> np.ndarray:
    """Denoise by BM3D, or by CBM3D for RGB (Dabov et al., 2007)."""
    import bm3d as package

    observed, std = _biharmonic(problem), _noise_std(problem)
    if observed.shape[-1] == 3:
        return package.bm3d_rgb(observed, std)
    return package.bm3d(observed[..., 0], std)[..., None]


def _non_local_means(problem: Problem) -> np.ndarray:
    """Denoise by non-local means (Buades et al., 2005)."""
    from skimage.restoration import denoise_nl_means

    std = _noise_std(problem)
    restored = denoise_nl_means(
        _biharmonic(problem), h=0.8 * std, sigma=std, fast_mode=False, channel_axis=-1
    )
    return restored.reshape(problem.shape)  # scikit-image drops a single channel


def _total_variation(problem: Problem) -> np.ndarray:
    """Denoise by total variation (Chambolle, 2004) with scikit-image's default weight."""
    from skimage.restoration import denoise_tv_chambolle

    return denoise_tv_chambolle(_biharmonic(problem), channel_axis=-1)


def _bicubic(problem: Problem) -> np.ndarray:
    """Enlarge by bicubic interpolation."""
    from skimage.transform import resize

    return resize(_biharmonic(problem), problem.shape, order=3)


@dataclasses.dataclass(frozen=True)
class Classical:
    """A classical restoration for one task.

    Attributes:
      name: Its name, in flags and tables.
      task: The task of its problems.
      restore: Returns the restored image (H, W, C) of a problem.
    """

    name: str
    task: str
    restore: Callable[[Problem], np.ndarray]

    def __str__(self) -> str:
        return self.name


# The observation can be the best restoration if the noise is weak.
observed = Classical("observed", "denoising", _biharmonic)
non_local_means = Classical("non-local means", "denoising", _non_local_means)
total_variation = Classical("total variation", "denoising", _total_variation)
bm3d = Classical("BM3D", "denoising", _bm3d)
biharmonic = Classical("biharmonic", "inpainting", _biharmonic)
bicubic = Classical("bicubic", "super_resolution", _bicubic)


def check(method: Classical, problem: Problem) -> None:
    """Raise ValueError if a classical restoration is for another task than the problem's."""
    if method.task != problem.task:
        raise ValueError(f"{str(method)!r} restores {method.task}, not {problem.task}")


def restore(method: Classical, problem: Problem) -> np.ndarray:
    """Return a classical restoration, float32 (H, W, C), clipped to [0, 1].

    Raises:
      ValueError: For another task than the problem's, or if the restored image has a wrong shape
        or values that are not finite.
    """
    check(method, problem)
    restored = np.asarray(method.restore(problem), np.float32)
    if restored.shape != problem.shape:
        raise ValueError(f"{str(method)!r} returned shape {restored.shape}, not {problem.shape}")
    if not np.isfinite(restored).all():
        raise ValueError(f"{str(method)!r} returned values that are not finite")
    return np.clip(restored, 0, 1)
