"""Functions of arrays: what networks are made of, spectra, and measures of quality."""

from isnas_jax.ops.convolution import (
    convolution,
    correlate,
    depthwise_convolution,
    scatter,
    transposed_convolution,
)
from isnas_jax.ops.normalization import ACTIVATION_SLOPES, batch_norm, leaky_relu
from isnas_jax.ops.numerics import Numerics
from isnas_jax.ops.padding import pad
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
    "scatter",
    "split_stack_sum",
    "transposed_convolution",
    "upsample",
]
