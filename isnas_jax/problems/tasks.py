"""The kinds of problems by name: how each is posed, and made from a clean image.

Images are float32 (H, W, C) in [0, 1]. `TASKS` holds the three of the paper; add
your own.
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
from isnas_jax.registry import Registry


@dataclasses.dataclass(frozen=True)
class Task:
    """A kind of restoration problem.

    Attributes:
      pose: The problem of an image as the user has it, from it and options by name.
      corrupt: The problem of a clean image, corrupted here, from a key, the image and
        options by name; the only place where a clean image enters.
      iterations: The published number of iterations.
    """

    pose: Callable[..., Problem]
    corrupt: Callable[..., Problem]
    iterations: int = 1200


def _add_noise(key: jax.Array, clean: jax.Array, *, sigma: float) -> Problem:
    sigma = check_sigma(sigma)
    clean = pixels.check_clean(clean)
    noise = sigma / 255 * jax.random.normal(key, clean.shape, jnp.float32)
    return denoising(jnp.clip(clean + noise, 0, 1), sigma)


def _remove_pixels(
    key: jax.Array, clean: jax.Array, *, missing: float = 50.0, mask: Any = None
) -> Problem:
    clean = pixels.check_clean(clean)
    if mask is None:
        if not 0 < missing < 100:
            raise ValueError(f"missing {missing:g} is outside of 0 to 100 percent, both excluded")
        share = jnp.asarray(1 - missing / 100, jnp.float32)
        mask = jax.random.bernoulli(key, share, clean.shape[:2])
    return inpainting(clean, mask)


def _downscale(key: jax.Array, clean: jax.Array, *, factor: int) -> Problem:
    del key
    factor, clean = check_factor(factor), pixels.check_clean(clean)
    if clean.shape[0] % factor or clean.shape[1] % factor:
        raise ValueError(
            f"an image of {clean.shape[0]} x {clean.shape[1]} cannot be shrunk by {factor}"
        )
    return super_resolution(jnp.clip(Downsampling(factor)(clean), 0, 1), factor)


TASKS: Registry[Task] = Registry(
    "task",
    {
        "denoising": Task(denoising, _add_noise, 1200),
        "inpainting": Task(inpainting, _remove_pixels, 9500),
        "super_resolution": Task(super_resolution, _downscale, 4500),
    },
)
