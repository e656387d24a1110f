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

import dataclasses
import numbers
from typing import Any, ClassVar, NamedTuple, Protocol

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


@dataclasses.dataclass(frozen=True)
class FixedIterations:
    """Run all iterations and keep the last, as the published code does."""

    def init(self, problem: Problem, iterations: int) -> tuple[()]:
        del problem, iterations
        return ()

    def update(self, state, step):
        del step
        return state, Decision(jnp.array(True), jnp.array(False))


def count_iterations(value: float, iterations: int, largest: int | None = None) -> int:
    """Return a number of iterations: an int as it is, a float as a fraction of all of them."""
    if isinstance(value, numbers.Integral):
        return int(value)
    count = max(1, int(value * iterations + 1e-9))
    return count if largest is None else min(largest, count)


def _check_minimum(patience: float, margin: float, start: int = 0) -> None:
    _check_count("patience", patience, 1)
    if not 0 <= margin < 1:
        raise ValueError(f"margin {margin} must be in [0, 1)")
    if not (isinstance(start, numbers.Integral) and start >= 0):
        raise ValueError(f"start {start} must be an int of at least 0")


def _check_count(name: str, value: float, smallest: int) -> None:
    if not (value >= smallest if isinstance(value, numbers.Integral) else 0 < value < 1):
        raise ValueError(
            f"{name} {value} must be an int of at least {smallest} or a fraction between 0 and 1"
        )


@dataclasses.dataclass(frozen=True)
class WindowedVariance:
    """ES-WMV: stop at the first lasting minimum of the variance of recent outputs.

    Wang et al., "Early Stopping for Deep Image Prior", TMLR 2023, algorithm 1. Outputs change
    less and less while a fit approaches the image, and more again when it fits the noise. The
    criterion at iteration t is the variance over the last W outputs,

        1/W sum_(w < W) mean((x_(t-w) - window mean)**2).

    The published window and patience are meant for runs of several thousand iterations. The
    defaults reach them at 6000 iterations, and shrink with shorter runs.

    Attributes:
      window: W: an int, or a fraction of the iterations, then between 2 and the published 100.
      patience: Iterations without a new minimum before the stop: an int, or a fraction of the
        iterations, then at most the published 1000.
      start: Iterations before the first criterion, if more than W.
      margin: Fraction by which a new minimum must be lower than the last, in [0, 1).

    >>> isnas.FitConfig(600, stopping=isnas.WindowedVariance(patience=200)).stopping.patience
    200
    """

    window: float = 1 / 12
    patience: float = 1 / 6
    start: int = 0
    margin: float = 0.0

    def __post_init__(self) -> None:
        _check_count("window", self.window, 2)
        _check_minimum(self.patience, self.margin, self.start)

    def init(self, problem: Problem, iterations: int) -> tuple[jax.Array, Minimum]:
        window = max(2, count_iterations(self.window, iterations, 100))
        minimum = no_minimum(count_iterations(self.patience, iterations, 1000))
        return jnp.zeros((window, *problem.shape), jnp.float32), minimum

    def update(self, state, step):
        window, minimum = state
        size = len(window)
        window = window.at[step.iteration % size].set(step.output)
        full = step.iteration >= max(size - 1, self.start)
        variance = jnp.square(window - window.mean(axis=0, keepdims=True)).mean()
        minimum, decision = update_minimum(minimum, variance, full, step.iteration, self.margin)
        return (window, minimum), decision


