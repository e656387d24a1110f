"""Genotypes, search spaces, the networks built from them, and conversion of published weights."""

from isnas_jax.networks import interop
from isnas_jax.networks.architectures import (
    CellNetwork,
    Hourglass,
    SearchedNetwork,
    cell_network,
)
from isnas_jax.networks.blocks import padded_side
from isnas_jax.networks.build import (
    Baseline,
    NetworkConfig,
    build_network,
    check_network,
    describe,
    dip,
    nas_dip,
    network_for,
)
from isnas_jax.networks.calls import Call, module_calls
from isnas_jax.networks.genotypes import Genotype, valid_cells
from isnas_jax.networks.spaces import (
    Space,
    free_space,
    light_space,
    read_genotypes,
    sample_genotypes,
    toeplitz_space,
)

__all__ = [
    "Baseline",
    "Call",
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
    "dip",
    "free_space",
    "interop",
    "light_space",
    "module_calls",
    "nas_dip",
    "network_for",
    "padded_side",
    "read_genotypes",
    "sample_genotypes",
    "toeplitz_space",
    "valid_cells",
]
