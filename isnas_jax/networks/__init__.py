"""Networks: architectures as data, the modules that they become, published weights."""

from isnas_jax.networks import interop
from isnas_jax.networks.blocks import padded_side
from isnas_jax.networks.build import (
    BASELINES,
    NetworkConfig,
    build_network,
    check_network,
    describe,
    network_for,
    parse_architecture,
)
from isnas_jax.networks.genotypes import Genotype, valid_cells
from isnas_jax.networks.hourglass import Hourglass
from isnas_jax.networks.searched import CellNetwork, SearchedNetwork, cell_network
from isnas_jax.networks.spaces import SPACES, Space, read_genotypes

__all__ = [
    "BASELINES",
    "SPACES",
    "CellNetwork",
    "Genotype",
    "Hourglass",
    "NetworkConfig",
    "SearchedNetwork",
    "Space",
    "build_network",
    "cell_network",
    "check_network",
    "describe",
    "interop",
    "network_for",
    "padded_side",
    "parse_architecture",
    "read_genotypes",
    "valid_cells",
]
