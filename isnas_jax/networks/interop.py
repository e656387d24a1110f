"""Conversion of the published PyTorch weights to variables of these networks."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from isnas_jax.networks.architectures import Hourglass, SearchedNetwork
from isnas_jax.networks.blocks import SMALLEST_SIDE
from isnas_jax.networks.genotypes import decode_cell

# Indices inside the published modules. Outside of cells, a convolution is item 1 of a
# sequence, after its padding.
_ENCODER = {"down.conv": "0.1", "down.norm": "1", "block.conv": "3.1", "block.norm": "4"}
_SKIP = {"conv": "0.1", "norm": "1"}
_DECODER = {
    "norm": "0",
    "block1.conv": "1.1",
    "block1.norm": "2",
    "block2.conv": "4.1",
    "block2.norm": "5",
    "block3.conv": "7.1",
    "block3.norm": "8",
}
_HOURGLASS = {
    "skip": {"conv": "1.0.1.1", "norm": "1.0.2"},
    "enc": {
        "down.conv": "1.1.1.1",
        "down.norm": "1.1.2",
        "block.conv": "1.1.4.1",
        "block.norm": "1.1.5",
    },
    "dec": {
        "norm": "2",
        "block1.conv": "3.1",
        "block1.norm": "4",
        "block2.conv": "6.1",
        "block2.norm": "7",
    },
}


def _searched_name(net: SearchedNetwork, module: str, inner: str) -> str:
    if module.startswith(("up", "skip_up")):
        resampling_first = net.genotype.cell < 252
        return f"{module}.op.{int(resampling_first)}.op.{int(inner == 'pointwise')}"
    if module == "output":
        return "output.op.0.1"
    indices = {"enc": _ENCODER, "dec": _DECODER}.get(module[:3], _SKIP)
    return f"{module}.op.{indices[inner]}"


def _hourglass_name(module: str, inner: str) -> str:
    if module == "output":
        return "9.1"
    kind, level = module[:-1], int(module[-1])
    return "1.1.7." * (level - 1) + _HOURGLASS[kind][inner]


def _is_transposed(net: SearchedNetwork | Hourglass, module: str) -> bool:
    if isinstance(net, Hourglass) or not module.startswith(("up", "skip_up")):
        return False
    return decode_cell(net.genotype.cell).convolution == "transposed"


def from_torch_state_dict(
    net: SearchedNetwork | Hourglass, state: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Convert a published state dict to Flax variables.

    Args:
      net: The network that the weights belong to.
      state: Arrays by published parameter name; convolutions are OIHW, transposed ones IOHW.
        Entries that the network does not use, such as those of absent skips, are ignored.

    Returns:
      Variables for `net.apply`, float32.

    Raises:
      ValueError: If a weight is missing or has the wrong shape.
    """
    first = "1.1.1.1.weight" if isinstance(net, Hourglass) else "enc1.op.0.1.weight"
    if first not in state:
        raise ValueError(f"the state dict has no {first!r}; does it belong to another network?")
    x = jax.ShapeDtypeStruct((1, SMALLEST_SIDE, SMALLEST_SIDE, state[first].shape[1]), jnp.float32)
    shapes = jax.eval_shape(net.init, jax.random.key(0), x)["params"]
    params = {}
    for path, shape in traverse_util.flatten_dict(shapes).items():
        module, inner, leaf = path[0], ".".join(path[1:-1]), path[-1]
        if isinstance(net, Hourglass):
            prefix = _hourglass_name(module, inner)
        else:
            prefix = _searched_name(net, module, inner)
        name = f"{prefix}.{'bias' if leaf == 'bias' else 'weight'}"
        if name not in state:
            raise ValueError(f"the state dict has no {name!r}")
        value = np.asarray(state[name], np.float32)
        if leaf == "kernel" and _is_transposed(net, module):
            value = value[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)
        elif leaf == "kernel":
            value = value.transpose(2, 3, 1, 0)
        if value.shape != shape.shape:
            raise ValueError(f"{name!r} has shape {value.shape}; it must have {shape.shape}")
        params[path] = jnp.asarray(value)
    return {"params": traverse_util.unflatten_dict(params)}
