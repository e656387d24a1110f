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
from isnas_jax.registry import Registry


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """What networks of any architecture have in common.

    Attributes:
      channels: Width of the feature maps; published: 128.
      in_channels: Channels of the noise map; as published, by default: those
        of the image for a genotype and 32 for a baseline.
      remat: Trade time for memory: compute each block's feature maps anew for
        the gradients instead of keeping them.

    Raises:
      ValueError: For a number below 1.
    """

    channels: int = 128
    in_channels: int | None = None
    remat: bool = False

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


BASELINES: Registry[Baseline] = Registry("network", {"dip": dip, "nas-dip": nas_dip})
BASELINE_IN_CHANNELS = 32


def build_network(
    architecture: Any,
    *,
    out_channels: int,
    task: str = "denoising",
    space: Space = SPACES["free"],
    **settings: Any,
) -> Any:
    """Builds the network of a genotype or of a named baseline.

    Args:
      architecture: A name in `BASELINES`, or a genotype of the space.
      out_channels: Channels of the image, 1 or 3.
      task: What a baseline is meant for; a genotype serves every task.
      space: Whose genotype it is.
      **settings: Fields of `NetworkSettings`: `channels`, `in_channels`, `remat`.

    Returns:
      A hashable Flax module with an `in_channels` attribute.

    Raises:
      ValueError: For an unknown name or an architecture that is impossible
        at this width.
    """
    given = NetworkSettings(**settings)
    if out_channels < 1:
        raise ValueError(f"out_channels {out_channels} must be at least 1")
    if not isinstance(architecture, str):
        return space.build(architecture, out_channels=out_channels, **dataclasses.asdict(given))
    baseline = BASELINES.find(architecture)(
        task,
        out_channels=out_channels,
        channels=given.channels,
        in_channels=given.in_channels or BASELINE_IN_CHANNELS,
    )
    return baseline.clone(remat=True) if given.remat else baseline


def network_for(
    problem: Any, architecture: Any, settings: NetworkSettings, space: Space = SPACES["free"]
) -> Any:
    """`build_network` for a problem, by its `shape` (H, W, C) and its `task`."""
    return build_network(
        architecture,
        out_channels=problem.shape[2],
        task=problem.task,
        space=space,
        **dataclasses.asdict(settings),
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
