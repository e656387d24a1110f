"""How close a restoration is to the truth; for evaluation only.

Images are float32 (H, W, C) in [0, 1].
"""

import jax
import jax.numpy as jnp
import numpy as np


def psnr(image: jax.Array, truth: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio in dB, over all channels, for a peak of 1."""
    return -10 * jnp.log10(jnp.square(image - truth).mean())


def ssim(image: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity (Wang et al., 2004) with its Gaussian window, up to 1; needs scikit-image."""
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(
            np.asarray(image),
            np.asarray(truth),
            data_range=1.0,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def luma(image: np.ndarray) -> np.ndarray:
    """ITU-R BT.601 luma of an RGB image, (H, W, 1) in [16/255, 235/255]; grey as it is."""
    image = np.asarray(image)
    if image.shape[-1] == 1:
        return image
    return ((image @ np.float32([65.481, 128.553, 24.966]) + 16) / 255)[..., None].astype(
        np.float32
    )


def report(image: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """PSNR in dB over all channels and on luma (usual for super-resolution), and SSIM."""
    return {
        "psnr": float(psnr(image, truth)),
        "psnr_y": float(psnr(luma(image), luma(truth))),
        "ssim": ssim(image, truth),
    }
