"""Modules that all networks share, and the input sizes that networks accept.

Feature maps are NHWC in the dtype of `Numerics`; parameters are float32. Normalization always
uses the statistics of its input, so modules have no training mode and no running averages.
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
    """Return PyTorch's default initializer of convolutions: U(-b, b), b = 1 / sqrt(fan_in)."""
    bound = fan_in**-0.5

    def init(key, shape):
        # Each length compiles for 0.2 s. Rounding up to a power of 2 keeps the number of
        # lengths small, and does not change values: a longer sample begins with the shorter.
        size = math.prod(shape)
        length = max(1024, 1 << (size - 1).bit_length())
        flat = jax.random.uniform(key, (length,), jnp.float32, minval=-bound, maxval=bound)
        return flat[:size].reshape(shape)

    return init


def _add_bias(x: Array, bias: Array) -> Array:
    return x + jnp.expand_dims(bias.astype(x.dtype), (0, 1, 2))


class Conv(nn.Module):
    """Convolution with a square kernel of odd side and a padding of kernel // 2.

    The stride is 1 or 2, the padding "zeros", or "reflect" for kernel sizes 1 and 3.
    """

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
        return _add_bias(x, self.param("bias", init, (self.features,)))


class TransposedConv(nn.Module):
    """Transposed convolution with zero padding and a bias; stride 2 doubles height and width."""

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
        return _add_bias(x, self.param("bias", init, (self.features,)))


class DepthwiseConv(nn.Module):
    """Depthwise convolution with zero padding and without a bias."""

    kernel: int
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.kernel, self.kernel, 1, x.shape[-1])
        kernel = self.param("kernel", _torch_uniform(self.kernel**2), shape)
        return ops.depthwise_convolution(x, kernel, numerics=self.numerics)


class BatchNorm(nn.Module):
    """Batch normalization by the statistics of the input, with a learned scale and bias."""

    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        return ops.batch_norm(x, scale, bias, numerics=self.numerics)


class ConvBlock(nn.Module):
    """Convolution, batch normalization and leaky ReLU."""

    features: int
    kernel: int = 1
    stride: int = 1
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = Conv(self.features, self.kernel, self.stride, numerics=self.numerics, name="conv")(x)
        return ops.leaky_relu(BatchNorm(self.numerics, name="norm")(x))


class Encoder(nn.Module):
    """Encoder level: halve height and width."""

    features: int
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = ConvBlock(self.features, 3, 2, self.numerics, name="down")(x)
        return ConvBlock(self.features, 3, 1, self.numerics, name="block")(x)


class Decoder(nn.Module):
    """Decoder level: process the sum or concatenation of upsampled features and skips."""

    features: int
    kernels: tuple[int, ...]
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = BatchNorm(self.numerics, name="norm")(x)
        for index, kernel in enumerate(self.kernels, start=1):
            x = ConvBlock(self.features, kernel, 1, self.numerics, name=f"block{index}")(x)
        return x


# A function (name, module_class, *fields) that returns the submodule with this name and
# constructs it at the first call.
GetModule: TypeAlias = Callable[..., Callable[[Array], Array]]


def module_getter(numerics: Numerics, remat: bool = False) -> GetModule:
    """Return a function that constructs and returns the submodules of the calling module.

    With `remat`, gradients recompute the feature maps inside each submodule.
    """
    modules: dict[str, nn.Module] = {}

    def get_module(name: str, module_class: type[nn.Module], *fields: Any) -> nn.Module:
        if name not in modules:
            construct = nn.remat(module_class) if remat else module_class
            modules[name] = construct(*fields, name=name, numerics=numerics)
        return modules[name]

    return get_module


def output_image(x: Array, out_channels: int, get_module: GetModule) -> Array:
    """Map the last feature maps to images: float32 (N, H, W, O) in (0, 1)."""
    return nn.sigmoid(get_module("output", Conv, out_channels)(x).astype(jnp.float32))


def check_input(x: Array) -> None:
    """Raise ValueError unless x is (N, H, W, I) with sides that five levels can halve."""
    if x.ndim != 4:
        raise ValueError(f"input shape {x.shape} must be (N, H, W, I)")
    if any(side % SIDE_MULTIPLE or side < SMALLEST_SIDE for side in x.shape[1:3]):
        raise ValueError(
            f"input sides {x.shape[1]} x {x.shape[2]} must each be a multiple of "
            f"{SIDE_MULTIPLE} and at least {SMALLEST_SIDE}"
        )


def padded_side(side: int) -> int:
    """Return the smallest side, at least `side`, that networks accept."""
    return max(SMALLEST_SIDE, -(-side // SIDE_MULTIPLE) * SIDE_MULTIPLE)
