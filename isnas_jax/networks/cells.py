"""The 324 upsampling cells of the search space; `genotypes.decode_cell` lists their options.

Feature maps are NHWC. A cell doubles height and width.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import flax.linen as nn

from isnas_jax import ops
from isnas_jax.networks.blocks import (
    Array,
    Conv,
    DepthwiseConv,
    GetModule,
    TransposedConv,
    module_getter,
)
from isnas_jax.networks.genotypes import Cell, decode_cell
from isnas_jax.ops import Numerics

Step: TypeAlias = Callable[[Any], Any]


def ordered_steps(cell: Cell, resample: Step, convolve: Step) -> list[Step]:
    """Return the steps that a cell has, in order; the cell's activation follows each step."""
    if cell.resample == "transposed":
        return [convolve]
    if cell.convolution == "identity":
        return [resample]
    return [convolve, resample] if cell.convolution_first else [resample, convolve]


def run_cell(index: int, features: int, x: Array, get_module: GetModule) -> Array:
    """Apply an upsampling cell to feature maps.

    Args:
      index: Index of the cell, 0 to 323.
      features: Number of output channels.
      x: Feature maps, (N, H, W, C).
      get_module: Returns the convolutions by name.

    Returns:
      (N, 2 H, 2 W, features).
    """
    cell = decode_cell(index)

    def resample(x):
        if cell.resample == "pixel_shuffle":
            return ops.pixel_shuffle(x)
        return ops.upsample(x, method=cell.resample)

    def convolve(x):
        out_channels = 4 * features if cell.convolution_first else features
        if cell.resample == "transposed":
            return get_module("conv", TransposedConv, features, cell.kernel, 2)(x)
        if cell.convolution == "transposed":
            return get_module("conv", TransposedConv, out_channels, cell.kernel, 1)(x)
        if cell.convolution == "separable":
            x = get_module("conv", DepthwiseConv, cell.kernel)(x)
            return get_module("pointwise", Conv, out_channels, 1, 1, "zeros", False)(x)
        if cell.convolution == "depthwise":
            return get_module("conv", DepthwiseConv, cell.kernel)(x)
        if cell.convolution == "split_stack_sum":
            x = ops.split_stack_sum(x)
        return get_module("conv", Conv, out_channels, cell.kernel, 1, "zeros", False)(x)

    for step in ordered_steps(cell, resample, convolve):
        x = step(x)
        if cell.activation != "none":
            x = ops.leaky_relu(x, ops.ACTIVATION_SLOPES[cell.activation])
    return x


class UpsamplingCell(nn.Module):
    """One of the 324 upsampling cells; it doubles height and width."""

    cell: int
    features: int
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return run_cell(self.cell, self.features, x, module_getter(self.numerics))
