"""Upsampling by a factor of 2, pixel shuffle and the sum of channel quarters.

Feature maps are NHWC, float32 or bfloat16. Upsampling and its gradient are sums of slices, a
form that XLA:CPU runs well.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from isnas_jax import _programs


@_programs.cleared_on_eviction
@jax.jit
def pixel_shuffle(x: jax.Array) -> jax.Array:
    """Rearrange (N, H, W, 4 C) to (N, 2 H, 2 W, C); channel 4 c + 2 dy + dx is pixel (dy, dx)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, channels // 4, 2, 2).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(batch, 2 * height, 2 * width, channels // 4)


@_programs.cleared_on_eviction
@jax.jit
def split_stack_sum(x: jax.Array) -> jax.Array:
    """Return the sum of the four channel quarters: (N, H, W, 4 C) to (N, H, W, C)."""
    return functools.reduce(jnp.add, jnp.split(x, 4, axis=-1))


# Weights of an output pixel that lies a quarter pixel before the center of input pixel 0,
# for the input pixels -1, 0 (bilinear) and -2, -1, 0, 1 (bicubic, a = -0.75).
_TAPS = {
    "bilinear": (0.25, 0.75),
    "bicubic": (-0.03515625, 0.26171875, 0.87890625, -0.10546875),
}


def _correlate_axis(
    x: jax.Array, axis: int, size: int, weights: tuple[float, ...], start: int
) -> jax.Array:
    """Return `size` outputs of a correlation along an axis; the first is at position `start`."""
    return functools.reduce(
        jnp.add,
        [
            weight * lax.slice_in_dim(x, start + i, start + i + size, axis=axis)
            for i, weight in enumerate(weights)
        ],
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _interpolate_axis(x: jax.Array, axis: int, taps: tuple[float, ...]) -> jax.Array:
    """Double the length of an axis; `taps` are the weights of the first of two output pixels."""
    size, reach = x.shape[axis], len(taps) // 2
    padded = jnp.pad(x, [(reach, reach) if a == axis else (0, 0) for a in range(4)], mode="edge")
    pair = [
        _correlate_axis(padded, axis, size, taps, 0),
        _correlate_axis(padded, axis, size, taps[::-1], 1),
    ]
    return jnp.stack(pair, axis=axis + 1).reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])


def _interpolate_axis_backward(axis, taps, _, cotangent):
    size, reach = cotangent.shape[axis] // 2, len(taps) // 2
    # The cotangent of the padded input: the input, and the pixels that repeat its edges.
    widths = [(2 * reach, 2 * reach) if a == axis else (0, 0) for a in range(4)]
    first, second = (
        jnp.pad(lax.slice_in_dim(cotangent, phase, None, stride=2, axis=axis), widths)
        for phase in (0, 1)
    )
    length = size + 2 * reach
    padded = _correlate_axis(first, axis, length, taps[::-1], 1)
    padded = padded + _correlate_axis(second, axis, length, taps, 0)
    inner = lax.slice_in_dim(padded, reach, reach + size, axis=axis)
    low = lax.slice_in_dim(padded, 0, reach, axis=axis).sum(axis, keepdims=True)
    high = lax.slice_in_dim(padded, reach + size, length, axis=axis).sum(axis, keepdims=True)
    index = lax.broadcasted_iota(jnp.int32, inner.shape, axis)
    edges = jnp.where(index == 0, low, 0.0) + jnp.where(index == size - 1, high, 0.0)
    return (inner + edges,)


_interpolate_axis.defvjp(
    lambda x, axis, taps: (_interpolate_axis(x, axis, taps), None), _interpolate_axis_backward
)


def _repeat_axis(x: jax.Array, axis: int) -> jax.Array:
    """Repeat each pixel along an axis; unlike that of `jnp.repeat`, the gradient adds slices."""
    pairs = jnp.stack([x, x], axis=axis + 1)
    return pairs.reshape(*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])


@_programs.cleared_on_eviction
@functools.partial(jax.jit, static_argnames="method")
def upsample(x: jax.Array, *, method: str) -> jax.Array:
    """Double height and width: (N, H, W, C) to (N, 2 H, 2 W, C).

    The method is "nearest", "bilinear" or "bicubic" (a = -0.75). Edge pixels are repeated, and
    corners are not aligned, as with `align_corners=False` in PyTorch.
    """
    if method == "nearest":
        return _repeat_axis(_repeat_axis(x, 1), 2)
    return _interpolate_axis(_interpolate_axis(x, 1, _TAPS[method]), 2, _TAPS[method])
