"""Power spectral densities of images, and regions of the frequency plane.

Images are float32 (H, W, C). Spectra are float32 (H, W, C), one for each channel,
with the zero frequency at (H // 2, W // 2). Frequencies are in cycles per pixel.
"""

import jax
import jax.numpy as jnp
import numpy as np

# Keeps the logarithm of zeros finite; components of float32 images are larger.
_FLOOR = 1e-20


def power_spectral_density(image: jax.Array) -> jax.Array:
    """Return |FFT2(x) / (H W)|**2 of each channel, with the zero frequency in the center."""
    height, width = image.shape[:2]
    spectrum = jnp.fft.fft2(image, axes=(0, 1)) / (height * width)
    return jnp.fft.fftshift(jnp.square(jnp.abs(spectrum)), axes=(0, 1))


def decibels(psd: jax.Array) -> jax.Array:
    """Return 10 log10 of a spectrum; zeros become -200 dB."""
    return 10 * jnp.log10(jnp.maximum(psd, _FLOOR))


def published_decibels(psd: jax.Array) -> jax.Array:
    """Return 10 ln of a spectrum, which the published code calls dB."""
    return 10 * jnp.log(jnp.maximum(psd, _FLOOR))


def radius(height: int, width: int) -> np.ndarray:
    """Return the distance of each bin from the zero frequency: (H, W), in cycles per pixel."""
    rows, columns = (np.arange(side) - side // 2 for side in (height, width))
    return np.hypot(rows[:, None] / height, columns[None] / width)


def strip(height: int, width: int) -> np.ndarray:
    """Return the mask of the ring of frequencies that the paper's strip metrics compare.

    The ring has the radii [0.05, 0.1) in cycles per pixel (diameters 0.1 to 0.2). The mask is
    (H, W) booleans. Raises ValueError if the ring is empty, as for sides below 11.
    """
    # Integers are exact. In floating point, rounding would include some bins on the
    # boundary but not the bins opposite them.
    rows, columns = (np.arange(side) - side // 2 for side in (height, width))
    squared = np.square(rows[:, None] * width) + np.square(columns[None] * height)
    unit = (height * width) ** 2
    ring = (400 * squared >= unit) & (100 * squared < unit)
    if not ring.any():
        raise ValueError(
            f"images of {height} x {width} have no frequencies in the ring; the smallest side is 11"
        )
    return ring
