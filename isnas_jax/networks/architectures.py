"""The networks: of genotypes, with their upsampling cells, and of the deep image prior.

Inputs are float32 (N, H, W, I) with H and W multiples of 32 and at least 64. Outputs are
float32 (N, H, W, O) in (0, 1). Feature maps are NHWC.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from isnas_jax import ops
from isnas_jax.networks.blocks import (
    Array,
    Conv,
    ConvBlock,
    Decoder,
    DepthwiseConv,
    Encoder,
    GetModule,
    TransposedConv,
    check_input,
    module_getter,
    output_image,
)
from isnas_jax.networks.genotypes import LEVELS, Cell, Genotype, decode_cell
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
    """Apply a cell, (N, H, W, C) to (N, 2 H, 2 W, features), with modules from `get_module`."""
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


class SearchedNetwork(nn.Module):
    """Five-level encoder-decoder of a genotype (NAS-DIP, section 3).

    The input is e_0 and the encoder outputs are e_1 to e_5. The decoder starts from
    d_6 = e_5 and computes d_l = dec_l(up_l(d_(l+1)) + the skips of row l of the skip matrix)
    for l = 5 to 1. The output is sigmoid(conv1x1(d_1)).

    Attributes:
      genotype: The architecture.
      out_channels: Channels of the image.
      channels: Channels of all feature maps.
      in_channels: Channels of the noise map.
      remat: Whether gradients recompute feature maps, which saves memory and takes time.
      numerics: Implementation, precision and dtype.
    """

    genotype: Genotype
    out_channels: int
    channels: int = 128
    in_channels: int = 3
    remat: bool = False
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return run_searched(self, x, module_getter(self.numerics, self.remat))


class CellNetwork(SearchedNetwork):
    """Network that computes any genotype of one cell, so that they can share a program.

    Its `genotype` has all skips. Each skip is multiplied by its bit of `Genotype.skips`; an
    absent skip and its gradient are zero. The bits are the variable `skips/bits`, (25,)
    float32, without gradients. A key initializes each module as in `SearchedNetwork`.
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:
        bits = self.variable("skips", "bits", jnp.ones, LEVELS**2, jnp.float32).value
        get_module = module_getter(self.numerics, self.remat)
        return run_searched(self, x, get_module, jax.lax.stop_gradient(bits))


def cell_network(net: SearchedNetwork) -> tuple[CellNetwork, np.ndarray]:
    """Return the `CellNetwork` for the cell of a network, and the network's bits, (25,) float32."""
    names = ("out_channels", "channels", "in_channels", "remat", "numerics")
    all_skips = Genotype(net.genotype.cell, "1" * LEVELS**2)
    joint = CellNetwork(all_skips, **{name: getattr(net, name) for name in names})
    return joint, np.array([bit == "1" for bit in net.genotype.skips], np.float32)


def run_searched(
    net: SearchedNetwork, x: Array, get_module: GetModule, bits: Array | None = None
) -> Array:
    """Apply a network with modules from `get_module`; `bits` (25,) are factors of its skips."""
    check_input(x)
    sources = [x]
    for level in range(1, LEVELS + 1):
        sources.append(get_module(f"enc{level}", Encoder, net.channels)(sources[-1]))
    skips = _skips(net, sources, get_module, bits)
    x = sources[-1]
    for level in range(LEVELS, 0, -1):
        x = get_module(f"up{level}", UpsamplingCell, net.genotype.cell, net.channels)(x)
        for skip in skips[level]:
            x = x + skip
        x = get_module(f"dec{level}", Decoder, net.channels, (3, 3, 1))(x)
    return output_image(x, net.out_channels, get_module)


def _skips(
    net: SearchedNetwork, sources: list[Array], get_module: GetModule, bits: Array | None
) -> dict[int, list[Array]]:
    """Return a list of skips for each decoder level, in the order of their sources.

    Sources are resampled level by level. All sources share the modules between two levels.
    """
    cell, width = net.genotype.cell, net.channels
    levels = range(1, LEVELS + 1)
    skips: dict[int, list[Array]] = {level: [] for level in levels}

    def add_skip(x, level, source):
        if bits is not None:
            x = bits[(level - 1) * LEVELS + source].astype(x.dtype) * x
        skips[level].append(x)

    for source, x in enumerate(sources[:LEVELS]):
        source_level = source + 1  # the level with the resolution of the source
        targets = [level for level in levels if net.genotype.has_skip(level, source)]
        if source_level in targets:
            add_skip(get_module(f"skip{source_level}", ConvBlock, width)(x), source_level, source)
        resampled = x
        for level in range(source_level + 1, max(targets, default=source_level) + 1):
            downsample = get_module(f"skip_down_{level - 1}_{level}", ConvBlock, width, 3, 2)
            resampled = downsample(resampled)
            if level in targets:
                add_skip(resampled, level, source)
        resampled = x
        for level in range(source_level - 1, min(targets, default=source_level) - 1, -1):
            upsample = get_module(f"skip_up_{level + 1}_{level}", UpsamplingCell, cell, width)
            resampled = upsample(resampled)
            if level in targets:
                add_skip(resampled, level, source)
    return skips


class Hourglass(nn.Module):
    """Five-level encoder-decoder with concatenated skips (Ulyanov et al., CVPR 2018).

    Attributes:
      out_channels: Channels of the image.
      channels: Channels of the feature maps, except for the skips.
      skip_channels: Channels of the skips.
      upsampling: "bilinear" or "nearest".
      in_channels: Channels of the noise map.

    `remat` and `numerics` are as for `SearchedNetwork`.
    """

    out_channels: int
    channels: int = 128
    skip_channels: int = 4
    upsampling: str = "bilinear"
    in_channels: int = 32
    remat: bool = False
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        check_input(x)
        get_module, skips = module_getter(self.numerics, self.remat), []
        for level in range(1, LEVELS + 1):
            skips.append(get_module(f"skip{level}", ConvBlock, self.skip_channels)(x))
            x = get_module(f"enc{level}", Encoder, self.channels)(x)
        for level in range(LEVELS, 0, -1):
            x = ops.upsample(x, method=self.upsampling)
            x = jnp.concatenate([skips[level - 1], x], axis=-1)
            x = get_module(f"dec{level}", Decoder, self.channels, (3, 1))(x)
        return output_image(x, self.out_channels, get_module)
