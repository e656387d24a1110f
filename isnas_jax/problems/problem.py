"""Restoration problems: an observation, its forward operator, weights and noise strength.

Images are float32 (H, W, C) in [0, 1]. In every task a network with output x is fitted
to an observation y by minimizing

    mean(weights * (A(x) - y)**2).

Tasks differ in the operator A and in the weights, which are 0 for missing measurements.
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
from isnas_jax.registry import short_repr

FACTORS = (2, 4, 8)

# Reduces an observation or its weights (h, w, c) to fewer pixels.
PixelTransform: TypeAlias = Callable[[jax.Array], jax.Array]


class Operator(Protocol):
    """A forward operator A: a pytree, so its arrays can be passed through jit and vmap.

    An operator may have a method `shrink(transform)`. It returns the operator of the problem
    with the observation `transform(observed)`; arrays (h, w, c) that it holds are transformed
    likewise. Without this method, only the proxy "full" can be used.
    """

    def __call__(self, image: jax.Array) -> jax.Array: ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Problem:
    """One image to restore: a pytree, so it can be passed through jit and vmap.

    `denoising`, `inpainting`, `super_resolution` and `Problem.create` check their arguments;
    the constructor does not.

    Attributes:
      observed: y, the corrupted image, (h, w, C) float32.
      operator: A, maps an image (H, W, C) to (h, w, C).
      weights: Weights of the measurements, (h, w, 1) or (h, w, C) float32, at least 0;
        0 where a measurement is missing.
      sigma: [] float32 standard deviation of the noise in gray levels (0 to 255), or None
        if unknown.
      shape: (H, W, C) of the image to restore.
      task: Kind of the problem, usually a name in `TASKS`.
    """

    observed: jax.Array
    operator: Operator
    weights: jax.Array
    sigma: jax.Array | None
    shape: tuple[int, int, int] = dataclasses.field(metadata={"static": True})
    task: str = dataclasses.field(metadata={"static": True})

    @classmethod
    def create(
        cls,
        observed: Any,
        operator: Operator,
        *,
        task: str,
        weights: Any = None,
        sigma: float | None = None,
        shape: tuple[int, int, int] | None = None,
    ) -> "Problem":
        """Create a problem from checked arguments.

        Args:
          observed: Floats (h, w, C), C = 1 or 3, in [0, 1] up to noise. Values of weight 0
            are replaced by 0.
          operator: A, maps an image (H, W, C) to (h, w, C).
          task: Kind of the problem.
          weights: (h, w), (h, w, 1) or (h, w, C), at least 0; 1 by default.
          sigma: Standard deviation of the noise in gray levels (0 to 255), if known.
          shape: (H, W, C) of the image to restore; by default that of the observation.

        Raises:
          ValueError: For invalid types, shapes or values.
        """
        observed = pixels.check_image(observed)
        size = observed.shape[:2]
        if weights is None:
            weights = np.ones((*size, 1), np.float32)
        weights = pixels.check_array(weights, "the weights")
        weights = weights[..., None] if weights.ndim == 2 else weights
        if weights.shape not in (observed.shape, (*size, 1)):
            raise ValueError(
                f"weights of shape {weights.shape} for an observation of shape {observed.shape}"
            )
        if not (np.isfinite(weights) & (weights >= 0)).all() or not weights.any():
            raise ValueError("weights must be finite, not negative, and not all 0")
        pixels.check_range(observed, weights > 0)
        observed = np.where(weights > 0, observed, np.float32(0))
        noise_std = None if sigma is None else jnp.asarray(check_sigma(sigma), jnp.float32)
        shape = shape or observed.shape
        return cls(jnp.asarray(observed), operator, jnp.asarray(weights), noise_std, shape, task)

    def __repr__(self) -> str:
        height, width, channels = self.shape
        return f"Problem of {self.task}: an image of {height} x {width} x {channels}"

    def squared_residual(self, image: jax.Array) -> jax.Array:
        """Return weights * (A(x) - y)**2 of an image x (H, W, C), as (h, w, C)."""
        return self.weights * jnp.square(self.operator(image) - self.observed)

    def loss(self, image: jax.Array) -> jax.Array:
        """Return the mean of `squared_residual` over (h, w, C), the loss of a fit."""
        return self.squared_residual(image).mean()

    @property
    def has_measurements(self) -> jax.Array:
        """Boolean scalar: whether any weight is positive."""
        return (self.weights > 0).any()

    def error(self, image: jax.Array) -> jax.Array:
        """Return the weighted mean of (A(x) - y)**2, or 0 without measurements.

        Unlike `loss`, it does not depend on the fraction of missing measurements.
        """
        total = jnp.broadcast_to(self.weights, self.observed.shape).sum()
        return self.squared_residual(image).sum() / jnp.where(total > 0, total, 1)

    def shrink(self, transform: PixelTransform) -> "Problem":
        """Return a proxy, whose observation and weights (h, w, c) are mapped to fewer pixels.

        Raises ValueError if the operator has no method `shrink`.
        """
        shrink_operator = getattr(self.operator, "shrink", None)
        if shrink_operator is None:
            raise ValueError(
                f"a problem of task {self.task!r} cannot shrink, since its operator has no "
                "method `shrink`; use the proxy 'full'"
            )
        observed = transform(self.observed)
        height, width = (
            new_side * image_side // old_side
            for new_side, image_side, old_side in zip(
                observed.shape[:2], self.shape[:2], self.observed.shape[:2], strict=True
            )
        )
        return dataclasses.replace(
            self,
            observed=observed,
            operator=shrink_operator(transform),
            weights=transform(self.weights),
            shape=(height, width, self.shape[2]),
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Identity:
    """A(x) = x."""

    def __call__(self, image: jax.Array) -> jax.Array:
        return image

    def shrink(self, transform: PixelTransform) -> "Identity":
        del transform
        return self


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Downsampling:
    """Lanczos-2 downsampling from (H, W, C) to (H / factor, W / factor, C).

    Attributes:
      factor: Ratio of the sides.
    """

    factor: int = dataclasses.field(metadata={"static": True})

    def __call__(self, image: jax.Array) -> jax.Array:
        rows, columns = (
            downsampling_matrix(side, self.factor).astype(image.dtype) for side in image.shape[:2]
        )
        return jnp.einsum("hH,HWC,wW->hwC", rows, image, columns, precision=lax.Precision.HIGHEST)

    def shrink(self, transform: PixelTransform) -> "Downsampling":
        del transform
        return self


def denoising(observed: Any, sigma: float | None = None) -> Problem:
    """Return the problem of a noisy image.

    Args:
      observed: Floats (H, W, C), in [0, 1] up to noise.
      sigma: Standard deviation of the noise in gray levels (0 to 255), if known.
    """
    return Problem.create(observed, Identity(), sigma=sigma, task="denoising")


def inpainting(observed: Any, mask: Any) -> Problem:
    """Return the problem of an image with missing pixels.

    Args:
      observed: Floats (H, W, C) in [0, 1]. Values of missing pixels are ignored.
      mask: (H, W), (H, W, 1) or (H, W, C): 1 where a value is known, else 0.
    """
    observed, mask = pixels.check_image(observed), pixels.check_array(mask, "a mask")
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError(
            "a mask must hold only 0 (missing) and 1 (known), or booleans; for gray levels use "
            "mask > 127"
        )
    if not mask.any():
        raise ValueError("the mask leaves no pixel known; 1 marks known pixels")
    mask = mask[..., None] if mask.ndim == 2 else mask
    if mask.shape not in (observed.shape, (*observed.shape[:2], 1)):
        raise ValueError(f"mask of shape {mask.shape} for an image of shape {observed.shape}")
    return Problem.create(observed, Identity(), weights=mask, task="inpainting")


def super_resolution(observed: Any, factor: int) -> Problem:
    """Return the problem of an image to enlarge, with Lanczos-2 downsampling as operator.

    Args:
      observed: The small image, floats (h, w, C) in [0, 1].
      factor: 2, 4 or 8; the restored image is (factor * h, factor * w, C).
    """
    factor, observed = check_factor(factor), pixels.check_image(observed)
    shape = (*(side * factor for side in observed.shape[:2]), observed.shape[-1])
    return Problem.create(observed, Downsampling(factor), shape=shape, task="super_resolution")


def check_factor(factor: int) -> int:
    """Return the factor as an int; ValueError unless it is 2, 4 or 8."""
    if not isinstance(factor, numbers.Real) or factor not in FACTORS:
        raise ValueError(f"factor {factor!r} is not supported; choose from {FACTORS}")
    return int(factor)


def check_sigma(sigma: Any) -> float:
    """Return a noise strength as a float; ValueError unless it is one number from 0 to 255."""
    is_number = isinstance(sigma, numbers.Real) or (
        isinstance(sigma, np.ndarray | jax.Array) and sigma.shape == () and sigma.dtype != bool
    )
    if not is_number or isinstance(sigma, bool):
        raise ValueError(
            f"sigma {short_repr(sigma)} must be one number of gray levels, 0 to 255, or None if "
            "unknown; isnas_jax.estimate_sigma(image) estimates it"
        )
    if not 0 <= sigma <= 255:
        raise ValueError(f"sigma {float(sigma):g} must be in 0 to 255 gray levels")
    return float(sigma)


def check_problem(problem: Any) -> None:
    """Raise ValueError unless the argument is a `Problem`."""
    if not isinstance(problem, Problem):
        raise ValueError(
            f"a {type(problem).__name__} is not a problem; isnas_jax.denoising(image) creates one"
        )


def downsampling_matrix(size: int, factor: int) -> np.ndarray:
    """Return the matrix (size / factor, size), float32, of Lanczos-2 along one axis.

    Output pixel i lies at the center of input pixels factor * i to factor * (i + 1) - 1. It
    weights 4 * factor input pixels around that center, |x| < 2, by sinc(x) sinc(x / 2); the weights
    sum to 1, and edge pixels are repeated.
    """
    taps = np.arange(4 * factor)
    x = (taps + 0.5) / factor - 2
    weights = np.sinc(x) * np.sinc(x / 2)
    columns = taps - 3 * factor // 2 + factor * np.arange(size // factor)[:, None]
    matrix = np.zeros((size // factor, size))
    np.add.at(
        matrix,
        (np.arange(size // factor)[:, None], np.clip(columns, 0, size - 1)),
        weights / weights.sum(),
    )
    return matrix.astype(np.float32)
