"""Quality metrics that compare a restoration with the clean image.

Images are float32 (H, W, C) in [0, 1].
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def psnr(image: ArrayLike, clean: ArrayLike) -> jax.Array:
    """Return the peak signal-to-noise ratio in dB over all channels, for a peak value of 1."""
    return -10 * jnp.log10(jnp.square(jnp.subtract(image, clean)).mean())


def ssim(image: ArrayLike, clean: ArrayLike) -> float:
    """Return the structural similarity (Wang et al., 2004) with a Gaussian window, at most 1.

    This needs scikit-image.
    """
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(
            np.asarray(image),
            np.asarray(clean),
            data_range=1.0,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def luma(image: ArrayLike) -> np.ndarray:
    """Return the ITU-R BT.601 luma, (H, W, 1) in [16/255, 235/255]; gray images are unchanged."""
    pixels = np.asarray(image, np.float32)
    if pixels.shape[-1] == 1:
        return pixels
    weights = np.array([65.481, 128.553, 24.966], np.float32)
    return ((pixels @ weights + 16) / 255)[..., None].astype(np.float32)


def report(image: ArrayLike, clean: ArrayLike) -> dict[str, float]:
    """Return `psnr` over all channels, `psnr_y` on the luma (both in dB) and `ssim`.

    Super-resolution is usually compared on the luma.
    """
    return {
        "psnr": float(psnr(image, clean)),
        "psnr_y": float(psnr(luma(image), luma(clean))),
        "ssim": ssim(image, clean),
    }