@dataclasses.dataclass(frozen=True)
class MovingVariance:
    """ES-EMV: as `WindowedVariance`, with an exponentially weighted variance.

    Wang et al., TMLR 2023, algorithm 2: with d = mean((x - m)**2),

        m <- (1 - a) m + a x,    v <- (1 - a) (v + a d).

    Attributes:
      weight: a; published: 0.1.
      patience: As in `WindowedVariance`.
      start: Iterations before the first criterion, for v starts at 0: an int, or a fraction of
        the iterations, then between 2 and 100.
      margin: As in `WindowedVariance`.
    """

    weight: float = 0.1
    patience: float = 1 / 6
    start: float = 1 / 12
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < 1:
            raise ValueError(f"weight {self.weight} must be between 0 and 1, both excluded")
        _check_count("start", self.start, 0)
        _check_minimum(self.patience, self.margin)

    def init(self, problem: Problem, iterations: int) -> tuple[Any, ...]:
        start = count_iterations(self.start, iterations, 100)
        start = start if isinstance(self.start, numbers.Integral) else max(2, start)
        mean, variance = jnp.zeros(problem.shape, jnp.float32), jnp.zeros((), jnp.float32)
        minimum = no_minimum(count_iterations(self.patience, iterations, 1000))
        return mean, variance, jnp.array(start, jnp.int32), minimum

    def update(self, state, step):
        mean, variance, start, minimum = state
        mean = jnp.where(step.iteration == 0, step.output, mean)
        distance = jnp.square(step.output - mean).mean()
        variance = (1 - self.weight) * (variance + self.weight * distance)
        mean = (1 - self.weight) * mean + self.weight * step.output
        started = step.iteration >= start
        minimum, decision = update_minimum(minimum, variance, started, step.iteration, self.margin)
        return (mean, variance, start, minimum), decision


@dataclasses.dataclass(frozen=True)
class LeastValidation:
    """Keep the EMA with the lowest validation error.

    Attributes:
      patience: Iterations without a new minimum before the stop: an int, or a fraction of the
        iterations.
      smoothing: Decay of a moving average of the errors, in [0, 1); 0 takes them as they are.
      start: Iterations before the first criterion.
      margin: As in `WindowedVariance`.

    >>> config = isnas.FitConfig(800, stopping=isnas.LeastValidation(), split=isnas.HoldOut(0.1))
    >>> config.stopping.patience
    0.1
    """

    patience: float = 0.1
    smoothing: float = 0.9
    start: int = 0
    margin: float = 0.0
    needs_validation: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing {self.smoothing} must be in [0, 1)")
        _check_minimum(self.patience, self.margin, self.start)

    def init(self, problem: Problem, iterations: int) -> tuple[jax.Array, Minimum]:
        del problem
        return jnp.zeros((), jnp.float32), no_minimum(count_iterations(self.patience, iterations))

    def update(self, state, step):
        smoothed, minimum = state
        before = jnp.where(step.iteration == 0, step.validation, smoothed)
        smoothed = self.smoothing * before + (1 - self.smoothing) * step.validation
        started = step.has_validation & (step.iteration >= self.start)
        minimum, decision = update_minimum(minimum, smoothed, started, step.iteration, self.margin)
        return (smoothed, minimum), decision


@dataclasses.dataclass(frozen=True)
class Discrepancy:
    """The discrepancy principle (Morozov, 1966): stop when the loss is the variance of the noise.

    Attributes:
      factor: Multiple of that variance.
    """

    factor: float = 1.0

    def __post_init__(self) -> None:
        if not self.factor > 0:
            raise ValueError(f"factor {self.factor} must be positive")

    def init(self, problem: Problem, iterations: int) -> tuple[()]:
        del iterations
        if problem.sigma is None:
            raise ValueError("the discrepancy principle needs a problem with a known sigma")
        return ()

    def update(self, state, step):
        known = jnp.broadcast_to(step.problem.weights, step.problem.observed.shape).mean()
        variance = self.factor * jnp.square(step.problem.sigma / 255)
        noisy = variance > 0
        excess = step.loss / known / jnp.where(noisy, variance, 1)
        return state, Decision(jnp.array(True), noisy & (excess <= 1), excess, noisy)


@dataclasses.dataclass(frozen=True)
class RunToEnd:
    """Keep the iteration that another rule would restore with, and run to the end; for studies.

    Attributes:
      rule: The other rule.
      iterations: Largest length of a restoration by that rule.
    """

    rule: StoppingRule
    iterations: int

    @property
    def needs_validation(self) -> bool:
        """Whether the other rule needs it."""
        return needs_validation(self.rule)

    def init(self, problem: Problem, iterations: int) -> tuple[Any, jax.Array]:
        del iterations
        return self.rule.init(problem, self.iterations), jnp.array(False)

    def update(self, state, step):
        rule_state, stopped = state
        rule_state, decision = self.rule.update(rule_state, step)
        restoring = ~stopped & (step.iteration < self.iterations)
        kept = decision._replace(keep=decision.keep & restoring, stop=jnp.array(False))
        return (rule_state, stopped | decision.stop), kept
