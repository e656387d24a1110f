"""Normalization and activation of feature maps: NHWC, statistics in float32 at least."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from isnas_jax import _programs
from isnas_jax.ops.numerics import Numerics

ACTIVATION_SLOPES = {"none": 1.0, "relu": 0.0, "leaky_relu": 0.2}


@_programs.shared
@functools.partial(jax.jit, static_argnames="numerics")
def batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, *, numerics: Numerics = Numerics()
) -> jax.Array:
    """Batch normalization by the statistics of x itself (biased variance, eps 1e-5)."""
    return _batch_norm(x, scale, bias, not numerics.uses_matmul)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _batch_norm(x, scale, bias, apart):
    """Batch normalization, and whether maps are to be written out before and after it.

    A TPU's compiler would else write a convolution's result in float32 for the
    statistics, and carry its inner layout of convolutions through everything between
    them (docs/accelerators.md); what it does on GPUs was not measured.
    """
    return _batch_norm_forward(x, scale, bias, apart)[0]


def _of_channels(values: jax.Array) -> jax.Array:
    """(C,) as (1, 1, 1, C), for maps."""
    return jnp.expand_dims(values, (0, 1, 2))


def _batch_norm_forward(x, scale, bias, apart):
    x = lax.optimization_barrier(x) if apart else x
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    # Channels whose mean is far above their spread lose digits unless shifted first.
    shift = x[0, x.shape[1] // 2].astype(dtype).mean(0)
    wide = x.astype(dtype)
    shifted = wide - _of_channels(shift)
    shifted_mean = shifted.mean(axis=(0, 1, 2))
    variance = jnp.square(shifted).mean(axis=(0, 1, 2)) - jnp.square(shifted_mean)
    variance = jnp.maximum(variance, 0.0)
    mean = shift + shifted_mean
    inverse = lax.rsqrt(variance + 1e-5)
    gain = scale * inverse
    y = wide * _of_channels(gain) + _of_channels(bias - mean * gain)
    return y.astype(x.dtype), (x, mean, inverse, gain)


def _batch_norm_backward(apart, residuals, cotangent):
    x, mean, inverse, gain = residuals
    dtype, wide = x.dtype, mean.dtype
    x, cotangent = x.astype(wide), cotangent.astype(wide)
    normalized = (x - _of_channels(mean)) * _of_channels(inverse)
    bias_cotangent = cotangent.sum(axis=(0, 1, 2))
    scale_cotangent = (cotangent * normalized).sum(axis=(0, 1, 2))
    count = x.size // x.shape[-1]
    common = _of_channels(bias_cotangent) + normalized * _of_channels(scale_cotangent)
    centered = cotangent - common / count
    x_cotangent = (centered * _of_channels(gain)).astype(dtype)
    x_cotangent = lax.optimization_barrier(x_cotangent) if apart else x_cotangent
    return x_cotangent, scale_cotangent, bias_cotangent


_batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


@jax.custom_jvp
@_programs.shared
@jax.jit
def leaky_relu(x: jax.Array, slope: float | jax.Array = 0.2) -> jax.Array:
    """max(x, 0) + slope min(x, 0); slope 1 is the identity and 0 the ReLU."""
    return jnp.where(x >= 0, x, slope * x)


@leaky_relu.defjvp
def _leaky_relu_tangent(primals, tangents):
    # One factor: the automatic gradient chooses between two uses of the cotangent,
    # and XLA may then compute the cotangent twice.
    x, slope = primals
    return leaky_relu(x, slope), tangents[0] * jnp.where(x >= 0, 1.0, slope)
