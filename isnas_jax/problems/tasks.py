"""Tasks: how to create a problem from an observation, or from a clean image.

Images are float32 (H, W, C) in [0, 1].
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from isnas_jax.problems import pixels
from isnas_jax.problems.problem import (
    Downsampling,
    Problem,
    check_factor,
    check_sigma,
    denoising,
    inpainting,
    super_resolution,
)


@dataclasses.dataclass(frozen=True)
class Task:
    """A kind of restoration problem.

    Attributes:
      name: Its name, which is also `Problem.task` of its problems.
      pose: Returns the problem of an observed image: `pose(observed, **options)`.
      corrupt: Corrupts a clean image and returns its problem: `corrupt(key, clean, **options)`.
        The problem does not hold the clean image.
    """

    name: str
    pose: Callable[..., Problem]
    corrupt: Callable[..., Problem]


def add_noise(key: jax.Array, clean: jax.Array, *, sigma: float) -> Problem:
    """Add normal noise of `sigma` gray levels to a clean image, clip it, and pose the problem."""
    sigma = check_sigma(sigma)
    clean = pixels.check_clean_image(clean)
    noise = sigma / 255 * jax.random.normal(key, clean.shape, jnp.float32)
    return denoising(jnp.clip(clean + noise, 0, 1), sigma)


def remove_pixels(
    key: jax.Array, clean: jax.Array, *, missing: float = 50.0, mask: Any = None
) -> Problem:
    """Remove a percentage of the pixels, or those of a mask, and pose the problem."""
    clean = pixels.check_clean_image(clean)
    if mask is None:
        if not 0 < missing < 100:
            raise ValueError(f"missing {missing:g} must be between 0 and 100 percent, exclusive")
        known_fraction = jnp.asarray(1 - missing / 100, jnp.float32)
        mask = jax.random.bernoulli(key, known_fraction, clean.shape[:2])
    return inpainting(clean, mask)


def downscale(key: jax.Array, clean: jax.Array, *, factor: int) -> Problem:
    """Reduce a clean image by a factor of 2, 4 or 8 (Lanczos-2), and pose the problem."""
    del key
    factor, clean = check_factor(factor), pixels.check_clean_image(clean)
    if clean.shape[0] % factor or clean.shape[1] % factor:
        raise ValueError(
            f"the sides of an image of {clean.shape[0]} x {clean.shape[1]} must be multiples of "
            f"factor {factor}"
        )
    return super_resolution(jnp.clip(Downsampling(factor)(clean), 0, 1), factor)


# The tasks of the paper.
PUBLISHED_TASKS = (
    Task("denoising", denoising, add_noise),
    Task("inpainting", inpainting, remove_pixels),
    Task("super_resolution", super_resolution, downscale),
)
