"""Convolutions, as functions of arrays.

Feature maps are float32 or as the numerics says, NHWC; kernels are HWIO, a
depthwise kernel (k, k, 1, C). On CPUs, XLA's dilated and grouped convolutions and
the automatic gradients of any inside a scan fall to a naive loop, and Winograd's
filtering of large maps beats the others. Everything is therefore written in terms
of that, of direct convolutions, matrix products and shifted sums, gradients
included, and in few separate steps, since their number is what compilation time
follows. Elsewhere XLA's convolutions serve, with its gradients, but for depthwise
ones (`_depthwise`).
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from isnas_jax import _programs
from isnas_jax.ops import _depthwise, _winograd
from isnas_jax.ops.numerics import Numerics
from isnas_jax.ops.padding import pad

_FEW_CHANNELS = 4
_DIRECT_CHANNELS = 8  # from these on XLA's direct convolution is as fast, and one step
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def _row_patches(x: jax.Array, size: int, stride: int) -> list[jax.Array]:
    """What each output pixel sees, by kernel row: k arrays (N, H', W', k C)."""
    height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
    taps = [x[:, :, j : j + width : stride] for j in range(size)]
    rows = jnp.concatenate(taps, axis=-1) if size > 1 else x[:, :, ::stride]
    return [rows[:, i : i + height : stride] for i in range(size)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def correlate(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Cross-correlation without padding, at stride 1, or 2 for even sides and odd kernels.

    (N, H, W, I) and (k, k, I, O) to (N, (H - k) // stride + 1, ..., O).
    """
    outer = kernel.shape[0] - 1
    if _runs_direct(kernel, [side - outer for side in x.shape[1:3]]):
        return _direct(x, kernel, stride)
    return _by_products(x, kernel, stride)


def _runs_direct(kernel: jax.Array, sides: Sequence[int]) -> bool:
    """Whether XLA's convolution is fast with a kernel (k, k, I, O), given a map's sides unpadded.

    It would swap a kernel with a map smaller than it, and then run a naive loop.
    """
    size, _, inputs, outputs = kernel.shape
    return min(inputs, outputs) >= _DIRECT_CHANNELS and min(sides) >= size


def _by_products(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """One matrix product for each row of the kernel.

    Inputs of very few channels, as a network's own, make one product, summed channel
    by channel in the order of the published code: the first normalization of a
    network magnifies every rounding that comes before.
    """
    size, _, inputs, outputs = kernel.shape
    rows = _row_patches(x, size, stride)
    if inputs < _FEW_CHANNELS:
        taps = jnp.stack(rows, axis=-2).reshape(*rows[0].shape[:3], size, size, inputs)
        columns = jnp.moveaxis(taps, -1, -3).reshape(*rows[0].shape[:3], -1)
        return _product(columns, kernel.transpose(2, 0, 1, 3).reshape(-1, outputs))
    products = [
        _product(patches, row.reshape(-1, outputs))
        for patches, row in zip(rows, kernel, strict=True)
    ]
    return functools.reduce(jnp.add, products)


_product = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)


