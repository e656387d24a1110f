"""States of a fit between its chunks, from which a refit can start."""

from typing import Any

import jax
import jax.numpy as jnp

from isnas_jax.fitting.result import Start
from isnas_jax.fitting.step import FitInputs, FitState, copy


class EarlierStates:
    """States between chunks, of which a refit will need one: see `refit`.

    Args:
      fraction: `FitConfig.refit_from`; 0 stores nothing.
    """

    def __init__(self, fraction: float) -> None:
        self.fraction = fraction
        self.states: dict[int, Start] = {}

    def _leave_at(self, state: FitState) -> int:
        return round(self.fraction * (int(state.restored_at) + 1))

    def _drop_before(self, iteration: int) -> None:
        """Drop all states before the latest that is not after an iteration."""
        for at in sorted(at for at in self.states if at <= iteration)[:-1]:
            del self.states[at]

    def add(self, state: FitState) -> None:
        """Store a state before its chunk runs, which donates it."""
        if self.fraction:
            self.states[int(state.iteration)] = copy(Start(state.variables, state.optimizer))
            self._drop_before(self._leave_at(state))

    def replay(self, state: FitState, inputs: FitInputs, advance: Any) -> Start | None:
        """Return the state at which a refit leaves a fit that ended with this state."""
        leave_at = self._leave_at(state)
        self._drop_before(leave_at)
        if not self.states or (first := min(self.states)) > leave_at:  # resumed after it
            return None
        begin = state._replace(
            iteration=jnp.array(first, jnp.int32),
            stopped=jnp.array(False),
            variables=self.states[first].variables,
            optimizer=self.states[first].optimizer_state,
        )
        numbers = inputs.numbers._replace(iterations=jnp.array(leave_at, jnp.int32))
        with jax.enable_x64(False):
            replayed, _ = advance(copy(begin), inputs._replace(numbers=numbers))
        return Start(replayed.variables, replayed.optimizer)
