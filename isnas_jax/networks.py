"""The networks: pure Flax modules that turn a noise map into an image.

Inputs are float32 (N, H, W, I) with H and W multiples of 32 and at least 64,
outputs (N, H, W, O) in (0, 1). Normalisation always uses the statistics of its
own input, so there is no training mode and no state besides the parameters.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from isnas_jax import ops
from isnas_jax.genotypes import LEVELS, NAS_DIP, Genotype, decode_cell

Array: TypeAlias = jax.Array

SIDE_MULTIPLE = 2**LEVELS
SMALLEST_SIDE = 2 * SIDE_MULTIPLE


def _torch_uniform(fan_in: int) -> Callable[..., Array]:
    """PyTorch's default initialisation of convolutions: U(-b, b), b = 1 / sqrt(fan_in)."""
    bound = fan_in**-0.5

    def init(key, shape):
        return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

    return init


class Conv(nn.Module):
    """Convolution of odd kernel size, padded by half of it; with bias unless told otherwise."""

    features: int
    kernel: int = 1
    stride: int = 1
    padding: str = "reflect"
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = _torch_uniform(x.shape[-1] * self.kernel**2)
        kernel = self.param("kernel", init, (self.kernel, self.kernel, x.shape[-1], self.features))
        x = ops.convolution(x, kernel, stride=self.stride, padding=self.padding)
        return x + self.param("bias", init, (self.features,)) if self.use_bias else x


class TransposedConv(nn.Module):
    """Zero-padded transposed convolution of stride 1, or of stride 2 (sides doubled)."""

    features: int
    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = _torch_uniform(self.features * self.kernel**2)
        kernel = self.param("kernel", init, (self.kernel, self.kernel, x.shape[-1], self.features))
        x = (
            ops.convolution(x, kernel)
            if self.stride == 1
            else ops.transposed_convolution(x, kernel)
        )
        return x + self.param("bias", init, (self.features,))


class DepthwiseConv(nn.Module):
    """Zero-padded depthwise convolution without bias."""

    kernel: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.kernel, self.kernel, 1, x.shape[-1])
        return ops.depthwise_convolution(
            x, self.param("kernel", _torch_uniform(self.kernel**2), shape)
        )


class BatchNorm(nn.Module):
    """Normalisation by the batch's own statistics, then scale and bias."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return ops.batch_norm(x, scale, bias)


class ConvBlock(nn.Module):
    """Convolution, normalisation, LeakyReLU."""

    features: int
    kernel: int = 1
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = Conv(self.features, self.kernel, self.stride, name="conv")(x)
        return ops.leaky_relu(BatchNorm(name="norm")(x))


class Encoder(nn.Module):
    """One level down: halves the sides."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = ConvBlock(self.features, 3, stride=2, name="down")(x)
        return ConvBlock(self.features, 3, name="block")(x)


class Decoder(nn.Module):
    """What follows the upsampling and the skips at one level."""

    features: int
    kernels: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = BatchNorm(name="norm")(x)
        for number, kernel in enumerate(self.kernels, start=1):
            x = ConvBlock(self.features, kernel, name=f"block{number}")(x)
        return x


# Gives the module of a name, made of a kind and its fields where there is none yet.
Modules: TypeAlias = Callable[..., Callable[[Array], Array]]


def _submodules(remat: bool = False) -> Modules:
    """The modules of the one that is being called; with `remat` gradients keep inputs only."""
    made: dict[str, nn.Module] = {}

    def module(name: str, kind: type[nn.Module], *fields: Any) -> nn.Module:
        if name not in made:
            made[name] = (nn.remat(kind) if remat else kind)(*fields, name=name)
        return made[name]

    return module


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

    steps = [resample, convolve]
    if cell.resample == "transposed":
        steps = [convolve]
    elif cell.convolution == "identity":
        steps = [resample]
    elif cell.convolution_first:
        steps = [convolve, resample]
    for step in steps:
        x = step(x)
        if cell.activation != "none":
            x = ops.leaky_relu(x, ops.ACTIVATION_SLOPES[cell.activation])
    return x


