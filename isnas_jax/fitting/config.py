"""How a network is fitted: the one description of it that everything takes."""

import dataclasses
import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import optax

from isnas_jax.fitting.regularizers import Regularizer
from isnas_jax.fitting.stopping import FixedIterations, StoppingRule
from isnas_jax.problems import Split
from isnas_jax.registry import Registry, refuse_names, shown

# Takes the learning rate, which may be traced.
Optimizer: TypeAlias = Callable[[jax.Array], optax.GradientTransformation]

OPTIMIZERS: Registry[Optimizer] = Registry("optimizer", {"adam": optax.adam})


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """How a network is fitted. Numbers may change without anything being compiled again.

    Attributes:
      iterations: The most iterations to run; a refit may take refit_factor times
        as many.
      stopping: When to stop and which iteration to restore with.
      learning_rate: The optimizer's.
      input_noise_std: Standard deviation of the normal noise that is added to z
        afresh at every iteration; published: 1/30.
      ema_decay: Gamma of the exponential mean (equation 4).
      optimizer: From the learning rate to optax's (init, update).
      regularizers: What is added to the problem's loss.
      split: Leaves measurements out of the fit to validate with.
      folds: How many parts, by the split's folds, a cohort or a restoration fits
        before the whole; `fit` takes the first.
      refit_factor: How many times as long as a part was validated for the whole
        is fitted: see `refit`.
      refit_from: Fraction of the iterations that a validated fit chose after which a
        refit leaves its trajectory, in [0, 1); 0 starts again from the
        initialization. See `refit`.
      debias: Divide the exponential mean by 1 - gamma^t, as if it had not
        begun at the first output (not in equation 4).
      snapshots: Iterations whose mean to return.
      chunk: Iterations between reports; nothing else depends on it.

    Raises:
      ValueError: For numbers that cannot be.
    """

    iterations: int
    stopping: StoppingRule = FixedIterations()
    learning_rate: float = 0.01
    input_noise_std: float = 1 / 30
    ema_decay: float = 0.99
    optimizer: Optimizer = optax.adam
    regularizers: tuple[Regularizer, ...] = ()
    split: Split | None = None
    folds: int = 1
    refit_factor: float = 1.0
    refit_from: float = 0.0
    debias: bool = False
    snapshots: tuple[int, ...] = ()
    chunk: int = dataclasses.field(default=50, metadata={"identity": False})

    def __post_init__(self) -> None:
        refuse_names(
            stopping=self.stopping,
            optimizer=self.optimizer,
            regularizers=self.regularizers,
            split=self.split,
        )
        if not (hasattr(self.stopping, "init") and hasattr(self.stopping, "update")):
            raise ValueError(
                f"stopping {shown(self.stopping)} is no rule; "
                'isnas_jax.STOPPING["validation"](iterations) makes one'
            )
        for name in ("regularizers", "snapshots"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for choice in (self.optimizer, *self.regularizers, self.split):
            if choice is not None and not callable(choice):
                raise ValueError(
                    f"an optimizer, a term and a split are functions, not {shown(choice)}"
                )
        for name in ("iterations", "folds", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        if not 0 < self.refit_factor < math.inf:
            raise ValueError(f"refit_factor {self.refit_factor} must be positive")
        if not 0 <= self.refit_from < 1:
            raise ValueError(f"refit_from {self.refit_from} must be at least 0 and below 1")
        if not (
            0 < self.learning_rate < math.inf
            and 0 <= self.input_noise_std < math.inf
            and 0 <= self.ema_decay < 1
        ):
            raise ValueError(
                f"learning_rate {self.learning_rate} must be positive, input_noise_std "
                f"{self.input_noise_std} not negative and ema_decay {self.ema_decay} in [0, 1)"
            )
