"""Rules that choose the iteration to restore with, without the clean image.

A rule is a hashable object with

    init(problem) -> state
    update(state, step) -> state, Decision

both traceable; the state is a pytree of numeric arrays. No value is ever nan or
infinite to say that there is none: a boolean says so. A rule with the attribute
`needs_validation` is used with a validation problem only; where that holds no
measurements, as in a refit, `has_validation` is False and the rule does not stop.
The fit keeps the exponential mean of the last iteration that the rule said to
keep, and ends once it says to stop. `STOPPING` makes rules from a run's largest number of
iterations; add your own.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from isnas_jax.problems import Problem
from isnas_jax.registry import Registry


class Step(NamedTuple):
    """What a rule sees of an iteration.

    Attributes:
      iteration: [] int32, from 0.
      output: [H, W, C], the network's image.
      ema: [H, W, C], the exponential mean of the outputs.
      loss: [], the problem's loss of the output, without further terms.
      validation: [], error of the mean on the validation problem; 0 without one.
      has_validation: Boolean scalar: whether there is such an error.
      problem: What the network is fitted to.
    """

    iteration: jax.Array
    output: jax.Array
    ema: jax.Array
    loss: jax.Array
    validation: jax.Array
    has_validation: jax.Array
    problem: Problem


class Decision(NamedTuple):
    """What a rule says after an iteration.

    Attributes:
      keep: Boolean scalar: this iteration is the best so far.
      stop: Boolean scalar: end the fit.
      criterion: Scalar recorded for the curves, or None for a rule without one.
      has_criterion: Boolean scalar: whether there is one at this iteration; where
        there is none, the curves hold nan.
    """

    keep: Any
    stop: Any
    criterion: Any = None
    has_criterion: Any = True


class StoppingRule(Protocol):
    """See the module's docstring."""

    def init(self, problem: Problem) -> Any: ...

    def update(self, state: Any, step: Step) -> tuple[Any, Decision]: ...


def needs_validation(decide: Any) -> bool:
    """Whether a rule, or another decision, looks at the errors on a validation problem."""
    return getattr(decide, "needs_validation", False)


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
        return state, Decision(jnp.array(True), last)


class Smallest(NamedTuple):
    """The smallest criterion yet."""

    value: jax.Array  # []
    at: jax.Array  # [] int32
    begun: jax.Array  # [] bool: whether there has been a criterion


def _none_yet() -> Smallest:
    return Smallest(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32), jnp.array(False))


def _judge(
    smallest: Smallest,
    criterion: jax.Array,
    has_criterion: jax.Array,
    iteration: jax.Array,
    rule: Any,
) -> tuple[Smallest, Decision]:
    """Keep what is lower than the smallest yet by the rule's margin; stop after its patience.

    Until the first criterion, the latest iteration is kept.
    """
    lower = criterion < (1 - rule.margin) * smallest.value
    lower = has_criterion & (lower | ~smallest.begun)
    new = Smallest(
        jnp.where(lower, criterion, smallest.value),
        jnp.where(lower, iteration, smallest.at),
        smallest.begun | has_criterion,
    )
    stop = new.begun & (iteration - new.at >= rule.patience)
    return new, Decision(lower | ~new.begun, stop, criterion, has_criterion)


def _check_patience(patience: int, margin: float, start: int) -> None:
    if patience < 1 or not 0 <= margin < 1 or start < 0:
        raise ValueError(
            f"patience {patience} must be at least 1, margin {margin} in [0, 1) and start {start} "
            "not negative"
        )