class UpsamplingCell(nn.Module):
    """One of the 324 searched cells: doubles the sides."""

    cell: int
    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return run_cell(self.cell, self.features, x, _submodules())


class SearchedNetwork(nn.Module):
    """The five-level encoder-decoder of a genotype (NAS-DIP, section 3).

    With e_0 the input, e_l the encoder's outputs and S the skip matrix, the
    decoder computes d_l = dec_l(up_l(d_(l+1)) + sum of the skips of row l)
    from d_6 = e_5 down to d_1, and the output is sigmoid(conv1x1(d_1)).

    Attributes:
      genotype: The architecture.
      out_channels: Channels of the image.
      channels: Width of every feature map.
      in_channels: Channels of the noise map to draw for it.
      remat: Compute feature maps anew for the gradients instead of keeping them.
    """

    genotype: Genotype
    out_channels: int
    channels: int = 128
    in_channels: int = 3
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return run_searched(self, x, _submodules(self.remat))


def run_searched(net: SearchedNetwork, x: Array, module: Modules) -> Array:
    """What a searched network does with its input, with the modules that `module` gives."""
    check_input(x)
    sources = [x]
    for level in range(1, LEVELS + 1):
        sources.append(module(f"enc{level}", Encoder, net.channels)(sources[-1]))
    skips = _skips(net, sources, module)
    x = sources[-1]
    for level in range(LEVELS, 0, -1):
        x = module(f"up{level}", UpsamplingCell, net.genotype.cell, net.channels)(x)
        for skip in skips[level]:
            x = x + skip
        x = module(f"dec{level}", Decoder, net.channels, (3, 3, 1))(x)
    return nn.sigmoid(module("output", Conv, net.out_channels)(x))


def _skips(net: SearchedNetwork, sources: list[Array], module: Modules) -> dict[int, list[Array]]:
    """The feature maps that arrive at each level, source 0 first.

    A source travels from level to level through modules that all sources
    share; it leaves a copy wherever its bit is set.
    """
    cell, width = net.genotype.cell, net.channels
    levels = range(1, LEVELS + 1)
    arriving: dict[int, list[Array]] = {level: [] for level in levels}
    for source, x in enumerate(sources[:LEVELS]):
        own = source + 1  # the level of the source's scale
        targets = [level for level in levels if net.genotype.has_skip(level, source)]
        if own in targets:
            arriving[own].append(module(f"skip{own}", ConvBlock, width)(x))
        carried = x
        for level in range(own + 1, max(targets, default=own) + 1):
            carried = module(f"skip_down_{level - 1}_{level}", ConvBlock, width, 3, 2)(carried)
            if level in targets:
                arriving[level].append(carried)
        carried = x
        for level in range(own - 1, min(targets, default=own) - 1, -1):
            carried = module(f"skip_up_{level + 1}_{level}", UpsamplingCell, cell, width)(carried)
            if level in targets:
                arriving[level].append(carried)
    return arriving


class Hourglass(nn.Module):
    """The deep image prior's network with concatenated skips (Ulyanov et al., CVPR 2018).

    Attributes:
      out_channels: Channels of the image.
      channels: Width of every feature map besides the skips.
      skip_channels: Width of the skips.
      upsampling: "bilinear" or "nearest".
      in_channels: Channels of the noise map to draw for it.
      remat: Compute feature maps anew for the gradients instead of keeping them.
    """

    out_channels: int
    channels: int = 128
    skip_channels: int = 4
    upsampling: str = "bilinear"
    in_channels: int = 32
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        check_input(x)
        module, skips = _submodules(self.remat), []
        for level in range(1, LEVELS + 1):
            skips.append(module(f"skip{level}", ConvBlock, self.skip_channels)(x))
            x = module(f"enc{level}", Encoder, self.channels)(x)
        for level in range(LEVELS, 0, -1):
            x = ops.upsample(x, method=self.upsampling)
            x = jnp.concatenate([skips[level - 1], x], axis=-1)
            x = module(f"dec{level}", Decoder, self.channels, (3, 1))(x)
        return nn.sigmoid(module("output", Conv, self.out_channels)(x))


