"""Stopping rules: choose the iteration to restore with, without the clean image.

A rule is a hashable object with two methods that JAX can trace:

    init(problem, iterations) -> state
    update(state, step) -> state, Decision

The state is a pytree of numeric arrays; `iterations` is the largest length of the fit, an int.
The fit returns the exponential moving average (EMA) of the last iteration that the rule marked
with `keep`, and ends when the rule says `stop`. A rule with the attribute `needs_validation`
requires a validation problem. If that problem holds no measurements, as in a refit,
`step.has_validation` is False. Missing values are marked by such booleans, never by nan.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from isnas_jax.problems import Problem


class Step(NamedTuple):
    """One iteration, as a stopping rule sees it.

    Attributes:
      iteration: [] int32, from 0.
      output: [H, W, C], the network's image.
      ema: [H, W, C], the moving average of the outputs.
      loss: [], the problem's loss, without regularizers.
      validation: [], validation error of the EMA; 0 without one.
      has_validation: [] bool, whether there is a validation error.
      problem: The problem that is fitted.
    """

    iteration: jax.Array
    output: jax.Array
    ema: jax.Array
    loss: jax.Array
    validation: jax.Array
    has_validation: jax.Array
    problem: Problem


class Decision(NamedTuple):
    """The decision of a rule after an iteration.

    Attributes:
      keep: [] bool, this iteration is the best so far.
      stop: [] bool, end the fit.
      criterion: [], recorded in the curves; None for a rule without one.
      has_criterion: [] bool, whether there is one at this iteration; the curves hold nan elsewhere.
    """

    keep: Any
    stop: Any
    criterion: Any = None
    has_criterion: Any = True


class StoppingRule(Protocol):
    """See the module's docstring."""

    def init(self, problem: Problem, iterations: int) -> Any: ...

    def update(self, state: Any, step: Step) -> tuple[Any, Decision]: ...


def needs_validation(decision: Any) -> bool:
    """Return whether a rule, a selection or a combination uses validation errors."""
    return getattr(decision, "needs_validation", False)


class Minimum(NamedTuple):
    """The smallest criterion so far, and how long to wait for a smaller one."""

    value: jax.Array  # []
    iteration: jax.Array  # [] int32
    exists: jax.Array  # [] bool, whether there has been a criterion
    patience: jax.Array  # [] int32, in iterations


def no_minimum(patience: int) -> Minimum:
    """Return the state before the first criterion."""
    value, iteration = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
    return Minimum(value, iteration, jnp.array(False), jnp.array(patience, jnp.int32))


def update_minimum(
    minimum: Minimum,
    criterion: jax.Array,
    has_criterion: jax.Array,
    iteration: jax.Array,
    margin: float = 0.0,
) -> tuple[Minimum, Decision]:
    """Keep a criterion that is lower than the minimum by a margin; stop when patience ends.

    Until the first criterion, the latest iteration is kept. The margin is a fraction in [0, 1).
    """
    lower = criterion < (1 - margin) * minimum.value
    lower = has_criterion & (lower | ~minimum.exists)
    new = minimum._replace(
        value=jnp.where(lower, criterion, minimum.value),
        iteration=jnp.where(lower, iteration, minimum.iteration),
        exists=minimum.exists | has_criterion,
    )
    stop = new.exists & (iteration - new.iteration >= new.patience)
    return new, Decision(lower | ~new.exists, stop, criterion, has_criterion)
