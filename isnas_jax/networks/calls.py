"""The calls of modules inside a network: their inputs and outputs, observed or replaced.

Feature maps are NHWC.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax


class Call(NamedTuple):
    """A call of a module.

    Attributes:
      path: Names of the module and of those around it.
      module: The module.
      input: Its first argument.
      output: Its result.
    """

    path: tuple[str, ...]
    module: nn.Module
    input: jax.Array
    output: jax.Array


def module_calls(
    net: Any,
    variables: Any,
    z: jax.Array,
    change: Callable[[nn.Module, Any, Any], Any] = lambda module, x, output: output,
) -> tuple[jax.Array, list[Call]]:
    """Apply a network, and return its output and the calls of its modules.

    Args:
      net: The network.
      variables: Its variables.
      z: Its input.
      change: Returns what replaces the output of a module: (module, input, output) -> output.
    """
    calls = []

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        module = context.module
        output = change(module, args[0], call(*args, **kwargs))
        calls.append(Call(module.path, module, args[0], output))
        return output

    with nn.intercept_methods(intercept):
        output = net.apply(variables, z)
    return output, calls
