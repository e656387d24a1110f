"""Padding of NHWC feature maps."""

import jax
import jax.numpy as jnp
from jax import lax


@jax.custom_vjp
def _reflect(x: jax.Array) -> jax.Array:
    """Pad height and width by one reflected pixel on each side."""
    for axis in (1, 2):
        low = lax.slice_in_dim(x, 1, 2, axis=axis)
        high = lax.slice_in_dim(x, -2, -1, axis=axis)
        x = lax.concatenate([low, x, high], axis)
    return x


def _reflect_backward(_, cotangent):
    for axis in (2, 1):
        size = cotangent.shape[axis] - 2
        low = lax.slice_in_dim(cotangent, 0, 1, axis=axis)
        high = lax.slice_in_dim(cotangent, size + 1, size + 2, axis=axis)
        inner = lax.slice_in_dim(cotangent, 1, size + 1, axis=axis)
        index = lax.broadcasted_iota(jnp.int32, inner.shape, axis)
        cotangent = (
            inner + jnp.where(index == 1, low, 0.0) + jnp.where(index == size - 2, high, 0.0)
        )
    return (cotangent,)


_reflect.defvjp(lambda x: (_reflect(x), None), _reflect_backward)


def pad(x: jax.Array, amount: int, mode: str) -> jax.Array:
    """Pad (N, H, W, C) to (N, H + 2 amount, W + 2 amount, C).

    The mode is "zeros" or "reflect". Raises ValueError if it is "reflect" and the amount above 1.
    """
    if not amount:
        return x
    if mode == "reflect":
        if amount != 1:
            raise ValueError(f"padding {amount} must be 0 or 1 in mode 'reflect'")
        return _reflect(x)
    return jnp.pad(x, ((0, 0), (amount, amount), (amount, amount), (0, 0)))
