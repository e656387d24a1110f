"""Estimate the strength of unknown noise by PyWavelets, which scikit-image needs too.

Images are float32 (H, W, C) in [0, 1].
"""

from typing import Any

import numpy as np

from isnas_jax.problems import pixels

SMALLEST_SIDE = 8
_QUARTILE = 0.6744897501960817  # of the standard normal distribution


def estimate_sigma(image: Any) -> float:
    """Estimate the standard deviation of normal noise in gray levels (0 to 255).

    The median magnitude of the finest diagonal wavelets (Donoho and Johnstone,
    1994), averaged over channels: fine texture counts as noise, noise that is
    clipped or smoothed counts less. A constant channel counts as 0.

    Args:
      image: Floats (H, W, C) in [0, 1], sides of at least 8 pixels.

    Raises:
      ValueError: For what is no such image.
    """
    import pywt

    values = pixels.image(image)
    pixels.check_values(values)
    if min(values.shape[:2]) < SMALLEST_SIDE:
        raise ValueError(
            f"noise cannot be estimated from {values.shape[0]} x {values.shape[1]} pixels; the "
            f"smallest side is {SMALLEST_SIDE}"
        )
    # Constants have no details; without this they would have those of rounding.
    details = pywt.dwt2(values - values[:1, :1], "db2", axes=(0, 1))[1][2]
    sigmas = [
        np.median(np.abs(found)) / _QUARTILE if (found := channel[channel != 0]).size else 0.0
        for channel in np.moveaxis(details, -1, 0)
    ]
    return 255 * float(np.mean(sigmas))