class WindowState(NamedTuple):
    """State of `WindowedVariance`."""

    window: jax.Array  # [W, H, W, C] the last outputs
    smallest: Smallest


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
      start: Iterations before the first criterion, if more than W; published: 0.
      margin: By which share a new minimum must be lower than the last; published: 0.
    """

    window: int = 100
    patience: int = 1000
    start: int = 0
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.window < 2:
            raise ValueError(f"window {self.window} must be at least 2")
        _check_patience(self.patience, self.margin, self.start)

    def init(self, problem: Problem) -> WindowState:
        return WindowState(jnp.zeros((self.window, *problem.shape), jnp.float32), _none_yet())

    def update(self, state, step):
        iteration = step.iteration
        window = state.window.at[iteration % self.window].set(step.output)
        filled = iteration >= max(self.window - 1, self.start)
        variance = jnp.square(window - window.mean(axis=0, keepdims=True)).mean()
        smallest, decision = _judge(state.smallest, variance, filled, iteration, self)
        return WindowState(window, smallest), decision


class MovingState(NamedTuple):
    """State of `MovingVariance`."""

    mean: jax.Array  # [H, W, C] of the outputs
    variance: jax.Array  # []
    smallest: Smallest


@dataclasses.dataclass(frozen=True)
class MovingVariance:
    """ES-EMV: as `WindowedVariance`, with an exponential variance instead of a window's.

    Wang et al., TMLR 2023, algorithm 2: with d = mean((x - m)**2),

        m <- (1 - a) m + a x,    v <- (1 - a) (v + a d).

    Attributes:
      weight: a; published: 0.1.
      patience: Iterations without a new minimum before stopping; published: 1000.
      start: Iterations before the first criterion, for v starts at 0.
      margin: By which share a new minimum must be lower than the last.
    """

    weight: float = 0.1
    patience: int = 1000
    start: int = 100
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < 1:
            raise ValueError(f"weight {self.weight} must be between 0 and 1, both excluded")
        _check_patience(self.patience, self.margin, self.start)

    def init(self, problem: Problem) -> MovingState:
        blank = jnp.zeros(problem.shape, jnp.float32)
        return MovingState(blank, jnp.zeros((), jnp.float32), _none_yet())

    def update(self, state, step):
        mean = jnp.where(step.iteration == 0, step.output, state.mean)
        distance = jnp.square(step.output - mean).mean()
        variance = (1 - self.weight) * (state.variance + self.weight * distance)
        mean = (1 - self.weight) * mean + self.weight * step.output
        started = step.iteration >= self.start
        smallest, decision = _judge(state.smallest, variance, started, step.iteration, self)
        return MovingState(mean, variance, smallest), decision


class ValidationState(NamedTuple):
    """State of `LeastValidation`."""

    smoothed: jax.Array  # []
    smallest: Smallest


@dataclasses.dataclass(frozen=True)
class LeastValidation:
    """Keeps the mean whose error on the validation problem is least.

    Attributes:
      patience: Iterations without a new minimum before stopping.
      smoothing: Decay of an exponential mean of the errors; 0 takes them as they are.
      start: Iterations before the first criterion.
      margin: By which share a new minimum must be lower than the last.
    """

    patience: int = 1000
    smoothing: float = 0.0
    start: int = 0
    margin: float = 0.0
    needs_validation: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing {self.smoothing} must be in [0, 1)")
        _check_patience(self.patience, self.margin, self.start)

    def init(self, problem: Problem) -> ValidationState:
        del problem
        return ValidationState(jnp.zeros((), jnp.float32), _none_yet())

    def update(self, state, step):
        before = jnp.where(step.iteration == 0, step.validation, state.smoothed)
        smoothed = self.smoothing * before + (1 - self.smoothing) * step.validation
        started = step.has_validation & (step.iteration >= self.start)
        smallest, decision = _judge(state.smallest, smoothed, started, step.iteration, self)
        return ValidationState(smoothed, smallest), decision


@dataclasses.dataclass(frozen=True)
class Discrepancy:
    """The discrepancy principle (Morozov, 1966): stop once the loss is the noise's variance.

    Attributes:
      factor: Of that variance.
    """

    factor: float = 1.0

    def __post_init__(self) -> None:
        if not self.factor > 0:
            raise ValueError(f"factor {self.factor} must be positive")

    def init(self, problem: Problem) -> tuple[()]:
        if problem.sigma is None:
            raise ValueError("the discrepancy principle needs a problem that knows its sigma")
        return ()

    def update(self, state, step):
        known = jnp.broadcast_to(step.problem.weights, step.problem.observed.shape).mean()
        variance = self.factor * jnp.square(step.problem.sigma / 255)
        noisy = variance > 0
        excess = step.loss / known / jnp.where(noisy, variance, 1)
        return state, Decision(jnp.array(True), noisy & (excess <= 1), excess, noisy)


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

    @property
    def needs_validation(self) -> bool:
        """Whether the other rule does."""
        return needs_validation(self.rule)

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


def moving_variance(iterations: int) -> MovingVariance:
    """ES-EMV in proportion to a run's length, as `windowed_variance`."""
    window = windowed_variance(iterations)
    return MovingVariance(patience=window.patience, start=window.window)


def least_validation(iterations: int) -> LeastValidation:
    """Least smoothed validation error, until a tenth of the iterations brought no less."""
    return LeastValidation(patience=max(1, iterations // 10), smoothing=0.9)


def discrepancy(iterations: int) -> Discrepancy:
    """The discrepancy principle, whatever the length of a run."""
    del iterations
    return Discrepancy()


STOPPING: Registry[Callable[[int], StoppingRule]] = Registry(
    "stopping rule",
    {
        "es-wmv": windowed_variance,
        "es-emv": moving_variance,
        "validation": least_validation,
        "discrepancy": discrepancy,
        "fixed": FixedIterations,
    },
)
