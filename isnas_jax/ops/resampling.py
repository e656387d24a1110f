"""Changes of resolution and of the number of channels.

Feature maps are float32, NHWC. As in `convolution`, everything is written as
sums of slices, gradients included.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from isnas_jax import _programs


@_programs.shared
@jax.jit
def pixel_shuffle(x: jax.Array) -> jax.Array:
    """(N, H, W, 4 C) to (N, 2 H, 2 W, C); channel 4 c + 2 dy + dx goes to pixel (dy, dx)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, channels // 4, 2, 2).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(batch, 2 * height, 2 * width, channels // 4)


@_programs.shared
@jax.jit
def split_stack_sum(x: jax.Array) -> jax.Array:
    """(N, H, W, 4 C) to (N, H, W, C): the sum of the four channel quarters."""
    return functools.reduce(jnp.add, jnp.split(x, 4, axis=-1))


# Weights of the output pixel a quarter before an input pixel's center, for the
# inputs at -1, 0 (bilinear) and -2, -1, 0, 1 (bicubic, a = -0.75).
_TAPS = {
    "bilinear": (0.25, 0.75),
    "bicubic": (-0.03515625, 0.26171875, 0.87890625, -0.10546875),
}


def _slices(
    x: jax.Array, axis: int, size: int, weights: tuple[float, ...], first: int
) -> jax.Array:
    """The weighted sum of slices of this size that start at first, first + 1, ..."""
    return functools.reduce(
        jnp.add,
        [
            weight * lax.slice_in_dim(x, first + i, first + i + size, axis=axis)
            for i, weight in enumerate(weights)
        ],
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _double(x: jax.Array, axis: int, taps: tuple[float, ...]) -> jax.Array:
    """Doubles one side; taps are the weights of the earlier of two new pixels."""
    size, reach = x.shape[axis], len(taps) // 2
    padded = jnp.pad(x, [(reach, reach) if a == axis else (0, 0) for a in range(4)], mode="edge")
    pair = [_slices(padded, axis, size, taps, 0), _slices(padded, axis, size, taps[::-1], 1)]
    return jnp.stack(pair, axis=axis + 1).reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])


def _double_backward(axis, taps, _, cotangent):
    size, reach = cotangent.shape[axis] // 2, len(taps) // 2
    # What arrives at the input and at the pixels that repeat its edges.
    widths = [(2 * reach, 2 * reach) if a == axis else (0, 0) for a in range(4)]
    phases = (
        jnp.pad(lax.slice_in_dim(cotangent, phase, None, stride=2, axis=axis), widths)
        for phase in (0, 1)
    )
    early, late = phases
    span = size + 2 * reach
    padded = _slices(early, axis, span, taps[::-1], 1) + _slices(late, axis, span, taps, 0)
    inner = lax.slice_in_dim(padded, reach, reach + size, axis=axis)
    low = lax.slice_in_dim(padded, 0, reach, axis=axis).sum(axis, keepdims=True)
    high = lax.slice_in_dim(padded, reach + size, span, axis=axis).sum(axis, keepdims=True)
    index = lax.broadcasted_iota(jnp.int32, inner.shape, axis)
    edges = jnp.where(index == 0, low, 0.0) + jnp.where(index == size - 1, high, 0.0)
    return (inner + edges,)


_double.defvjp(lambda x, axis, taps: (_double(x, axis, taps), None), _double_backward)


def _twice(x: jax.Array, axis: int) -> jax.Array:
    """Repeats every pixel along one side; unlike `repeat`, its gradient adds two slices."""
    pairs = jnp.stack([x, x], axis=axis + 1)
    return pairs.reshape(*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])


@_programs.shared
@functools.partial(jax.jit, static_argnames="method")
def upsample(x: jax.Array, *, method: str) -> jax.Array:
    """Doubles the sides: "nearest", "bilinear" or "bicubic" (a = -0.75, edges repeated).

    Corners are not aligned, as with `align_corners=False` in PyTorch.
    """
    if method == "nearest":
        return _twice(_twice(x, 1), 2)
    return _double(_double(x, 1, _TAPS[method]), 2, _TAPS[method])
