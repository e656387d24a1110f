"""What is known of an image: an observation, the operator it came through, its weights.

Images are float32 (H, W, C) in [0, 1]. Every task fits a network to an
observation y by

    mean(weights * (A(x) - y)**2),

where x is the network's image; tasks differ by their operator A and by the
weights of the measurements, which are 0 where nothing is known.
"""

import dataclasses
import numbers
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from isnas_jax.problems import pixels
from isnas_jax.registry import shown

FACTORS = (2, 4, 8)

# Takes pixels (h, w, c), of an observation or of weights, to fewer of them.
Cut: TypeAlias = Callable[[jax.Array], jax.Array]


class Operator(Protocol):
    """The forward operator A: a pytree, so that its arrays pass through jit and vmap.

    An operator that serves a part of the observation too has a method
    `cut(cut)`, which returns the operator of that part, maps it holds being
    cut like the observation. One without it has no smaller problem.
    """

    def __call__(self, image: jax.Array) -> jax.Array: ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Problem:
    """One image to restore: a pytree, so it can be passed through jit and vmap.

    Attributes:
      observed: y, the corrupted image, (h, w, C) float32.
      operator: A, from an image (H, W, C) to (h, w, C).
      weights: Of the measurements, (h, w, 1) or (h, w, C) float32, not
        negative; 0 where a measurement is missing.
      sigma: [] standard deviation of the noise in gray levels (0 to 255), or
        None where it is not known.
      shape: (H, W, C) of the image to restore.
      task: What kind of problem it is, as a rule a name in `TASKS`.
    """

    observed: jax.Array
    operator: Operator
    weights: jax.Array
    sigma: jax.Array | None
    shape: tuple[int, int, int] = dataclasses.field(metadata={"static": True})
    task: str = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(
        cls,
        observed: Any,
        operator: Operator,
        *,
        task: str,
        weights: Any = None,
        sigma: float | None = None,
        shape: tuple[int, int, int] | None = None,
    ) -> "Problem":
        """Checks an observation and poses its problem.

        Args:
          observed: Floats (h, w, C), C = 1 or 3, from 0 to 1 but for noise; 0 is put
            where the weight is 0.
          operator: A.
          task: What kind of problem it is.
          weights: (h, w), (h, w, 1) or (h, w, C), not negative; 1 by default.
          sigma: Of the noise in gray levels, if known.
          shape: (H, W, C) of the image; that of the observation by default.

        Raises:
          ValueError: For shapes and values that cannot be.
        """
        observed = pixels.image(observed)
        size = observed.shape[:2]
        if weights is None:
            weights = np.ones((*size, 1), np.float32)
        weights = pixels.array(weights, "the weights")
        weights = weights[..., None] if weights.ndim == 2 else weights
        if weights.shape not in (observed.shape, (*size, 1)):
            raise ValueError(
                f"weights of shape {weights.shape} for an observation of shape {observed.shape}"
            )
        if not (np.isfinite(weights) & (weights >= 0)).all() or not weights.any():
            raise ValueError("weights must be finite, not negative, and not all 0")
        pixels.check_values(observed, weights > 0)
        observed = np.where(weights > 0, observed, np.float32(0))
        strength = None if sigma is None else jnp.asarray(check_sigma(sigma), jnp.float32)
        shape = shape or observed.shape
        return cls(jnp.asarray(observed), operator, jnp.asarray(weights), strength, shape, task)

    def __repr__(self) -> str:
        height, width, channels = self.shape
        return f"Problem of {self.task}: an image of {height} x {width} x {channels}"

    def residual(self, image: jax.Array) -> jax.Array:
        """(A(x) - y)**2 of an image (H, W, C), weighted: (h, w, C)."""
        return self.weights * jnp.square(self.operator(image) - self.observed)

    def loss(self, image: jax.Array) -> jax.Array:
        """What a network is fitted by: the mean of the residual over all of (h, w, C)."""
        return self.residual(image).mean()

    @property
    def measured(self) -> jax.Array:
        """Boolean scalar: whether any measurement has a weight."""
        return (self.weights > 0).any()

    def error(self, image: jax.Array) -> jax.Array:
        """The weighted mean of (A(x) - y)**2: comparable whatever share of the weights is 0.

        0 for a problem that is not `measured`.
        """
        total = jnp.broadcast_to(self.weights, self.observed.shape).sum()
        return self.residual(image).sum() / jnp.where(total > 0, total, 1)

    def cut(self, cut: Cut) -> "Problem":
        """The problem of a part of the observation; ValueError if there is no such problem."""
        shrink = getattr(self.operator, "cut", None)
        if shrink is None:
            raise ValueError(f"a problem of task {self.task!r} cannot be cut: take it in full")
        observed = cut(self.observed)
        height, width = (
            part * whole // seen
            for part, whole, seen in zip(
                observed.shape[:2], self.shape[:2], self.observed.shape[:2], strict=True
            )
        )
        return dataclasses.replace(
            self,
            observed=observed,
            operator=shrink(cut),
            weights=cut(self.weights),
            shape=(height, width, self.shape[2]),
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Identity:
    """A(x) = x."""

    def __call__(self, image: jax.Array) -> jax.Array:
        return image

    def cut(self, cut: Cut) -> "Identity":
        del cut
        return self


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Downsampling:
    """Lanczos-2 downsampling, to sides / factor.

    Attributes:
      factor: How much smaller.
    """

    factor: int = dataclasses.field(metadata={"static": True})

    def __call__(self, image: jax.Array) -> jax.Array:
        rows, columns = (
            downsampling_matrix(side, self.factor).astype(image.dtype) for side in image.shape[:2]
        )
        return jnp.einsum("hH,HWC,wW->hwC", rows, image, columns, precision=lax.Precision.HIGHEST)

    def cut(self, cut: Cut) -> "Downsampling":
        del cut
        return self


def denoising(observed: Any, sigma: float | None = None) -> Problem:
    """A noisy image (H, W, C), with its noise's strength in gray levels if known: the identity."""
    return Problem.of(observed, Identity(), sigma=sigma, task="denoising")


def inpainting(observed: Any, mask: Any) -> Problem:
    """An image (H, W, C) with missing pixels: the identity, weighted by the mask.

    Args:
      observed: The image; what the missing pixels hold is never looked at.
      mask: (H, W), (H, W, 1) or (H, W, C): 1 where a value is known, else 0.
    """
    observed, mask = pixels.image(observed), pixels.array(mask, "a mask")
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError(
            "a mask holds only 0 (missing) and 1 (known), or booleans; of gray levels: mask > 127"
        )
    if not mask.any():
        raise ValueError("the mask leaves no pixel known")
    mask = mask[..., None] if mask.ndim == 2 else mask
    if mask.shape not in (observed.shape, (*observed.shape[:2], 1)):
        raise ValueError(f"a mask of shape {mask.shape} for an image of shape {observed.shape}")
    return Problem.of(observed, Identity(), weights=mask, task="inpainting")


def super_resolution(observed: Any, factor: int) -> Problem:
    """A small image (h, w, C) to enlarge 2, 4 or 8 times; the operator is Lanczos-2."""
    factor, observed = check_factor(factor), pixels.image(observed)
    shape = (*(side * factor for side in observed.shape[:2]), observed.shape[-1])
    return Problem.of(observed, Downsampling(factor), shape=shape, task="super_resolution")


def check_factor(factor: int) -> int:
    """Return the factor, 4.0 as 4; ValueError with the valid ones."""
    if not isinstance(factor, numbers.Real) or factor not in FACTORS:
        raise ValueError(f"factor {factor!r} is not supported; choose from {FACTORS}")
    return int(factor)


def check_sigma(sigma: Any) -> float:
    """Return the strength of noise; ValueError unless it is one number, 0 to 255."""
    number = isinstance(sigma, numbers.Real) or (
        isinstance(sigma, np.ndarray | jax.Array) and sigma.shape == () and sigma.dtype != bool
    )
    if not number or isinstance(sigma, bool):
        raise ValueError(
            f"sigma {shown(sigma)} must be one number of gray levels, 0 to 255, or None where it "
            "is not known; isnas_jax.estimate_sigma(image) estimates it"
        )
    if not 0 <= sigma <= 255:
        raise ValueError(f"sigma {float(sigma):g} is outside of 0 to 255 gray levels")
    return float(sigma)


def check_problem(problem: Any) -> None:
    """ValueError unless it is a problem."""
    if not isinstance(problem, Problem):
        raise ValueError(
            f"a {type(problem).__name__} is no problem; isnas_jax.denoising(image) makes one"
        )


def lanczos2(x: np.ndarray) -> np.ndarray:
    """Lanczos window of order 2, sinc(x) sinc(x / 2), 0 beyond |x| = 2."""
    return np.where(np.abs(x) < 2, np.sinc(x) * np.sinc(x / 2), 0.0)


def downsampling_matrix(size: int, factor: int) -> np.ndarray:
    """(size / factor, size) float32: Lanczos-2 along one axis, edges repeated.

    Output pixel i sits at the center of inputs factor i to factor (i + 1) - 1
    and weighs 4 factor of them; weights add up to 1.
    """
    taps = np.arange(4 * factor)
    weights = lanczos2((taps + 0.5) / factor - 2)
    columns = taps - 3 * factor // 2 + factor * np.arange(size // factor)[:, None]
    matrix = np.zeros((size // factor, size))
    np.add.at(
        matrix,
        (np.arange(size // factor)[:, None], np.clip(columns, 0, size - 1)),
        weights / weights.sum(),
    )
    return matrix.astype(np.float32)
