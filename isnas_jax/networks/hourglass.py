"""The network of the deep image prior.

Inputs are float32 (N, H, W, I) with H and W multiples of 32 and at least 64. Outputs are
float32 (N, H, W, O) in (0, 1).
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
    module_getter,
    output_image,
)
from isnas_jax.networks.genotypes import LEVELS
from isnas_jax.ops import Numerics


class Hourglass(nn.Module):
    """Five-level encoder-decoder with concatenated skips (Ulyanov et al., CVPR 2018).

    Attributes:
      out_channels: Channels of the image.
      channels: Channels of the feature maps, except for the skips.
      skip_channels: Channels of the skips.
      upsampling: "bilinear" or "nearest".
      in_channels: Channels of the noise map.
      remat: Whether gradients recompute feature maps, which saves memory and takes time.
      numerics: Implementation, precision and dtype.
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
