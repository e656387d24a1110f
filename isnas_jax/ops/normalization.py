"""Batch normalization and activations of feature maps.

Feature maps are NHWC, float32 or bfloat16. Statistics are at least float32.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from isnas_jax import _programs
from isnas_jax.ops.numerics import Numerics, accumulator

ACTIVATION_SLOPES = {"none": 1.0, "relu": 0.0, "leaky_relu": 0.2}


@_programs.cleared_on_eviction
@functools.partial(jax.jit, static_argnames="numerics")
def batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, *, numerics: Numerics = Numerics()
) -> jax.Array:
    """Normalize feature maps (N, H, W, C) by their own statistics, then scale and shift them.

    The variance is biased, and 1e-5 is added to it. There are no running averages. Scale and bias
    are (C,), at least float32; the result has the dtype of x.
    """
    return _batch_norm(x, scale, bias, not numerics.uses_matmul)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _batch_norm(x, scale, bias, materialize):
    """Normalize; `materialize` separates input and gradient from other operations by barriers.

    Without the barriers, the TPU compiler writes the result of a convolution in float32 for
    the statistics. It also keeps the memory layout of convolutions in the operations between
    them (docs/accelerators.md). The effect on GPUs was not measured.
    """
    return _batch_norm_forward(x, scale, bias, materialize)[0]


def _per_channel(values: jax.Array) -> jax.Array:
    """Reshape (C,) to (1, 1, 1, C)."""
    return jnp.expand_dims(values, (0, 1, 2))


def _batch_norm_forward(x, scale, bias, materialize):
    x = lax.optimization_barrier(x) if materialize else x
    wide = accumulator(x)
    # Without the shift, channels with a mean far above their spread would lose digits.
    shift = wide[0, x.shape[1] // 2].mean(0)
    shifted = wide - _per_channel(shift)
    shifted_mean = shifted.mean(axis=(0, 1, 2))
    variance = jnp.square(shifted).mean(axis=(0, 1, 2)) - jnp.square(shifted_mean)
    variance = jnp.maximum(variance, 0.0)
    mean = shift + shifted_mean
    inverse = lax.rsqrt(variance + 1e-5)
    gain = scale * inverse
    y = wide * _per_channel(gain) + _per_channel(bias - mean * gain)
    return y.astype(x.dtype), (x, mean, inverse, gain)


def _batch_norm_backward(materialize, residuals, cotangent):
    x, mean, inverse, gain = residuals
    dtype, wide = x.dtype, mean.dtype
    x, cotangent = x.astype(wide), cotangent.astype(wide)
    normalized = (x - _per_channel(mean)) * _per_channel(inverse)
    bias_cotangent = cotangent.sum(axis=(0, 1, 2))
    scale_cotangent = (cotangent * normalized).sum(axis=(0, 1, 2))
    count = x.size // x.shape[-1]
    common = _per_channel(bias_cotangent) + normalized * _per_channel(scale_cotangent)
    centered = cotangent - common / count
    x_cotangent = (centered * _per_channel(gain)).astype(dtype)
    x_cotangent = lax.optimization_barrier(x_cotangent) if materialize else x_cotangent
    return x_cotangent, scale_cotangent, bias_cotangent


_batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


@jax.custom_jvp
@_programs.cleared_on_eviction
@jax.jit
def leaky_relu(x: jax.Array, slope: float | jax.Array = 0.2) -> jax.Array:
    """Return max(x, 0) + slope min(x, 0); slope 1 is the identity, slope 0 the ReLU."""
    return jnp.where(x >= 0, x, slope * x)


@functools.partial(leaky_relu.defjvp, symbolic_zeros=True)
def _leaky_relu_tangent(primals, tangents):
    # The automatic gradient would use the cotangent twice, and XLA might compute it twice.
    x, slope = primals
    parts = zip(tangents, (jnp.where(x >= 0, 1.0, slope), jnp.minimum(x, 0)), strict=True)
    zero = jax.custom_derivatives.SymbolicZero
    terms = [tangent * factor for tangent, factor in parts if not isinstance(tangent, zero)]
    return leaky_relu(x, slope), sum(terms[1:], terms[0])
