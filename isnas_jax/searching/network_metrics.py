"""Metrics of an untrained network itself, not of its output only.

A metric of images sees an observation and a random output. A network metric may also use gradients,
feature maps, and the problem's operator and weights.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

from isnas_jax import _programs
from isnas_jax.fitting import draw_noise_map
from isnas_jax.problems import Problem

_PROGRAMS = _programs.ProgramCache(8)

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
    net: Any,
    keys: Sequence[tuple[jax.Array, jax.Array, jax.Array]],
    problems: Sequence[Problem],
    metrics: Mapping[str, NetworkMetric],
) -> dict[str, np.ndarray]:
    """Compute metrics of a network, by one program for each kind of problem.

    Args:
      net: The network.
      keys: K keys of the noise map, the weights and the metrics.
      problems: P problems of one shape.
      metrics: Metrics by name.

    Returns:
      (P, K) float32 for each metric.

    Raises:
      ValueError: If a metric returns no scalar.
    """

    def measure(z_key, init_key, metric_key, problem):
        z = draw_noise_map(z_key, net, problem.shape)
        variables = net.init(init_key, z)
        return {
            name: metric(jax.random.clone(metric_key), net, variables, z, problem)
            for name, metric in metrics.items()
        }

    def compiled() -> Any:
        return jax.jit(measure, compiler_options=_programs.compiler_options())

    values = []
    for problem in problems:
        cache_key = net, tuple(metrics.items()), _programs.shapes(problem)
        program = _PROGRAMS.get(cache_key, compiled)
        values.append([program(*map(jax.random.clone, trio), problem) for trio in keys])
    for name, value in values[0][0].items():
        if value.shape != ():
            raise ValueError(f"metric {name!r} returns an array {value.shape}, not a scalar")
    return {
        name: np.array([[value[name] for value in row] for row in values], np.float32)
        for name in metrics
    }
