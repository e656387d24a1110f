"""The network of a genotype.

Inputs are float32 (N, H, W, I) with H and W multiples of 32 and at least 64,
outputs (N, H, W, O) in (0, 1).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from isnas_jax.networks.blocks import (
    Array,
    ConvBlock,
    Decoder,
    Encoder,
    Modules,
    check_input,
    image_of,
    submodules,
)
from isnas_jax.networks.cells import UpsamplingCell
from isnas_jax.networks.genotypes import LEVELS, Genotype
from isnas_jax.ops import Numerics


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
      numerics: How feature maps are computed.
    """

    genotype: Genotype
    out_channels: int
    channels: int = 128
    in_channels: int = 3
    remat: bool = False
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return run_searched(self, x, submodules(self.numerics, self.remat))


class CellNetwork(SearchedNetwork):
    """The networks of all genotypes of a cell as one: which skips they have is data.

    Its own genotype is the one with all skips. The 25 bits of `Genotype.skips` are
    variables beside the parameters, `skips/bits` (25,) float32, which gradients do
    not reach. A skip that is not there is multiplied by zero, its gradient too. A
    key draws the same for a module as in the network of any genotype.
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:
        bits = self.variable("skips", "bits", jnp.ones, LEVELS**2, jnp.float32).value
        module = submodules(self.numerics, self.remat)
        return run_searched(self, x, module, jax.lax.stop_gradient(bits))


def cell_network(net: SearchedNetwork) -> tuple[CellNetwork, np.ndarray]:
    """The network that serves all genotypes of a network's cell, and its own bits (25,)."""
    same = ("out_channels", "channels", "in_channels", "remat", "numerics")
    whole = Genotype(net.genotype.cell, "1" * LEVELS**2)
    joint = CellNetwork(whole, **{name: getattr(net, name) for name in same})
    return joint, np.array([bit == "1" for bit in net.genotype.skips], np.float32)


def run_searched(
    net: SearchedNetwork, x: Array, module: Modules, bits: Array | None = None
) -> Array:
    """What a searched network does with its input, with the modules that `module` gives.

    Args:
      net: The network; its genotype says which skips there are.
      x: The input.
      module: Gives the modules.
      bits: (25,) that the skips are multiplied by, or None.
    """
    check_input(x)
    sources = [x]
    for level in range(1, LEVELS + 1):
        sources.append(module(f"enc{level}", Encoder, net.channels)(sources[-1]))
    skips = _skips(net, sources, module, bits)
    x = sources[-1]
    for level in range(LEVELS, 0, -1):
        x = module(f"up{level}", UpsamplingCell, net.genotype.cell, net.channels)(x)
        for skip in skips[level]:
            x = x + skip
        x = module(f"dec{level}", Decoder, net.channels, (3, 3, 1))(x)
    return image_of(x, net.out_channels, module)


def _skips(
    net: SearchedNetwork,
    sources: list[Array],
    module: Modules,
    bits: Array | None,
) -> dict[int, list[Array]]:
    """The feature maps that arrive at each level, source 0 first.

    A source travels from level to level through modules that all sources
    share; it leaves a copy wherever its bit is set.
    """
    cell, width = net.genotype.cell, net.channels
    levels = range(1, LEVELS + 1)
    arriving: dict[int, list[Array]] = {level: [] for level in levels}

    def leave(x, level, source):
        if bits is not None:
            x = bits[(level - 1) * LEVELS + source].astype(x.dtype) * x
        arriving[level].append(x)

    for source, x in enumerate(sources[:LEVELS]):
        own = source + 1  # the level of the source's scale
        targets = [level for level in levels if net.genotype.has_skip(level, source)]
        if own in targets:
            leave(module(f"skip{own}", ConvBlock, width)(x), own, source)
        carried = x
        for level in range(own + 1, max(targets, default=own) + 1):
            carried = module(f"skip_down_{level - 1}_{level}", ConvBlock, width, 3, 2)(carried)
            if level in targets:
                leave(carried, level, source)
        carried = x
        for level in range(own - 1, min(targets, default=own) - 1, -1):
            carried = module(f"skip_up_{level + 1}_{level}", UpsamplingCell, cell, width)(carried)
            if level in targets:
                leave(carried, level, source)
    return arriving
