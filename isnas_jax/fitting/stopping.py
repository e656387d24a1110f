"""Rules that choose the iteration to restore with, without the clean image.

A rule is a hashable object with

    init(problem) -> state
    update(state, step) -> state, Decision

both traceable; the state is a pytree of numeric arrays. The fit keeps the
exponential mean of the last iteration that the rule said to keep, and ends once
it says to stop. `STOPPING` makes rules from a run's largest number of
iterations; add your own.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from isnas_jax.problems import Problem
from isnas_jax.registry import Registry


class Step(NamedTuple):
    """What a rule sees of an iteration.

    Attributes:
      iteration: [] int32, from 0.
      output: [H, W, C], the network's image.
      mean: [H, W, C], the exponential mean of the outputs.
      loss: [], the problem's loss of the output, without further terms.
      validation: [], error of the mean on the validation problem; nan without one.
      problem: What the network is fitted to.
    """

    iteration: jax.Array
    output: jax.Array
    mean: jax.Array
    loss: jax.Array
    validation: jax.Array
    problem: Problem


class Decision(NamedTuple):
    """What a rule says after an iteration.

    Attributes:
      keep: Boolean scalar: this iteration is the best so far.
      stop: Boolean scalar: end the fit.
      criterion: Scalar recorded for the curves; nan before there is one.
    """

    keep: jax.Array
    stop: jax.Array
    criterion: jax.Array


class StoppingRule(Protocol):
    """See the module's docstring."""

    def init(self, problem: Problem) -> Any: ...

    def update(self, state: Any, step: Step) -> tuple[Any, Decision]: ...


@dataclasses.dataclass(frozen=True)
class FixedIterations:
    """Keeps the last iteration of a number given beforehand, as the published code does.

    Attributes:
      iterations: That number; by default, the fit's.
    """

    iterations: int | None = None

    def init(self, problem: Problem) -> tuple[()]:
        del problem
        return ()

    def update(self, state, step):
        last = jnp.array(False)
        if self.iterations is not None:
            last = step.iteration == self.iterations - 1
        return state, Decision(jnp.array(True), last, jnp.array(jnp.nan))


class WindowState(NamedTuple):
    """State of `WindowedVariance`: the last W outputs, and the smallest variance yet."""

    window: jax.Array  # [W, H, W, C]
    smallest: jax.Array  # []
    smallest_at: jax.Array  # [] int32


@dataclasses.dataclass(frozen=True)
class WindowedVariance:
    """ES-WMV: stop at the first lasting minimum of the outputs' moving variance.

    Wang et al., "Early Stopping for Deep Image Prior", TMLR 2023, algorithm 1.
    While a fit approaches the image its outputs change less and less; once it
    takes up the noise they change more. The criterion at iteration t is

        1/W sum_(w < W) mean((x_(t-w) - window mean)**2).

    Attributes:
      window: W, in iterations; published: 100.
      patience: Iterations without a new minimum before stopping; published: 1000.
    """

    window: int = 100
    patience: int = 1000

    def __post_init__(self) -> None:
        if self.window < 2 or self.patience < 1:
            raise ValueError(
                f"window {self.window} must be at least 2 and patience {self.patience} at least 1"
            )

    def init(self, problem: Problem) -> WindowState:
        window = jnp.zeros((self.window, *problem.shape))
        return WindowState(window, jnp.array(jnp.inf), jnp.array(0, jnp.int32))

    def update(self, state, step):
        iteration = step.iteration
        window = state.window.at[iteration % self.window].set(step.output)
        filled = iteration >= self.window - 1
        variance = jnp.where(filled, jnp.square(window - window.mean(axis=0)).mean(), jnp.nan)
        lower = variance < state.smallest
        smallest = jnp.where(lower, variance, state.smallest)
        smallest_at = jnp.where(lower, iteration, state.smallest_at)
        stop = filled & (iteration - smallest_at >= self.patience)
        decision = Decision(lower | ~filled, stop, variance)
        return WindowState(window, smallest, smallest_at), decision


class RunToEndState(NamedTuple):
    """State of `RunToEnd`: the rule's own, and whether it has stopped."""

    rule: Any
    stopped: jax.Array  # [] bool


@dataclasses.dataclass(frozen=True)
class RunToEnd:
    """Keeps what another rule restores with, and goes on to the last iteration: for studies.

    Attributes:
      rule: The other rule.
      iterations: The most iterations that a restoration by it would run.
    """

    rule: StoppingRule
    iterations: int

    def init(self, problem: Problem) -> RunToEndState:
        return RunToEndState(self.rule.init(problem), jnp.array(False))

    def update(self, state, step):
        rule, decision = self.rule.update(state.rule, step)
        restoring = ~state.stopped & (step.iteration < self.iterations)
        kept = decision._replace(keep=decision.keep & restoring, stop=jnp.array(False))
        return RunToEndState(rule, state.stopped | decision.stop), kept


def windowed_variance(iterations: int) -> WindowedVariance:
    """ES-WMV with window and patience in proportion to a run's length.

    Published for runs of several thousand iterations, they are kept from 6000
    iterations on and shrink with shorter runs, which overfit sooner.
    """
    return WindowedVariance(
        window=min(100, max(2, iterations // 12)), patience=min(1000, max(1, iterations // 6))
    )


STOPPING: Registry[Callable[[int], StoppingRule]] = Registry(
    "stopping rule", {"es-wmv": windowed_variance, "fixed": FixedIterations}
)
