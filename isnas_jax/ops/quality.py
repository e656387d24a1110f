"""How close a restoration is to the clean image; for evaluation only.

Images are float32 (H, W, C) in [0, 1].
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def psnr(image: ArrayLike, clean: ArrayLike) -> jax.Array:
    """Peak signal-to-noise ratio in dB, over all channels, for a peak of 1."""
    return -10 * jnp.log10(jnp.square(jnp.subtract(image, clean)).mean())


def ssim(image: ArrayLike, clean: ArrayLike) -> float:
    """Structural similarity (Wang et al., 2004, Gaussian window), at most 1; needs scikit-image."""
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
    """ITU-R BT.601 luma of an RGB image, (H, W, 1) in [16/255, 235/255]; gray as it is."""
    pixels = np.asarray(image, np.float32)
    if pixels.shape[-1] == 1:
        return pixels
    weights = np.array([65.481, 128.553, 24.966], np.float32)
    return ((pixels @ weights + 16) / 255)[..., None].astype(np.float32)


def report(image: ArrayLike, clean: ArrayLike) -> dict[str, float]:
    """PSNR in dB over all channels and on luma (usual for super-resolution), and SSIM."""
    return {
        "psnr": float(psnr(image, clean)),
        "psnr_y": float(psnr(luma(image), luma(clean))),
        "ssim": ssim(image, clean),
    }
