"""Depthwise convolutions, in the fastest measured form for each platform.

Feature maps are (N, H, W, C) and kernels (k, k, 1, C) with k odd. Height and width are
padded by k // 2 zeros. All forms except `convolve_by_rows` accumulate bfloat16 in float32.

- CPU: a shifted sum with one pass for each kernel row (`convolve_by_rows`).
- TPU: a shifted sum, which the compiler fuses into one pass (`shifted_sum`).
- NVIDIA GPU: XLA's grouped convolution, twice as fast as the shifted sum. The kernel
  gradient sums over blocks of rows first, which is fastest for 7 x 7 kernels. XLA's kernel
  gradient is faster for 3 x 3 in float32, but takes seconds to compile in bfloat16
  (docs/accelerators.md).
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from isnas_jax.ops.numerics import accumulator
from isnas_jax.ops.padding import pad

# Rows of a block. On GPUs, XLA would store the products of longer sums in memory.
_BLOCK_ROWS = 16


def _taps(x: jax.Array, size: int) -> list[list[jax.Array]]:
    """Return the zero-padded inputs of each kernel tap: size x size arrays (N, H, W, C)."""
    height, width = x.shape[1:3]
    x = pad(x, size // 2, "zeros")
    return [[x[:, i : i + height, j : j + width] for j in range(size)] for i in range(size)]


@jax.custom_vjp
def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve in the form for the accelerator that the program is lowered for."""
    return lax.platform_dependent(x, kernel, cuda=grouped_convolution, default=shifted_sum)


def _convolve_backward(residuals, cotangent):
    x, kernel = residuals
    kernel_cotangent = lax.platform_dependent(
        x, cotangent, kernel, cuda=kernel_gradient_by_blocks, default=kernel_gradient
    )
    return convolve(cotangent, kernel[::-1, ::-1]), kernel_cotangent.astype(kernel.dtype)


convolve.defvjp(lambda x, kernel: (convolve(x, kernel), (x, kernel)), _convolve_backward)


def grouped_convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve with XLA's grouped convolution, one group for each channel."""
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
    """Convolve as a sum of shifted inputs, in one pass if the compiler fuses the sum."""
    size = kernel.shape[0]
    taps, weights = _taps(x, size), accumulator(kernel)
    products = [
        accumulator(taps[i][j]) * weights[i, j, None, None]
        for i in range(size)
        for j in range(size)
    ]
    return functools.reduce(jnp.add, products).astype(x.dtype)


def kernel_gradient(x: jax.Array, cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return the cotangent of the kernel, (k, k, 1, C), with a separate sum for each tap."""
    taps, cotangent = _taps(x, kernel.shape[0]), accumulator(cotangent)
    totals = [[(accumulator(tap) * cotangent).sum((0, 1, 2)) for tap in row] for row in taps]
    return jnp.array(totals)[:, :, None]


def kernel_gradient_by_blocks(x: jax.Array, cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return the cotangent of the kernel, summed over blocks of rows first.

    All taps of a kernel row are summed in one reduction.
    """
    size, (n, height, width, channels) = kernel.shape[0], cotangent.shape
    rows = math.gcd(height, _BLOCK_ROWS)
    x = lax.optimization_barrier(pad(x, size // 2, "zeros"))

    def blocks(x):
        return accumulator(x).reshape(n, height // rows, rows, width, channels)

    def row(index):
        inputs = x[:, index : index + height]
        products = [blocks(inputs[:, :, j : j + width]) * blocks(cotangent) for j in range(size)]
        return jnp.stack([total.sum((0, 1, 2)) for total in _sum_together(products, (2,))])

    return jnp.stack([row(index) for index in range(size)])[:, :, None]


def _sum_together(arrays: list[jax.Array], axes: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """Sum each of several arrays of one shape over axes, in one reduction."""
    zeros = (jnp.zeros((), arrays[0].dtype),) * len(arrays)
    return lax.reduce(tuple(arrays), zeros, functools.partial(jax.tree.map, jnp.add), axes)


@jax.custom_vjp
def convolve_by_rows(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve as a sum of shifted inputs, in one pass for each kernel row."""
    size = kernel.shape[0]
    height, width = x.shape[1:3]
    x = pad(x, size // 2, "zeros")
    total = jnp.zeros((), x.dtype)
    for i in range(size):
        rows = x[:, i : i + height]
        taps = [rows[:, :, j : j + width] * kernel[i, j, None, None] for j in range(size)]
        # XLA:CPU would store single products of a longer sum in memory.
        total = lax.optimization_barrier(functools.reduce(jnp.add, taps, total))
    return total


def _convolve_by_rows_backward(residuals, cotangent):
    x, kernel = residuals
    size = kernel.shape[0]
    height, width, channels = cotangent.shape[1:]
    x = pad(x, size // 2, "zeros")

    def row(index):
        # One reduction with k operands computes the k taps of a kernel row in one pass.
        inputs = lax.dynamic_slice_in_dim(x, index, height, axis=1)
        products = [inputs[:, :, j : j + width] * cotangent for j in range(size)]
        return jnp.stack(_sum_together(products, (0, 2))).sum(axis=1)

    kernel_cotangent = lax.map(row, jnp.arange(size)).reshape(size, size, 1, channels)
    return convolve_by_rows(cotangent, kernel[::-1, ::-1]), kernel_cotangent


convolve_by_rows.defvjp(
    lambda x, kernel: (convolve_by_rows(x, kernel), (x, kernel)), _convolve_by_rows_backward
)
