"""Read inpainting masks as image editors save them: float32 (H, W, 1), 1 known, 0 missing."""

import logging
import os

import numpy as np

from isnas_jax.io import decoding

_LOG = logging.getLogger(__name__)

# Levels within this distance of black (0) or white (1) count as black or white.
_TOLERANCE = 1 / 8
# Largest fraction of pixels that may have other levels.
_MAX_GRAY_FRACTION = 0.05
_REMEDY = "save it in black (missing) and white (known) only, without transparency"


def load_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """Load a mask that is white where pixels are known and black where they are missing.

    Its two levels may be 0 and any other, such as 0 and 1. In a mask with transparency, the
    color of the visible pixels decides:

    * white: transparent pixels are missing;
    * black: transparent pixels are known;
    * a photograph: transparent pixels are missing.

    A few gray pixels, as from JPEG or smooth edges, are rounded with a warning.

    Args:
      path: An image file.

    Returns:
      (H, W, 1) float32, 0 or 1; both occur.

    Raises:
      ValueError: If the file cannot be read, holds grays or colors, is ambiguous, or leaves
        nothing missing or nothing known.
    """
    name = os.fspath(path)
    with decoding.open_image(name) as opened:
        channels = decoding.decode(name, opened)
    try:
        known, num_rounded = _find_known(channels)
        if known.all() or not known.any():
            state = "missing" if known.all() else "known"
            raise ValueError(f"leaves no pixel {state}; {_REMEDY}")
    except ValueError as error:
        raise ValueError(f"mask {name!r} {error}") from None
    if num_rounded:
        _LOG.warning(
            "mask %r holds grays in %d pixels, rounded to black or white", name, num_rounded
        )
    return known.astype(np.float32)


def check_mask(mask: np.ndarray, observed: np.ndarray) -> None:
    """Raise ValueError if a mask seems inverted.

    In an inverted mask, the pixels marked as known are the holes. More than 90% of them
    are then black, or white, in the observation, while the missing ones vary in color.

    Args:
      mask: (H, W, 1), 0 or 1.
      observed: (H, W, C), 0 is black and 1 is white. Another size is not checked.
    """
    known = mask[..., 0] > 0
    if known.shape != observed.shape[:2] or known.all() or not known.any():
        return

    def fraction_near(pixels: np.ndarray, level: np.ndarray | int) -> float:
        return (np.abs(pixels - level) <= 9 / 255).all(axis=-1).mean()  # allows for JPEG artifacts

    missing = observed[~known]
    if fraction_near(missing, np.median(missing, axis=0)) > 0.5:
        return
    for level, color in ((0, "black"), (1, "white")):
        if (fraction := fraction_near(observed[known], level)) > 0.9:
            raise ValueError(
                f"the mask seems inverted: {fraction:.0%} of the pixels that it marks as known are "
                f"{color} in the image; in a mask white is known and black is missing"
            )


def _find_known(channels: decoding.Channels) -> tuple[np.ndarray, int]:
    """Return known pixels, (H, W, 1) bool, and the number of pixels that were rounded."""
    color, alpha, white = channels
    if alpha is None:
        return _find_known_by_color(color, white)
    visible, num_rounded = _threshold(alpha, 1)
    if visible.all():
        return _find_known_by_color(color, white)
    if not visible.any():
        raise ValueError(f"is transparent everywhere; {_REMEDY}")
    visible_pixels = color[visible[..., 0]] / white
    is_dark, is_bright = visible_pixels <= _TOLERANCE, visible_pixels >= 1 - _TOLERANCE
    if is_bright.all():
        return visible, num_rounded
    if is_dark.all():
        return ~visible, num_rounded
    is_uniform = np.ptp(visible_pixels, axis=0).max() <= _TOLERANCE
    if (is_dark | is_bright).all() or is_uniform:
        raise ValueError(f"does not say whether transparent means missing or known; {_REMEDY}")
    return visible, num_rounded


def _find_known_by_color(color: np.ndarray, white: int) -> tuple[np.ndarray, int]:
    if np.ptp(color, axis=-1).max() > _TOLERANCE * white:
        raise ValueError(f"holds colors; {_REMEDY}")
    return _threshold(color.max(axis=-1, keepdims=True), white)


def _threshold(plane: np.ndarray, white: int) -> tuple[np.ndarray, int]:
    """Return bright pixels of one channel, and how many were neither black nor white."""
    lowest, highest = plane.min(), plane.max()
    has_contrast = lowest < highest and (lowest == 0 or highest - lowest > white / 2)
    if has_contrast and np.isin(plane, (lowest, highest)).all():
        return plane == highest, 0
    is_dark = plane <= _TOLERANCE * white
    is_bright = (plane >= (1 - _TOLERANCE) * white) & (plane <= white)
    gray_fraction = 1 - (is_dark | is_bright).mean()
    if gray_fraction > _MAX_GRAY_FRACTION:
        raise ValueError(f"holds grays in {gray_fraction:.0%} of its pixels; {_REMEDY}")
    return plane >= white / 2, int(((plane != 0) & (plane != white)).sum())
