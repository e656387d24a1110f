"""Convolutions, transposed convolutions and depthwise convolutions.

Feature maps are NHWC, kernels HWIO; depthwise kernels are (k, k, 1, C). Arrays are
converted to the dtype of `Numerics`.

The implementation "conv" calls XLA's convolutions, except for depthwise ones (`_depthwise`).
The implementation "matmul" is for CPUs. There, XLA runs a naive loop for dilated and grouped
convolutions, and for the automatic gradient of any convolution inside a scan. "matmul"
therefore uses Winograd filtering (fastest for large feature maps), direct convolutions,
matrix products and shifted sums, and defines its gradients. Each form has few operations,
because compilation time grows with their number.
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
# From this number of channels, XLA's convolution is as fast as products, in one operation.
_DIRECT_CHANNELS = 8
# Smallest height, width and number of channels for which Winograd filtering is fastest.
_WINOGRAD_MINIMUM = 16
_LAYOUT = ("NHWC", "HWIO", "NHWC")

_matmul = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)


def _row_patches(x: jax.Array, size: int, stride: int) -> list[jax.Array]:
    """Return the inputs of each output pixel, by kernel row: k arrays (N, H', W', k C)."""
    height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
    taps = [x[:, :, j : j + width : stride] for j in range(size)]
    rows = jnp.concatenate(taps, axis=-1) if size > 1 else x[:, :, ::stride]
    return [rows[:, i : i + height : stride] for i in range(size)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def correlate(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Cross-correlate (N, H, W, I) with (k, k, I, O), in the form that is fastest on CPUs.

    There is no padding: the sides become (H - k) // stride + 1. The stride is 1, or 2 if H and W
    are even and k is odd.
    """
    margin = kernel.shape[0] - 1
    if _is_direct_fast(kernel, [side - margin for side in x.shape[1:3]]):
        return _correlate_direct(x, kernel, stride)
    return _correlate_by_matmul(x, kernel, stride)


def _is_direct_fast(kernel: jax.Array, sides: Sequence[int]) -> bool:
    """Return whether XLA's convolution of feature maps with these unpadded sides is fast.

    XLA swaps feature maps and kernel if the kernel is larger, and then runs a naive loop.
    """
    size, _, inputs, outputs = kernel.shape
    return min(inputs, outputs) >= _DIRECT_CHANNELS and min(sides) >= size


