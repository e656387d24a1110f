"""Random initializations, and the outputs of untrained networks.

Images are float32 (H, W, C) in [0, 1].
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from isnas_jax import _keys, _programs
from isnas_jax.fitting import draw_noise_map
from isnas_jax.networks import SearchedNetwork, check_network
from isnas_jax.searching._shared_forward import PROGRAMS, Shared, forward

# Outputs that an accelerator computes together.
BATCH = 16


@dataclasses.dataclass(frozen=True)
class RandomInits:
    """The random initializations at which an untrained network is evaluated.

    Attributes:
      num: Number of initializations, K. The first n do not depend on K.
      shared_weights: Draw the weights once for all K outputs, so that only the noise map z
        differs between them, as the published dataset study did.
      batch: Number of outputs computed together; by default 1 on CPUs, 16 elsewhere.

    Raises:
      ValueError: If a number is below 1.
    """

    num: int = 1
    shared_weights: bool = False
    batch: int | None = None

    def __post_init__(self) -> None:
        if self.num < 1 or (self.batch is not None and self.batch < 1):
            raise ValueError(
                f"the number of initializations {self.num} and the batch {self.batch} must be at "
                "least 1"
            )

    def batches(self) -> list[np.ndarray]:
        """Return the indices of the initializations, by batch."""
        size = self.batch or (1 if jax.default_backend() == "cpu" else BATCH)
        return [np.arange(first, min(first + size, self.num)) for first in range(0, self.num, size)]

    def keys(self, key: jax.Array, index: Any) -> tuple[jax.Array, jax.Array]:
        """Return the keys of the noise map and of the weights of one initialization."""
        z_key = jax.random.fold_in(jax.random.fold_in(key, 0), index)
        drawn = 0 if self.shared_weights else index
        return z_key, jax.random.fold_in(jax.random.fold_in(key, 1), drawn)


def stacked(function: Callable[[Any], Any], indices: np.ndarray) -> Any:
    """Apply a function to each index and stack the results; vectorized for several."""
    if len(indices) > 1:
        return jax.vmap(function)(indices)
    return jax.tree.map(lambda value: value[None], function(indices[0]))


def untrained_output(net: Any, shared: Shared) -> jax.Array:
    """Return the output (1, H', W', C) of an untrained network."""
    if isinstance(net, SearchedNetwork):
        return forward(net, shared)

    def make():
        return jax.jit(lambda key, z: net.init_with_output(key, z)[0])

    arguments = shared.key, shared.z
    return PROGRAMS.get((net, _programs.shapes(*arguments)), make)(*arguments)


def random_outputs(
    key: jax.Array, net: Any, shape: Sequence[int], inits: RandomInits = RandomInits()
) -> jax.Array:
    """Return outputs (K, H, W, C) of an untrained network.

    Args:
      key: Random key of noise maps and weights.
      net: A network.
      shape: (H, W, C) of the images.
      inits: The random initializations, K of them.
    """
    _keys.check(key)
    check_network(net)

    def output(index):
        z_key, init_key = inits.keys(key, index)
        shared = Shared(init_key, draw_noise_map(z_key, net, shape))
        return untrained_output(net, shared)[0, : shape[0], : shape[1]]

    with jax.enable_x64(False):
        return jnp.concatenate([stacked(output, indices) for indices in inits.batches()])
