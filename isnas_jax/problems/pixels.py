"""What users give as images and masks, checked and as float32 arrays.

Images are float32 (H, W, C) in [0, 1]. Only NumPy and JAX arrays are images: anything
else, and an array that says more than its numbers, would lose its meaning silently.
"""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from isnas_jax import _programs

# Noise averages out over a block; how far a block's mean may still be from [0, 1].
_BLOCK = 8
_MARGIN = 0.5


def array(value: Any, name: str = "an image") -> np.ndarray:
    """Return a user's array of numbers as float32.

    Args:
      value: A NumPy or JAX array.
      name: What it is, for messages.

    Raises:
      ValueError: If it is of another type or traced, has masked elements or a unit, or
        holds no real numbers; the message says how to convert it.
    """
    _programs.check_concrete(name, value)
    if remedy := _remedy(value):
        kind = f"{type(value).__module__.partition('.')[0]} {type(value).__name__}"
        kind = kind.removeprefix("builtins ")
        raise ValueError(f"{name} is a NumPy or JAX array of numbers, not a {kind}: {remedy}")
    found = np.asarray(value)
    number = jnp.issubdtype(found.dtype, jnp.floating) or jnp.issubdtype(found.dtype, jnp.integer)
    if found.dtype != bool and not number:
        raise ValueError(f"{name} holds real numbers, not {found.dtype}")
    with np.errstate(over="ignore"):
        return found.astype(np.float32)


def _remedy(value: Any) -> str | None:
    """How to convert what is no plain array; None for a plain one."""
    if isinstance(value, (str, os.PathLike)):
        return "isnas_jax.io.images.load(path) reads a file"
    if np.ma.is_masked(value):
        return "pose inpainting(image.filled(0), ~image.mask)"
    if hasattr(value, "unit"):
        return "scale it to 0 (black) to 1 (white) and take its .value"
    if isinstance(value, (np.ndarray, jax.Array)):
        return None
    if hasattr(value, "getbands"):
        return 'np.asarray(image.convert("RGB"), np.float32) / 255'
    if hasattr(value, "permute") and hasattr(value, "detach"):
        return "tensor.permute(1, 2, 0).numpy(force=True), channels last"
    return "np.asarray(image, np.float32), once its axes are (H, W, C)"


def image(value: Any, name: str = "an image") -> np.ndarray:
    """Return a user's image as float32 (H, W, C), C = 1 or 3, its values not yet checked.

    Raises:
      ValueError: As `array`, for another shape, or for integers or booleans, whose
        white is unknown.
    """
    found, dtype = array(value, name), value.dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        white = np.iinfo(dtype).max if jnp.issubdtype(dtype, jnp.integer) else 1
        raise ValueError(
            f"{name} holds floats from 0 (black) to 1 (white), not {dtype}; "
            f"where white is {white}: image.astype(np.float32) / {white}"
        )
    if found.ndim == 3 and found.shape[-1] in (1, 3) and found.size:
        return found
    remedy = ""
    if found.ndim == 2:
        remedy = "; a gray (H, W) becomes one by image[..., None]"
    elif found.ndim == 3 and found.shape[0] in (1, 3):
        remedy = "; channels come last: np.moveaxis(image, 0, -1)"
    elif found.ndim == 3 and found.shape[-1] in (2, 4):
        remedy = "; leave its alpha out: image[..., :-1]"
    raise ValueError(f"{name} is (H, W, 1) or (H, W, 3), not {found.shape}{remedy}")


def check_values(
    pixels: np.ndarray, known: np.ndarray | bool = True, name: str = "the image"
) -> None:
    """ValueError unless known pixels are finite and, but for noise, from 0 to 1.

    Args:
      pixels: (H, W, C).
      known: Which of them count, booleans that broadcast with them.
      name: What they are, for messages.
    """
    known = np.broadcast_to(known, pixels.shape)
    if not np.isfinite(pixels[known]).all():
        raise ValueError(f"{name} holds values that are not finite")
    total, count = (
        _block_sums(np.where(known, values, 0).sum(axis=-1, dtype=np.float64))
        for values in (pixels, known)
    )
    mean = total / np.maximum(count, 1)
    # The fewer the pixels, the less of the noise averages out.
    margin = _MARGIN * np.sqrt(_BLOCK**2 * pixels.shape[-1] / np.maximum(count, 1))
    outside = np.where((mean < -margin) | (mean > 1 + margin), np.abs(mean - 0.5), 0)
    if outside.any():
        worst = float(mean.flat[outside.argmax()])
        raise ValueError(
            f"{name} holds values of about {worst:.3g}, where 0 (black) to 1 (white) is needed; "
            "divide 8 bits by 255; take -1 to 1 by (image + 1) / 2; tone-map HDR"
        )


def _block_sums(plane: np.ndarray) -> np.ndarray:
    """Sums of a plane (H, W) over blocks, the last ones perhaps smaller."""
    for axis, side in enumerate(plane.shape):
        plane = np.add.reduceat(plane, np.arange(0, side, _BLOCK), axis=axis)
    return plane


def check_clean(value: Any, shape: tuple[int, ...] | None = None) -> jax.Array:
    """Return a clean image as float32 (H, W, C), for evaluation and for corrupting it.

    Raises:
      ValueError: As `image` and `check_values`, or for another shape than that given.
    """
    found = image(value, "the clean image")
    if shape is not None and found.shape != shape:
        raise ValueError(f"a clean image of shape {found.shape} for an image of {shape}")
    check_values(found, name="the clean image")
    return jnp.asarray(found)