def _correlate_by_matmul(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Correlate with one matrix product for each kernel row.

    Inputs with very few channels, such as noise maps, take a single product. It adds the
    terms in the order of the published code, channel by channel, because the first
    normalization of a network amplifies rounding errors.
    """
    size, _, inputs, outputs = kernel.shape
    rows = _row_patches(x, size, stride)
    if inputs < _FEW_CHANNELS:
        taps = jnp.stack(rows, axis=-2).reshape(*rows[0].shape[:3], size, size, inputs)
        columns = jnp.moveaxis(taps, -1, -3).reshape(*rows[0].shape[:3], -1)
        return _matmul(columns, kernel.transpose(2, 0, 1, 3).reshape(-1, outputs))
    products = [
        _matmul(patches, row.reshape(-1, outputs))
        for patches, row in zip(rows, kernel, strict=True)
    ]
    return functools.reduce(jnp.add, products)


def _correlate_direct(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Correlate with XLA's convolution, or with matrix products for a batch of kernels.

    Under `vmap`, XLA would compute a batch of kernels as a grouped convolution.
    """

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
    def _(batch_size, is_batched, x, kernel):
        is_x_batched, is_kernel_batched = is_batched
        if is_kernel_batched:
            correlate_one = functools.partial(_correlate_by_matmul, stride=stride)
            return jax.vmap(correlate_one, (0 if is_x_batched else None, 0))(x, kernel), True
        y = convolve(x.reshape(-1, *x.shape[2:]), kernel)
        return y.reshape(batch_size, -1, *y.shape[1:]), True

    return convolve(x, kernel)


def _kernel_cotangent(rows, cotangent):
    """Return the cotangent (k, k, I, O) of a kernel from its row patches and outputs' cotangent."""
    outputs = cotangent.shape[-1]
    flat = cotangent.reshape(-1, outputs)
    products = [_matmul(patches.reshape(len(flat), -1).T, flat) for patches in rows]
    return jnp.stack(products).reshape(len(rows), len(rows), -1, outputs)


def _correlate_backward(stride, residuals, cotangent):
    x, kernel = residuals
    size, adjoint = kernel.shape[0], kernel.swapaxes(2, 3)
    if stride == 1 and _is_direct_fast(kernel, cotangent.shape[1:3]):
        padded = pad(cotangent, size - 1, "zeros")
        x_cotangent = correlate(padded, adjoint[::-1, ::-1])
    else:
        x_cotangent = _correlate_transpose(cotangent, adjoint, stride)
    return x_cotangent, _kernel_cotangent(_row_patches(x, size, stride), cotangent)


correlate.defvjp(
    lambda x, kernel, stride: (correlate(x, kernel, stride), (x, kernel)), _correlate_backward
)


def _overlap_add(maps: list[jax.Array], axis: int, stride: int) -> jax.Array:
    """Add feature maps along an axis, with element m of map i at position stride m + i."""
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
def _correlate_transpose(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Add x[m, n] * kernel at (stride m, stride n): the transpose of `correlate`.

    One matrix product computes the contributions of all taps; no zeros are inserted. The sides
    become stride H + k - 1. The stride is 1 or 2, k is odd.
    """
    taps = jnp.einsum("nhwi,klio->nhwklo", x, kernel, precision=lax.Precision.HIGHEST)
    indices = range(kernel.shape[0])
    rows = [_overlap_add([taps[:, :, :, i, j] for j in indices], 2, stride) for i in indices]
    return _overlap_add(rows, 1, stride)


def _correlate_transpose_backward(stride, residuals, cotangent):
    x, kernel = residuals
    swapped = kernel.swapaxes(2, 3)
    rows = _row_patches(cotangent, kernel.shape[0], stride)
    return correlate(cotangent, swapped, stride), _kernel_cotangent(rows, x).swapaxes(2, 3)


_correlate_transpose.defvjp(
    lambda x, kernel, stride: (_correlate_transpose(x, kernel, stride), (x, kernel)),
    _correlate_transpose_backward,
)


@_programs.cleared_on_eviction
@functools.partial(jax.jit, static_argnames=("stride", "padding", "numerics"))
def convolution(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    padding: str = "zeros",
    numerics: Numerics = Numerics(),
) -> jax.Array:
    """Convolve (N, H, W, I), padded by k // 2, to (N, H / stride, W / stride, O).

    Args:
      x: Feature maps.
      kernel: (k, k, I, O) with k odd.
      stride: 1, or 2 if H and W are even.
      padding: "zeros", or "reflect" for k of 1 or 3.
      numerics: Implementation, precision and dtype.
    """
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
    supported = stride == 1 and size in _winograd.SIZES and x.dtype != jnp.bfloat16
    if supported and min(*x.shape[1:3], inputs, outputs) >= _WINOGRAD_MINIMUM:
        return _winograd.correlate(padded, kernel)
    return correlate(padded, kernel, stride)


@_programs.cleared_on_eviction
@functools.partial(jax.jit, static_argnames="numerics")
def transposed_convolution(
    x: jax.Array, kernel: jax.Array, *, numerics: Numerics = Numerics()
) -> jax.Array:
    """Convolve (N, H, W, I) to (N, 2 H, 2 W, O): stride 2, padding k // 2, output padding 1.

    The kernel (k, k, I, O), k odd, is that of the equivalent convolution of the input with a zero
    inserted after each pixel. It is PyTorch's kernel mirrored in both axes.
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
    full = _correlate_transpose(x, kernel[::-1, ::-1], 2)
    return full[:, low : low + 2 * x.shape[1], low : low + 2 * x.shape[2]]


@_programs.cleared_on_eviction
@functools.partial(jax.jit, static_argnames="numerics")
def depthwise_convolution(
    x: jax.Array, kernel: jax.Array, *, numerics: Numerics = Numerics()
) -> jax.Array:
    """Convolve each channel of (N, H, W, C) with its own kernel, at stride 1 with zero padding.

    The kernels are (k, k, 1, C) with k odd. The precision is always the highest.
    """
    x, kernel = numerics.cast(x, kernel)
    convolve = _depthwise.convolve_by_rows if numerics.uses_matmul else _depthwise.convolve
    return convolve(x, kernel)
