"""Checks that turn a user's images, masks and weights into float32 arrays.

Images are float32 (H, W, C) in [0, 1], C = 1 or 3. Only NumPy and JAX arrays are accepted.
Conversion of other types, or of arrays with a mask or a unit, could lose information silently.
"""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from isnas_jax import _programs

# Noise may leave [0, 1], but averages out over a block of pixels: how far the mean of a
# full block may be outside.
_BLOCK_SIDE = 8
_MEAN_MARGIN = 0.5


def check_array(value: Any, name: str = "an image") -> np.ndarray:
    """Return a NumPy or JAX array of real numbers as float32.

    Raises:
      ValueError: If the value has another type, is traced, has masked elements or a unit,
        or holds no real numbers. The message names it and says how to convert it.
    """
    _programs.check_concrete(name, value)
    if remedy := _conversion(value):
        kind = f"{type(value).__module__.partition('.')[0]} {type(value).__name__}"
        kind = kind.removeprefix("builtins ")
        raise ValueError(f"{name} must be a NumPy or JAX array of numbers, not a {kind}: {remedy}")
    array = np.asarray(value)
    is_number = any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer))
    if array.dtype != bool and not is_number:
        raise ValueError(f"{name} must hold real numbers, not {array.dtype}")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _conversion(value: Any) -> str | None:
    """Return how to convert a value to a plain array, or None if it is one."""
    if isinstance(value, (str, os.PathLike)):
        return "isnas_jax.io.images.load(path) reads a file"
    if np.ma.is_masked(value):
        return "use inpainting(image.filled(0), ~image.mask)"
    if hasattr(value, "unit"):
        return "scale it to 0 (black) to 1 (white) and take its .value"
    if isinstance(value, (np.ndarray, jax.Array)):
        return None
    if hasattr(value, "getbands"):
        return 'np.asarray(image.convert("RGB"), np.float32) / 255'
    if hasattr(value, "permute") and hasattr(value, "detach"):
        return "tensor.permute(1, 2, 0).numpy(force=True), channels last"
    return "np.asarray(image, np.float32), with axes (H, W, C)"


def check_image(value: Any, name: str = "an image") -> np.ndarray:
    """Return an image as float32 (H, W, C), C = 1 or 3, without checking its values.

    Raises:
      ValueError: As `check_array`, and for other shapes, integers or booleans. The value
        of white is unknown for integers.
    """
    array, dtype = check_array(value, name), value.dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        white = np.iinfo(dtype).max if jnp.issubdtype(dtype, jnp.integer) else 1
        raise ValueError(
            f"{name} must hold floats from 0 (black) to 1 (white), not {dtype}; "
            f"if white is {white}, use image.astype(np.float32) / {white}"
        )
    if array.ndim == 3 and array.shape[-1] in (1, 3) and array.size:
        return array
    remedy = ""
    if array.ndim == 2:
        remedy = "; for a gray (H, W) use image[..., None]"
    elif array.ndim == 3 and array.shape[0] in (1, 3):
        remedy = "; channels come last: np.moveaxis(image, 0, -1)"
    elif array.ndim == 3 and array.shape[-1] in (2, 4):
        remedy = "; remove its alpha channel: image[..., :-1]"
    raise ValueError(f"{name} must be (H, W, 1) or (H, W, 3), not {array.shape}{remedy}")


def check_range(
    image: np.ndarray, known: np.ndarray | bool = True, name: str = "the image"
) -> None:
    """Raise ValueError unless known values are finite and, up to noise, in [0, 1].

    The mean of a block of the image (H, W, C) may not be far outside. Booleans that broadcast to
    the image tell which values are known.
    """
    known = np.broadcast_to(known, image.shape)
    if not np.isfinite(image[known]).all():
        raise ValueError(f"{name} holds values that are not finite")
    total, count = (
        _block_sums(np.where(known, values, 0).sum(axis=-1, dtype=np.float64))
        for values in (image, known)
    )
    mean = total / np.maximum(count, 1)
    # In blocks with fewer known values, less of the noise averages out.
    margin = _MEAN_MARGIN * np.sqrt(_BLOCK_SIDE**2 * image.shape[-1] / np.maximum(count, 1))
    excess = np.where((mean < -margin) | (mean > 1 + margin), np.abs(mean - 0.5), 0)
    if excess.any():
        worst = float(mean.flat[excess.argmax()])
        raise ValueError(
            f"{name} holds values of about {worst:.3g}, where 0 (black) to 1 (white) is needed; "
            "divide 8-bit values by 255; for -1 to 1 use (image + 1) / 2; tone-map HDR"
        )


def _block_sums(plane: np.ndarray) -> np.ndarray:
    """Sum a plane (H, W) over blocks; those at the bottom and right may be smaller."""
    for axis, side in enumerate(plane.shape):
        plane = np.add.reduceat(plane, np.arange(0, side, _BLOCK_SIDE), axis=axis)
    return plane


def check_clean_image(value: Any, shape: tuple[int, ...] | None = None) -> jax.Array:
    """Return a clean image, floats in [0, 1], as float32 (H, W, C).

    Raises ValueError as `check_image` and `check_range`, or for another shape than the given one.
    """
    clean = check_image(value, "the clean image")
    if shape is not None and clean.shape != shape:
        raise ValueError(f"clean image of shape {clean.shape} for an image of shape {shape}")
    check_range(clean, name="the clean image")
    return jnp.asarray(clean)
