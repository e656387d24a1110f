"""Build networks of genotypes, and baselines.

A network is a hashable Flax module with an `in_channels` attribute. It maps noise maps
(N, H, W, I) to images (N, H, W, O).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from isnas_jax.networks.architectures import Hourglass, SearchedNetwork
from isnas_jax.networks.genotypes import NAS_DIP
from isnas_jax.networks.spaces import Space, free_space
from isnas_jax.ops import Numerics
from isnas_jax.registry import short_repr


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Config of networks, independent of the architecture.

    Attributes:
      channels: Channels of the feature maps; the papers use 128.
      in_channels: Channels of the noise map. By default those of the papers: the channels of
        the image for a genotype, 32 for a baseline.
      remat: Whether gradients recompute feature maps, which saves memory and takes time.
      numerics: Implementation, precision and dtype of the feature maps.

    Raises:
      ValueError: If a number of channels is below 1.
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


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A network with a name instead of a genotype.

    Attributes:
      name: Its name, in flags and tables.
      build: Builds it: `build(task, out_channels=..., channels=..., in_channels=...)`.
    """

    name: str
    build: Callable[..., nn.Module]

    def __str__(self) -> str:
        return self.name


def _build_dip(task: str, *, out_channels: int, channels: int, in_channels: int) -> Hourglass:
    """Build the network of the deep image prior as published for a task.

    Inpainting uses wide skips and nearest-neighbor upsampling. Other tasks use 4 skip channels
    and bilinear upsampling.
    """
    inpainting = task == "inpainting"
    return Hourglass(
        out_channels,
        channels,
        skip_channels=channels if inpainting else 4,
        upsampling="nearest" if inpainting else "bilinear",
        in_channels=in_channels,
    )


def _build_nas_dip(
    task: str, *, out_channels: int, channels: int, in_channels: int
) -> SearchedNetwork:
    """Build the network that NAS-DIP found for a task; ValueError if there is none."""
    if task not in NAS_DIP:
        raise ValueError(f"nas-dip has no task {task!r}; choose from {', '.join(NAS_DIP)}")
    NAS_DIP[task].check(channels)
    return SearchedNetwork(NAS_DIP[task], out_channels, channels, in_channels)


# Ulyanov et al., CVPR 2018, and Chen et al., ECCV 2020.
dip = Baseline("dip", _build_dip)
nas_dip = Baseline("nas-dip", _build_nas_dip)

BASELINE_IN_CHANNELS = 32


def build_network(
    architecture: Any,
    *,
    out_channels: int,
    task: str = "denoising",
    space: Space = free_space,
    **config: Any,
) -> Any:
    """Build the network of a genotype or of a baseline.

    >>> isnas.build_network(isnas.dip, out_channels=3, channels=32).in_channels
    32

    Args:
      architecture: A genotype of the space, or a baseline.
      out_channels: Channels of the image, 1 or 3.
      task: Task to build a baseline for; genotypes do not depend on it.
      space: Search space of the genotype.
      **config: Fields of `NetworkConfig`, such as `channels` and `in_channels`.

    Returns:
      A hashable Flax module with an `in_channels` attribute.

    Raises:
      ValueError: If the architecture is of another type, or impossible with these channels.
    """
    network = NetworkConfig(**config)
    if out_channels < 1:
        raise ValueError(f"out_channels {out_channels} must be at least 1")
    if isinstance(architecture, str):
        raise ValueError(
            f"architecture {architecture!r} is a text; pass a genotype, such as "
            "isnas_jax.Genotype.parse(text), or a baseline, such as isnas_jax.dip"
        )
    channels = {"out_channels": out_channels, "channels": network.channels}
    if isinstance(architecture, Baseline):
        in_channels = network.in_channels or BASELINE_IN_CHANNELS
        net: Any = architecture.build(task, in_channels=in_channels, **channels)
    else:
        net = space.build(architecture, in_channels=network.in_channels, **channels)
    # A user's network may lack the fields `remat` and `numerics`, so set only changed ones.
    changes: dict[str, Any] = {
        name: getattr(network, name)
        for name in ("remat", "numerics")
        if getattr(network, name) != getattr(NetworkConfig, name)
    }
    return net.clone(**changes) if changes else net


def check_network(net: Any) -> None:
    """Raise ValueError unless `net` is a Flax module with an `in_channels` attribute."""
    if isinstance(net, type) or not (hasattr(net, "apply") and hasattr(net, "in_channels")):
        raise ValueError(
            f"{short_repr(net)} is not a Flax module with an in_channels attribute; "
            "isnas_jax.build_network(architecture, out_channels=3) returns one"
        )


def network_for(
    problem: Any, architecture: Any, config: NetworkConfig, space: Space = free_space
) -> Any:
    """Build a network for a problem, from the problem's `shape` (H, W, C) and `task`."""
    return build_network(
        architecture,
        out_channels=problem.shape[2],
        task=problem.task,
        space=space,
        **vars(config),
    )


def describe(net: Any) -> str:
    """Return a short description of a network for messages: its genotype or its class."""
    genotype = getattr(net, "genotype", None)
    return type(net).__name__ if genotype is None else f"genotype {genotype}"
