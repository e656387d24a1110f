"""Building networks: of genotypes, and the named ones that they are compared with.

A network is a hashable Flax module from a noise map (N, H, W, I) to images
(N, H, W, O) with an `in_channels` attribute.
"""

import dataclasses
from typing import Any, Protocol

import flax.linen as nn

from isnas_jax.networks.genotypes import NAS_DIP
from isnas_jax.networks.hourglass import Hourglass
from isnas_jax.networks.searched import SearchedNetwork
from isnas_jax.networks.spaces import SPACES, Space
from isnas_jax.ops import Numerics
from isnas_jax.registry import Registry, shown


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """What networks of any architecture have in common.

    Attributes:
      channels: Width of the feature maps; published: 128.
      in_channels: Channels of the noise map; as published, by default: those
        of the image for a genotype and 32 for a baseline.
      remat: Trade time for memory: compute each block's feature maps anew for
        the gradients instead of keeping them.
      numerics: How feature maps are computed.

    Raises:
      ValueError: For a number below 1.
    """

    channels: int = 128
    in_channels: int | None = None
    remat: bool = False
    numerics: Numerics = Numerics()

    def __post_init__(self) -> None:
        if self.channels < 1 or (self.in_channels is not None and self.in_channels < 1):
            raise ValueError(
                f"channels {self.channels} and in_channels {self.in_channels} must be at least 1"
            )


class Baseline(Protocol):
    """Builds a named network: what `BASELINES` holds."""

    def __call__(
        self, task: str, *, out_channels: int, channels: int, in_channels: int
    ) -> nn.Module: ...


def dip(task: str, *, out_channels: int, channels: int, in_channels: int) -> Hourglass:
    """The deep image prior with its published settings for a task.

    Wide skips and nearest-neighbor upsampling for inpainting, 4 skip
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


BASELINES: Registry[Baseline] = Registry("network", {"dip": dip, "nas-dip": nas_dip})
BASELINE_IN_CHANNELS = 32


def build_network(
    architecture: Any,
    *,
    out_channels: int,
    task: str = "denoising",
    space: Space = SPACES["free"],
    **config: Any,
) -> Any:
    """Builds the network of a genotype or of a named baseline.

    Args:
      architecture: A name in `BASELINES`, or a genotype of the space.
      out_channels: Channels of the image, 1 or 3.
      task: What a baseline is meant for; a genotype serves every task.
      space: Whose genotype it is.
      **config: Fields of `NetworkConfig`: `channels`, `in_channels`, ...

    Returns:
      A hashable Flax module with an `in_channels` attribute.

    Raises:
      ValueError: For an unknown name or an architecture that is impossible
        at this width.
    """
    given = NetworkConfig(**config)
    if out_channels < 1:
        raise ValueError(f"out_channels {out_channels} must be at least 1")
    sizes = {"out_channels": out_channels, "channels": given.channels}
    if isinstance(architecture, str):
        entering = given.in_channels or BASELINE_IN_CHANNELS
        net = _baseline(architecture, space)(task, in_channels=entering, **sizes)
    else:
        net = space.build(architecture, in_channels=given.in_channels, **sizes)
    # Networks of others need not know how else they could be computed.
    how = {"remat": given.remat, "numerics": given.numerics}
    changes: dict[str, Any] = {
        name: way for name, way in how.items() if way != getattr(NetworkConfig, name)
    }
    return net.clone(**changes) if changes else net


def _baseline(name: str, space: Space) -> Baseline:
    """`BASELINES.find`, whose error says how to give what is a genotype's text."""
    if name not in BASELINES and hasattr(space, "parse"):
        try:
            genotype = space.parse(name)
        except ValueError:
            pass
        else:
            raise ValueError(
                f"{name!r} is the text of a genotype; give the genotype itself, {genotype!r}"
            )
    return BASELINES[name]


def check_network(net: Any) -> None:
    """ValueError unless it is a network: a Flax module with an `in_channels` attribute."""
    if isinstance(net, type) or not (hasattr(net, "apply") and hasattr(net, "in_channels")):
        raise ValueError(
            f"{shown(net)} is no network, a Flax module with an in_channels attribute; "
            "isnas_jax.build_network(architecture, out_channels=3) makes one"
        )


def network_for(
    problem: Any, architecture: Any, config: NetworkConfig, space: Space = SPACES["free"]
) -> Any:
    """`build_network` for a problem, by its `shape` (H, W, C) and its `task`."""
    return build_network(
        architecture,
        out_channels=problem.shape[2],
        task=problem.task,
        space=space,
        **vars(config),
    )


def parse_architecture(text: str, space: Space = SPACES["free"]) -> Any:
    """A baseline's name as it is, anything else as a genotype of the space."""
    if text in BASELINES:
        return text
    try:
        return space.parse(text)
    except ValueError as error:
        raise ValueError(f"{error}; or give one of {', '.join(BASELINES)}") from None


def describe(net: Any) -> str:
    """A network in words for messages: its genotype where it has one."""
    genotype = getattr(net, "genotype", None)
    return type(net).__name__ if genotype is None else f"genotype {genotype}"
