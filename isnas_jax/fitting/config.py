"""How a network is fitted: the config of fits, and regularizers."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import optax

from isnas_jax.fitting.stopping import FixedIterations, StoppingRule, needs_validation
from isnas_jax.problems import Problem, Split
from isnas_jax.registry import refuse_names, short_repr

# Takes the learning rate, which may be traced.
Optimizer: TypeAlias = Callable[[jax.Array], optax.GradientTransformation]


class Regularizer(Protocol):
    """A term added to a problem's loss: a hashable function that JAX can trace.

    It maps the network's image, float32 (H, W, C), and the problem to a scalar.
    """

    def __call__(self, output: jax.Array, problem: Problem) -> jax.Array: ...


@dataclasses.dataclass(frozen=True)
class TotalVariation:
    """Anisotropic total variation: weight * mean(abs(x(i + 1) - x(i))), rows plus columns.

    Liu et al., "Image Restoration Using Total Variation Regularized Deep Image Prior", ICASSP
    2019.

    >>> isnas.FitConfig(600, regularizers=(isnas.TotalVariation(0.01),)).regularizers
    (TotalVariation(weight=0.01),)
    """

    weight: float

    def __call__(self, output: jax.Array, problem: Problem) -> jax.Array:
        del problem
        rows, columns = (jnp.abs(jnp.diff(output, axis=axis)).mean() for axis in (0, 1))
        return self.weight * (rows + columns)


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """How a network is fitted. A change of a number compiles nothing again.

    Attributes:
      iterations: Largest number of iterations. A refit may take `refit_factor` times as many.
      stopping: Chooses the iteration to restore with, and when to stop.
      learning_rate: Learning rate of the optimizer.
      input_noise_std: Standard deviation of the normal noise added to z, drawn again at every
        iteration; published: 1/30.
      ema_decay: Decay of the exponential moving average, gamma of equation 4.
      debias: Correct the bias of the average: divide it by 1 - gamma^t (not in equation 4).
      optimizer: Maps the learning rate to an optax transformation.
      regularizers: Terms added to the problem's loss.
      split: Divides the measurements for validation; None fits all of them.
      folds: Number of splits that a search or a restoration fits. `fit` takes the first.
      refit_factor: Length of a refit, as a multiple of the iterations that validation chose.
      refit_from: Fraction of those iterations, in [0, 1), after which the refit leaves the
        trajectory of the validated fit; 0 starts from the initialization. See `refit`.
      snapshots: Iterations at which to store the average.
      chunk: Iterations between two reports; results do not depend on it.

    Raises:
      ValueError: If a value is outside of its range.
    """

    iterations: int
    stopping: StoppingRule = FixedIterations()
    learning_rate: float = 0.01
    input_noise_std: float = 1 / 30
    ema_decay: float = 0.99
    debias: bool = False
    optimizer: Optimizer = optax.adam
    regularizers: tuple[Regularizer, ...] = ()
    split: Split | None = None
    folds: int = 1
    refit_factor: float = 1.0
    refit_from: float = 0.0
    snapshots: tuple[int, ...] = ()
    chunk: int = dataclasses.field(default=50, metadata={"identity": False})

    @property
    def validates(self) -> bool:
        """Whether fits to parts of the measurements choose the length of a refit."""
        return self.split is not None and needs_validation(self.stopping)

    def unsplit(self) -> "FitConfig":
        """Return the config of a fit to a problem that has been split already."""
        return dataclasses.replace(self, split=None, folds=1, refit_factor=1.0)

    def __post_init__(self) -> None:
        functions: dict[str, Any] = {"optimizer": self.optimizer, "split": self.split}
        refuse_names(stopping=self.stopping, regularizers=self.regularizers, **functions)
        is_rule = hasattr(self.stopping, "init") and hasattr(self.stopping, "update")
        if isinstance(self.stopping, type) or not is_rule:
            raise ValueError(
                f"stopping {short_repr(self.stopping)} is not a stopping rule; "
                "isnas_jax.LeastValidation() is one"
            )
        if type(self.stopping).__hash__ is None:
            raise ValueError(
                f"stopping {short_repr(self.stopping)} cannot be hashed; a dataclass must be frozen"
            )
        object.__setattr__(self, "regularizers", tuple(self.regularizers))
        object.__setattr__(self, "snapshots", tuple(dict.fromkeys(self.snapshots)))
        functions |= {f"regularizer {term!r}": term for term in self.regularizers}
        for name, function in functions.items():
            if function is not None and not callable(function):
                raise ValueError(f"{name} must be a function, not {short_repr(function)}")
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
