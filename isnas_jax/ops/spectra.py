"""Power spectral densities of (H, W, C) images and regions of their plane.

Spectra are float32 (H, W, C), one for each channel, with the zero frequency
at (H // 2, W // 2). Frequencies are in cycles per pixel.
"""

import jax
import jax.numpy as jnp
import numpy as np

# No float32 image has true components this far down; it only keeps zeros finite.
_FLOOR = 1e-20


def power_spectral_density(image: jax.Array) -> jax.Array:
    """|FFT2(x) / (H W)|**2 of every channel, centered."""
    height, width = image.shape[:2]
    spectrum = jnp.fft.fft2(image, axes=(0, 1)) / (height * width)
    return jnp.fft.fftshift(jnp.square(jnp.abs(spectrum)), axes=(0, 1))


def decibels(psd: jax.Array) -> jax.Array:
    """10 log10 of a spectrum; zeros become -200 dB."""
    return 10 * jnp.log10(jnp.maximum(psd, _FLOOR))


def published_decibels(psd: jax.Array) -> jax.Array:
    """10 ln of a spectrum, which the published code calls dB."""
    return 10 * jnp.log(jnp.maximum(psd, _FLOOR))


def radius(height: int, width: int) -> np.ndarray:
    """Distance of every bin from the zero frequency, (H, W), in cycles per pixel."""
    rows, columns = (np.arange(side) - side // 2 for side in (height, width))
    return np.hypot(rows[:, None] / height, columns[None] / width)


def strip(height: int, width: int) -> np.ndarray:
    """The paper's ring, (H, W) booleans: diameters 0.1 to 0.2, radii in [0.05, 0.1).

    Decided in integers: rounding would put some bins of exactly these radii on
    different sides of the edge than their opposites. ValueError where it is empty,
    as for sides below 11.
    """
    rows, columns = (np.arange(side) - side // 2 for side in (height, width))
    squared = np.square(rows[:, None] * width) + np.square(columns[None] * height)
    whole = (height * width) ** 2
    ring = (400 * squared >= whole) & (100 * squared < whole)
    if not ring.any():
        raise ValueError(
            f"images of {height} x {width} have no frequencies in the ring; the smallest side is 11"
        )
    return ring
