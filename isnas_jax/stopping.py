"""Rules that choose the iteration to restore with, from the outputs alone.

A rule never sees the clean image. It is a hashable object with

    init(shape) -> state
    update(state, iteration, output) -> state, Decision

both traceable; `iteration` counts from 0 and `output` is the network's image
(H, W, C). The fit keeps the exponential mean of the last iteration that the
rule said to keep, and ends once it says to stop.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp


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

    def init(self, shape: tuple[int, int, int]) -> Any: ...

    def update(
        self, state: Any, iteration: jax.Array, output: jax.Array
    ) -> tuple[Any, Decision]: ...


@dataclasses.dataclass(frozen=True)
class FixedIterations:
    """Keeps the last iteration of a number given beforehand, as the published code does.

    Attributes:
      iterations: That number; by default, the fit's.
    """

    iterations: int | None = None

    def init(self, shape: tuple[int, int, int]) -> tuple[()]:
        del shape
        return ()

    def update(self, state, iteration, output):
        del output
        last = jnp.array(False) if self.iterations is None else iteration == self.iterations - 1
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

    def init(self, shape: tuple[int, int, int]) -> WindowState:
        return WindowState(
            jnp.zeros((self.window, *shape)), jnp.array(jnp.inf), jnp.array(0, jnp.int32)
        )

    def update(self, state, iteration, output):
        window = state.window.at[iteration % self.window].set(output)
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
    """Keeps what another rule restores with, and goes on to the last iteration: for studies."""

    rule: StoppingRule

    def init(self, shape: tuple[int, int, int]) -> RunToEndState:
        return RunToEndState(self.rule.init(shape), jnp.array(False))

    def update(self, state, iteration, output):
        rule, decision = self.rule.update(state.rule, iteration, output)
        kept = decision._replace(keep=decision.keep & ~state.stopped, stop=jnp.array(False))
        return RunToEndState(rule, state.stopped | decision.stop), kept


def windowed_variance(iterations: int) -> WindowedVariance:
    """ES-WMV with window and patience in proportion to a run's length.

    Published for runs of several thousand iterations, they are kept from 6000
    iterations on and shrink with shorter runs, which overfit sooner.
    """
    return WindowedVariance(
        window=min(100, max(2, iterations // 12)), patience=min(1000, max(1, iterations // 6))
    )


# Each takes the largest number of iterations of the run.
STOPPING: dict[str, Callable[[int], StoppingRule]] = {
    "es-wmv": windowed_variance,
    "fixed": FixedIterations,
}


def find(name: str) -> Callable[[int], StoppingRule]:
    """The rule of this name; ValueError with the valid names."""
    if name not in STOPPING:
        raise ValueError(
            f"stopping rule {name!r} does not exist; choose from {', '.join(STOPPING)}"
        )
    return STOPPING[name]
