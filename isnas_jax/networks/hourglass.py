"""The deep image prior's own network.

Inputs and outputs are as in `searched`.
"""

import flax.linen as nn
import jax.numpy as jnp

from isnas_jax import ops
from isnas_jax.networks.blocks import (
    Array,
    ConvBlock,
    Decoder,
    Encoder,
    check_input,
    image_of,
    submodules,
)
from isnas_jax.networks.genotypes import LEVELS
from isnas_jax.ops import Numerics


class Hourglass(nn.Module):
    """The deep image prior's network with concatenated skips (Ulyanov et al., CVPR 2018).

    Attributes:
      out_channels: Channels of the image.
      channels: Width of every feature map besides the skips.
      skip_channels: Width of the skips.
      upsampling: "bilinear" or "nearest".
      in_channels: Channels of the noise map to draw for it.
      remat: Compute feature maps anew for the gradients instead of keeping them.
      numerics: How feature maps are computed.
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
        module, skips = submodules(self.numerics, self.remat), []
        for level in range(1, LEVELS + 1):
            skips.append(module(f"skip{level}", ConvBlock, self.skip_channels)(x))
            x = module(f"enc{level}", Encoder, self.channels)(x)
        for level in range(LEVELS, 0, -1):
            x = ops.upsample(x, method=self.upsampling)
            x = jnp.concatenate([skips[level - 1], x], axis=-1)
            x = module(f"dec{level}", Decoder, self.channels, (3, 1))(x)
        return image_of(x, self.out_channels, module)