def _direct(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """By XLA's convolution; a batch of kernels, which would make it a grouped one, by products."""

    @jax.custom_batching.custom_vmap
    def convolve(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            "VALID",
            dimension_numbers=_LAYOUT,
            precision=lax.Precision.HIGHEST,
        )

    @convolve.def_vmap
    def _(count, batched, x, kernel):
        x_batched, kernel_batched = batched
        if kernel_batched:
            each = functools.partial(_by_products, stride=stride)
            return jax.vmap(each, (0 if x_batched else None, 0))(x, kernel), True
        together = convolve(x.reshape(-1, *x.shape[2:]), kernel)
        return together.reshape(count, -1, *together.shape[1:]), True

    return convolve(x, kernel)


def _correlate_forward(x, kernel, stride):
    return correlate(x, kernel, stride), (x, kernel)


def _kernel_cotangent(rows, cotangent):
    """Of the kernel that takes row patches to maps with this cotangent: (k, k, I, O)."""
    outputs = cotangent.shape[-1]
    flat = cotangent.reshape(-1, outputs)
    products = [_product(patches.reshape(len(flat), -1).T, flat) for patches in rows]
    return jnp.stack(products).reshape(len(rows), len(rows), -1, outputs)


def _correlate_backward(stride, residuals, cotangent):
    x, kernel = residuals
    size, adjoint = kernel.shape[0], kernel.swapaxes(2, 3)
    if stride == 1 and _runs_direct(kernel, cotangent.shape[1:3]):
        around = pad(cotangent, size - 1, "zeros")
        x_cotangent = correlate(around, adjoint[::-1, ::-1])
    else:
        x_cotangent = scatter(cotangent, adjoint, stride)
    return x_cotangent, _kernel_cotangent(_row_patches(x, size, stride), cotangent)


correlate.defvjp(_correlate_forward, _correlate_backward)


def _lay(maps: list[jax.Array], axis: int, stride: int) -> jax.Array:
    """Adds up maps along an axis: position m of map i comes to lie at stride m + i."""
    reach = (len(maps) - 1) // stride

    def shifted(index):
        shift = index // stride
        widths = [(0, 0)] * maps[index].ndim
        widths[axis] = (shift, reach - shift)
        return jnp.pad(maps[index], widths)

    phases = [
        functools.reduce(jnp.add, map(shifted, range(phase, len(maps), stride)))
        if phase < len(maps)
        else jnp.zeros_like(maps[0])
        for phase in range(stride)
    ]
    shape = list(phases[0].shape)
    shape[axis] *= stride
    return jnp.stack(phases, axis=axis + 1).reshape(shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def scatter(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Adds x[m, n] * kernel at (stride m, stride n): the adjoint of `correlate`.

    (N, H, W, I) and (k, k, I, O), k odd, to (N, H', W', O) with
    H' = stride H + k - 1. One matrix product gives the contribution of each
    tap; no zeros are inserted.
    """
    taps = jnp.einsum("nhwi,klio->nhwklo", x, kernel, precision=lax.Precision.HIGHEST)
    size = range(kernel.shape[0])
    rows = [_lay([taps[:, :, :, i, j] for j in size], 2, stride) for i in size]
    return _lay(rows, 1, stride)


def _scatter_forward(x, kernel, stride):
    return scatter(x, kernel, stride), (x, kernel)


def _scatter_backward(stride, residuals, cotangent):
    x, kernel = residuals
    swapped = kernel.swapaxes(2, 3)
    rows = _row_patches(cotangent, kernel.shape[0], stride)
    return correlate(cotangent, swapped, stride), _kernel_cotangent(rows, x).swapaxes(2, 3)


scatter.defvjp(_scatter_forward, _scatter_backward)


@_programs.shared
@functools.partial(jax.jit, static_argnames=("stride", "padding", "numerics"))
def convolution(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    padding: str = "zeros",
    numerics: Numerics = Numerics(),
) -> jax.Array:
    """Convolution with an odd square kernel, padded by k // 2, at stride 1 or 2 (even sides)."""
    x, kernel = numerics.cast(x, kernel)
    size, _, inputs, outputs = kernel.shape
    padded = pad(x, size // 2, padding)
    if not numerics.uses_matmul:
        return lax.conv_general_dilated(
            padded,
            kernel,
            (stride, stride),
            "VALID",
            dimension_numbers=_LAYOUT,
            precision=numerics.lax_precision,
        )
    tiled = stride == 1 and size in _winograd.SIZES and x.dtype != jnp.bfloat16
    if tiled and min(*x.shape[1:3], inputs, outputs) >= 16:
        return _winograd.correlate(padded, kernel)
    return correlate(padded, kernel, stride)


@_programs.shared
@functools.partial(jax.jit, static_argnames="numerics")
def transposed_convolution(
    x: jax.Array, kernel: jax.Array, *, numerics: Numerics = Numerics()
) -> jax.Array:
    """Transposed convolution of stride 2, padding k // 2, output padding 1: doubles the sides.

    The kernel is that of the equivalent direct convolution (HWIO, PyTorch's
    mirrored) of the input with a zero put after every pixel.
    """
    x, kernel = numerics.cast(x, kernel)
    low = kernel.shape[0] // 2
    if not numerics.uses_matmul:
        return lax.conv_general_dilated(
            x,
            kernel,
            (1, 1),
            ((low, low + 1), (low, low + 1)),
            lhs_dilation=(2, 2),
            dimension_numbers=_LAYOUT,
            precision=numerics.lax_precision,
        )
    full = scatter(x, kernel[::-1, ::-1], 2)
    return full[:, low : low + 2 * x.shape[1], low : low + 2 * x.shape[2]]


@_programs.shared
@functools.partial(jax.jit, static_argnames="numerics")
def depthwise_convolution(
    x: jax.Array, kernel: jax.Array, *, numerics: Numerics = Numerics()
) -> jax.Array:
    """Every channel with its own k x k kernel, zero-padded, stride 1."""
    x, kernel = numerics.cast(x, kernel)
    correlate = _depthwise.on_cpu if numerics.uses_matmul else _depthwise.by_platform
    return correlate(x, kernel)
