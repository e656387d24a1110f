"""Array operations that networks use, power spectra, and image quality metrics.

Feature maps are NHWC; images are float32 (H, W, C) in [0, 1].
"""

from isnas_jax.ops.convolution import (
    convolution,
    correlate,
    depthwise_convolution,
    transposed_convolution,
)
from isnas_jax.ops.normalization import ACTIVATION_SLOPES, batch_norm, leaky_relu
from isnas_jax.ops.numerics import Numerics
from isnas_jax.ops.padding import pad
from isnas_jax.ops.quality import psnr, ssim
from isnas_jax.ops.resampling import pixel_shuffle, split_stack_sum, upsample

__all__ = [
    "ACTIVATION_SLOPES",
    "Numerics",
    "batch_norm",
    "convolution",
    "correlate",
    "depthwise_convolution",
    "leaky_relu",
    "pad",
    "pixel_shuffle",
    "psnr",
    "split_stack_sum",
    "ssim",
    "transposed_convolution",
    "upsample",
]
