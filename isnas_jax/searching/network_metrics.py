"""Metrics of an untrained network itself, not of its output only.

A metric of images sees an observation and a random output. A network metric may also use gradients,
feature maps, and the problem's operator and weights.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from isnas_jax import _programs
from isnas_jax.fitting import draw_noise_map
from isnas_jax.networks.blocks import padded_side
from isnas_jax.problems import Problem
from isnas_jax.searching.initializations import RandomInits

# Elements of the noise maps of problems and initializations that are computed together.
_LARGEST = 2**23

Function: TypeAlias = Callable[[jax.Array, Any, Any, jax.Array, Problem], jax.Array]


@dataclasses.dataclass(frozen=True)
class NetworkMetric:
    """A metric of an untrained network and a problem.

    Attributes:
      function: A function (key, net, variables, z, problem) -> scalar that JAX can trace; lower is
        better. `variables` are those of one random initialization, z (1, H', W', I) is its noise
        map, and the key is for the metric's own draws.
    """

    function: Function

    def __call__(
        self, key: jax.Array, net: Any, variables: Any, z: jax.Array, problem: Problem
    ) -> jax.Array:
        """Return the metric, a scalar."""
        return self.function(key, net, variables, z, problem)


def score_network(
    key: jax.Array,
    net: Any,
    problems: Sequence[Problem],
    metrics: Mapping[str, NetworkMetric],
    inits: RandomInits,
) -> dict[str, np.ndarray]:
    """Compute metrics of a network, operation by operation.

    Networks share the programs of single operations. A program of a whole metric would have to be
    compiled for each network, which takes ten times as long as its operations.

    Args:
      key: Random key.
      net: The network.
      problems: P problems of one shape.
      metrics: Metrics by name.
      inits: The random initializations, K of them.

    Returns:
      (P, K) float32 for each metric.

    Raises:
      ValueError: If a metric returns no scalar.
    """
    groups: dict[Any, list[int]] = {}
    for position, problem in enumerate(problems):
        groups.setdefault(_programs.shapes(problem), []).append(position)
    scores = {name: np.zeros((len(problems), inits.num), np.float32) for name in metrics}
    for group in groups.values():
        size = math.prod(map(padded_side, problems[0].shape[:2])) * net.in_channels
        at_once = max(1, _LARGEST // (len(group) * size))
        for first in range(0, inits.num, at_once):
            indices = np.arange(first, min(first + at_once, inits.num))
            values = _measure(key, net, [problems[each] for each in group], metrics, inits, indices)
            for name, array in jax.device_get(values).items():
                scores[name][np.ix_(np.array(group), indices)] = array.T
    return scores


def _measure(
    key: jax.Array,
    net: Any,
    problems: Sequence[Problem],
    metrics: Mapping[str, NetworkMetric],
    inits: RandomInits,
    indices: np.ndarray,
) -> dict[str, jax.Array]:
    """Return (K, P) for each metric, of problems with leaves of the same shapes."""

    def measure(index):
        z_key, init_key = inits.keys(key, index)
        metric_key = jax.random.fold_in(jax.random.fold_in(key, 2), index)
        z = draw_noise_map(z_key, net, problems[0].shape)
        variables = net.init(init_key, z)

        def of_problem(problem):
            return {name: value(name, metric_key, variables, z, problem) for name in metrics}

        return jax.vmap(of_problem)(jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems))

    def value(name, metric_key, *arguments):
        result = metrics[name](jax.random.clone(metric_key), net, *arguments)
        if (shape := jnp.shape(result)) != ():
            raise ValueError(f"metric {name!r} returns an array {shape}, not a scalar")
        return result

    return jax.vmap(measure)(indices)
