"""Depthwise convolutions, in the form that measures best for each platform.

Feature maps are (N, H, W, C), kernels (k, k, 1, C) with k odd, sides padded by
k // 2 zeros. A CPU's is a shifted sum, a pass a kernel row; a TPU's compiler makes
one pass of it all. On NVIDIA's GPUs XLA's convolution takes half the time of that,
and blocks of rows the least for the gradient of a 7 x 7 kernel (XLA's is faster for
3 x 3 in float32 and takes seconds to compile in bfloat16: docs/accelerators.md).
All but the CPU's add up bfloat16 in float32.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from isnas_jax.ops.padding import pad

_BLOCK = 16  # image rows; XLA writes out the products of a longer sum on GPUs


def _taps(x: jax.Array, size: int) -> list[list[jax.Array]]:
    """What lies under each tap of a kernel, padded by zeros: size rows of maps like x."""
    height, width = x.shape[1:3]
    x = pad(x, size // 2, "zeros")
    return [[x[:, i : i + height, j : j + width] for j in range(size)] for i in range(size)]


@jax.custom_vjp
def by_platform(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """In the form for what the program is lowered for."""
    return lax.platform_dependent(x, kernel, cuda=grouped, default=shifted_sum)


def _by_platform_backward(residuals, cotangent):
    x, kernel = residuals
    of_kernel = functools.partial(lax.platform_dependent, cuda=sums_of_blocks, default=sums)
    total = of_kernel(x, cotangent, kernel)
    return by_platform(cotangent, kernel[::-1, ::-1]), total.astype(kernel.dtype)


by_platform.defvjp(lambda x, kernel: (by_platform(x, kernel), (x, kernel)), _by_platform_backward)


def _wide(x: jax.Array) -> jax.Array:
    """In the type to add up in: float32, or float64 as it is."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def grouped(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """By XLA's convolution, each channel a group."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        [(kernel.shape[0] // 2,) * 2] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
        precision=lax.Precision.HIGHEST,
    )


def shifted_sum(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """As a shifted sum, in one pass if the compiler makes one of it."""
    size = kernel.shape[0]
    seen, weights = _taps(x, size), _wide(kernel)
    taps = [_wide(seen[i][j]) * weights[i, j, None, None] for i in range(size) for j in range(size)]
    return functools.reduce(jnp.add, taps).astype(x.dtype)


def sums(x: jax.Array, cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
    """The kernel's cotangent, each tap a sum of its own."""
    taps, wide = _taps(x, kernel.shape[0]), _wide(cotangent)
    totals = [[(_wide(tap) * wide).sum((0, 1, 2)) for tap in row] for row in taps]
    return jnp.array(totals)[:, :, None]


def sums_of_blocks(x: jax.Array, cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same, first over blocks of image rows, the taps of a kernel row at once."""
    size, (n, height, width, channels) = kernel.shape[0], cotangent.shape
    rows = math.gcd(height, _BLOCK)
    x = lax.optimization_barrier(pad(x, size // 2, "zeros"))

    def blocks(x):
        return _wide(x).reshape(n, height // rows, rows, width, channels)

    def row(index):
        seen = x[:, index : index + height]
        products = [blocks(seen[:, :, j : j + width]) * blocks(cotangent) for j in range(size)]
        return jnp.stack([total.sum((0, 1, 2)) for total in _add_up(products, (2,))])

    return jnp.stack([row(index) for index in range(size)])[:, :, None]


def _add_up(arrays: list[jax.Array], axes: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """Sums of arrays of one shape over axes, in one pass."""
    zeros = (jnp.zeros((), arrays[0].dtype),) * len(arrays)
    return lax.reduce(tuple(arrays), zeros, functools.partial(jax.tree.map, jnp.add), axes)


@jax.custom_vjp
def on_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """As a shifted sum, a pass for each kernel row."""
    size = kernel.shape[0]
    height, width = x.shape[1:3]
    x = pad(x, size // 2, "zeros")
    total = jnp.zeros((), x.dtype)
    for i in range(size):
        rows = x[:, i : i + height]
        taps = [rows[:, :, j : j + width] * kernel[i, j, None, None] for j in range(size)]
        # XLA:CPU writes out single factors of a sum longer than that.
        total = lax.optimization_barrier(functools.reduce(jnp.add, taps, total))
    return total


def _on_cpu_backward(residuals, cotangent):
    x, kernel = residuals
    size = kernel.shape[0]
    x = pad(x, size // 2, "zeros")

    height, width, channels = cotangent.shape[1:]

    def row(index):
        # One pass for the k taps of a kernel row: a reduction of k operands.
        seen = lax.dynamic_slice_in_dim(x, index, height, axis=1)
        products = [seen[:, :, j : j + width] * cotangent for j in range(size)]
        return jnp.stack(_add_up(products, (0, 2))).sum(axis=1)

    kernel_cotangent = lax.map(row, jnp.arange(size)).reshape(size, size, 1, channels)
    return on_cpu(cotangent, kernel[::-1, ::-1]), kernel_cotangent


on_cpu.defvjp(lambda x, kernel: (on_cpu(x, kernel), (x, kernel)), _on_cpu_backward)