def check_input(x: Array) -> None:
    """ValueError unless x is (N, H, W, I) with sides that five levels can halve."""
    if x.ndim != 4:
        raise ValueError(f"a network takes (N, H, W, I), not the shape {x.shape}")
    if any(side % SIDE_MULTIPLE or side < SMALLEST_SIDE for side in x.shape[1:3]):
        raise ValueError(
            f"sides {x.shape[1]} x {x.shape[2]}: each must be a multiple of "
            f"{SIDE_MULTIPLE} and at least {SMALLEST_SIDE}"
        )


def padded_side(side: int) -> int:
    """The smallest side that a network takes and that holds this one."""
    return max(SMALLEST_SIDE, -(-side // SIDE_MULTIPLE) * SIDE_MULTIPLE)


class Baseline(Protocol):
    """Builds a named network: what `BASELINES` holds."""

    def __call__(
        self, task: str, *, out_channels: int, channels: int, in_channels: int
    ) -> nn.Module: ...


def dip(task: str, *, out_channels: int, channels: int, in_channels: int) -> Hourglass:
    """The deep image prior with its published settings for a task.

    Wide skips and nearest-neighbour upsampling for inpainting, 4 skip
    channels and bilinear upsampling for everything else.
    """
    inpainting = task == "inpainting"
    return Hourglass(
        out_channels,
        channels,
        skip_channels=channels if inpainting else 4,
        upsampling="nearest" if inpainting else "bilinear",
        in_channels=in_channels,
    )


def nas_dip(task: str, *, out_channels: int, channels: int, in_channels: int) -> SearchedNetwork:
    """The network that NAS-DIP found for a task; ValueError for tasks it did not search."""
    if task not in NAS_DIP:
        raise ValueError(f"NAS-DIP has no network for task {task!r}; it has {', '.join(NAS_DIP)}")
    NAS_DIP[task].check(channels)
    return SearchedNetwork(NAS_DIP[task], out_channels, channels, in_channels)


BASELINES: dict[str, Baseline] = {"dip": dip, "nas-dip": nas_dip}
BASELINE_IN_CHANNELS = 32


def build_network(
    architecture: Genotype | str,
    *,
    out_channels: int,
    channels: int = 128,
    in_channels: int | None = None,
    task: str = "denoising",
    remat: bool = False,
) -> Any:
    """Builds the network of a genotype or of a named baseline.

    Args:
      architecture: A `Genotype`, or a name in `BASELINES`.
      out_channels: Channels of the image, 1 or 3.
      channels: Width of the feature maps; published: 128.
      in_channels: Channels of the noise map; as published, by default: those
        of the image for a genotype and 32 for a baseline.
      task: What a baseline is meant for; a genotype serves every task.
      remat: Trade time for memory: compute each block's feature maps anew for
        the gradients instead of keeping them.

    Returns:
      A hashable Flax module with an `in_channels` attribute.

    Raises:
      ValueError: For an unknown name or an architecture that is impossible
        at this width.
    """
    if channels < 1 or out_channels < 1 or (in_channels is not None and in_channels < 1):
        raise ValueError(
            f"channels {channels}, out_channels {out_channels} and in_channels {in_channels} "
            "must be at least 1"
        )
    if isinstance(architecture, Genotype):
        architecture.check(channels)
        return SearchedNetwork(
            architecture, out_channels, channels, in_channels or out_channels, remat
        )
    if architecture not in BASELINES:
        raise ValueError(
            f"network {architecture!r} does not exist; give a genotype or one of "
            f"{', '.join(BASELINES)}"
        )
    baseline = BASELINES[architecture](
        task,
        out_channels=out_channels,
        channels=channels,
        in_channels=in_channels or BASELINE_IN_CHANNELS,
    )
    return baseline.clone(remat=True) if remat else baseline
