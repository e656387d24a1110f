"""The blocks that all networks are made of, and the sizes that they take.

Feature maps are (N, H, W, C), float32 unless the numerics of a module says
otherwise; parameters are float32. Normalization always uses the statistics
of its own input, so there is no training mode and no state besides the parameters.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from isnas_jax import ops
from isnas_jax.networks.genotypes import LEVELS
from isnas_jax.ops import Numerics

Array: TypeAlias = jax.Array

SIDE_MULTIPLE = 2**LEVELS
SMALLEST_SIDE = 2 * SIDE_MULTIPLE


def _torch_uniform(fan_in: int) -> Callable[..., Array]:
    """PyTorch's default initialization of convolutions: U(-b, b), b = 1 / sqrt(fan_in)."""
    bound = fan_in**-0.5

    def init(key, shape):
        # Every size that is drawn compiles for 0.2 s. A shorter draw is the beginning of a
        # longer one, so a few sizes serve all shapes.
        size = math.prod(shape)
        drawn = max(1024, 1 << (size - 1).bit_length())
        flat = jax.random.uniform(key, (drawn,), jnp.float32, minval=-bound, maxval=bound)
        return flat[:size].reshape(shape)

    return init


def _biased(x: Array, bias: Array) -> Array:
    return x + jnp.expand_dims(bias.astype(x.dtype), (0, 1, 2))


class Conv(nn.Module):
    """Convolution of odd kernel size, padded by half of it; with bias unless told otherwise."""

    features: int
    kernel: int = 1
    stride: int = 1
    padding: str = "reflect"
    use_bias: bool = True
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = _torch_uniform(x.shape[-1] * self.kernel**2)
        kernel = self.param("kernel", init, (self.kernel, self.kernel, x.shape[-1], self.features))
        x = ops.convolution(
            x, kernel, stride=self.stride, padding=self.padding, numerics=self.numerics
        )
        if not self.use_bias:
            return x
        return _biased(x, self.param("bias", init, (self.features,)))


class TransposedConv(nn.Module):
    """Zero-padded transposed convolution of stride 1, or of stride 2 (sides doubled)."""

    features: int
    kernel: int
    stride: int
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = _torch_uniform(self.features * self.kernel**2)
        kernel = self.param("kernel", init, (self.kernel, self.kernel, x.shape[-1], self.features))
        convolve = ops.convolution if self.stride == 1 else ops.transposed_convolution
        x = convolve(x, kernel, numerics=self.numerics)
        return _biased(x, self.param("bias", init, (self.features,)))


class DepthwiseConv(nn.Module):
    """Zero-padded depthwise convolution without bias."""

    kernel: int
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.kernel, self.kernel, 1, x.shape[-1])
        kernel = self.param("kernel", _torch_uniform(self.kernel**2), shape)
        return ops.depthwise_convolution(x, kernel, numerics=self.numerics)


class BatchNorm(nn.Module):
    """Normalization by the batch's own statistics, then scale and bias."""

    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        return ops.batch_norm(x, scale, bias, numerics=self.numerics)


class ConvBlock(nn.Module):
    """Convolution, normalization, LeakyReLU."""

    features: int
    kernel: int = 1
    stride: int = 1
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = Conv(self.features, self.kernel, self.stride, numerics=self.numerics, name="conv")(x)
        return ops.leaky_relu(BatchNorm(self.numerics, name="norm")(x))


class Encoder(nn.Module):
    """One level down: halves the sides."""

    features: int
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = ConvBlock(self.features, 3, 2, self.numerics, name="down")(x)
        return ConvBlock(self.features, 3, 1, self.numerics, name="block")(x)


class Decoder(nn.Module):
    """What follows the upsampling and the skips at one level."""

    features: int
    kernels: tuple[int, ...]
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = BatchNorm(self.numerics, name="norm")(x)
        for number, kernel in enumerate(self.kernels, start=1):
            x = ConvBlock(self.features, kernel, 1, self.numerics, name=f"block{number}")(x)
        return x


def image_of(x: Array, out_channels: int, module: "Modules") -> Array:
    """The last step of every network: float32 (N, H, W, O) in (0, 1)."""
    return nn.sigmoid(module("output", Conv, out_channels)(x).astype(jnp.float32))


# Gives the module of a name, made of a kind and its fields where there is none yet.
Modules: TypeAlias = Callable[..., Callable[[Array], Array]]


def submodules(numerics: Numerics, remat: bool = False) -> Modules:
    """The modules of the one that is being called; with `remat` gradients keep inputs only."""
    made: dict[str, nn.Module] = {}

    def module(name: str, kind: type[nn.Module], *fields: Any) -> nn.Module:
        if name not in made:
            make = nn.remat(kind) if remat else kind
            made[name] = make(*fields, name=name, numerics=numerics)
        return made[name]

    return module


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
