"""The searched upsampling cells; what a cell's index means is in `genotypes`.

Feature maps are (N, H, W, C); a cell doubles H and W.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import flax.linen as nn

from isnas_jax import ops
from isnas_jax.networks.blocks import (
    Array,
    Conv,
    DepthwiseConv,
    Modules,
    TransposedConv,
    submodules,
)
from isnas_jax.networks.genotypes import Cell, decode_cell
from isnas_jax.ops import Numerics

Step: TypeAlias = Callable[[Any], Any]


def in_order(cell: Cell, resample: Step, convolve: Step) -> list[Step]:
    """Which of its two steps a cell has, in their order; each is followed by its activation."""
    if cell.resample == "transposed":
        return [convolve]
    if cell.convolution == "identity":
        return [resample]
    return [convolve, resample] if cell.convolution_first else [resample, convolve]


def run_cell(index: int, features: int, x: Array, module: Modules) -> Array:
    """What a searched cell does with a feature map, with the convolutions that `module` gives."""
    cell = decode_cell(index)

    def resample(x):
        if cell.resample == "pixel_shuffle":
            return ops.pixel_shuffle(x)
        return ops.upsample(x, method=cell.resample)

    def convolve(x):
        leaving = 4 * features if cell.convolution_first else features
        if cell.resample == "transposed":
            return module("conv", TransposedConv, features, cell.kernel, 2)(x)
        if cell.convolution == "transposed":
            return module("conv", TransposedConv, leaving, cell.kernel, 1)(x)
        if cell.convolution == "separable":
            x = module("conv", DepthwiseConv, cell.kernel)(x)
            return module("pointwise", Conv, leaving, 1, 1, "zeros", False)(x)
        if cell.convolution == "depthwise":
            return module("conv", DepthwiseConv, cell.kernel)(x)
        if cell.convolution == "split_stack_sum":
            x = ops.split_stack_sum(x)
        return module("conv", Conv, leaving, cell.kernel, 1, "zeros", False)(x)

    for step in in_order(cell, resample, convolve):
        x = step(x)
        if cell.activation != "none":
            x = ops.leaky_relu(x, ops.ACTIVATION_SLOPES[cell.activation])
    return x


class UpsamplingCell(nn.Module):
    """One of the 324 searched cells: doubles the sides."""

    cell: int
    features: int
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return run_cell(self.cell, self.features, x, submodules(self.numerics))
