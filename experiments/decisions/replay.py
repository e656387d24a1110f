"""Replay the library's stopping rules on recorded curves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from isnas_jax.fitting import LeastValidation, Step, StoppingRule
from isnas_jax.problems import denoising


def replay(
    rule: StoppingRule, curve: np.ndarray, interval: int, *, sigma: float | None = None
) -> int:
    """Return the position of a recorded curve that a rule would restore with.

    The rule may read only the loss and the validation error of each step: both are the (N,) values
    of the curve, recorded at every `interval`-th iteration, nan where there was none.
    `LeastValidation` without smoothing replays the recorded criterion of any other rule.
    """
    # Curves are rounded to four digits. In single precision, smoothing them would end at the
    # first plateau of equal values.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        return int(_replay(rule, jnp.asarray(curve, jnp.float64), interval, sigma))


@functools.partial(jax.jit, static_argnames=("rule", "interval", "sigma"))
def _replay(rule, curve, interval, sigma):
    problem = denoising(np.zeros((1, 1, 1)), sigma)
    blank = problem.observed

    def advance(carry, position):
        state, restored_at, stopped = carry
        value = jnp.nan_to_num(curve[position])
        has_validation = ~jnp.isnan(curve[position])
        step = Step(position * interval, blank, blank, value, value, has_validation, problem)
        state, decision = rule.update(state, step)
        restored_at = jnp.where(decision.keep & ~stopped, position, restored_at)
        return (state, restored_at, stopped | decision.stop), None

    state = jax.tree.map(
        lambda leaf: leaf.astype(curve.dtype) if leaf.dtype == jnp.float32 else leaf,
        rule.init(problem, len(curve) * interval),
    )
    start = (state, jnp.int32(0), jnp.array(False))
    positions = jnp.arange(len(curve), dtype=jnp.int32)
    (_, restored_at, _), _ = jax.lax.scan(advance, start, positions)
    return restored_at


def least_validation(
    errors: np.ndarray, interval: int, iterations: int, smoothing: float = 0.9
) -> int:
    """Return the position of the lowest smoothed error, with the patience of the default rule.

    Args:
      errors: (N,) validation errors at every `interval`-th iteration.
      interval: Iterations between two errors. The smoothing spans them; the patience is
        rounded down to whole intervals.
      iterations: The most iterations of a fit; later errors are ignored.
      smoothing: Decay of the moving average of the errors, per iteration.
    """
    default = LeastValidation().init(denoising(np.zeros((1, 1, 1))), iterations)
    patience = max(1, int(default.minimum.patience) // interval * interval)
    rule = LeastValidation(patience, smoothing=smoothing**interval)
    return replay(rule, errors[: iterations // interval], interval)
