"""Noise estimation by wavelets, with PyWavelets."""

from typing import Any

import numpy as np

from isnas_jax.problems import pixels

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
