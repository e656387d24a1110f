"""Masks for inpainting as image editors save them."""

import logging
import os

import numpy as np

from isnas_jax.io import decoding

_LOG = logging.getLogger(__name__)

# Grays up to this far from black or white, which is 1, are noise; so many pixels may be others.
_NOISE, _FEW = 1 / 8, 0.05
_REMEDY = "save it in black (missing) and white (known) only, without transparency"


def load_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """Load a mask: 1 where it is white (known), 0 where it is black (missing).

    The mask may lie in any channel and in any two levels from 0, such as 0 and 1. Around
    white, transparent pixels are missing, around black they are known; a photograph is
    missing where it is transparent. Where nearly all pixels are close to black or white, as
    after JPEG or with smooth edges, they are rounded, with a warning.

    Args:
      path: An image file.

    Returns:
      (H, W, 1) float32, 0 or 1; both occur.

    Raises:
      ValueError: If the file cannot be read, holds grays, is ambiguous, or leaves
        nothing missing or nothing known.
    """
    name = os.fspath(path)
    with decoding.open_image(name) as opened:
        channels = decoding.decode(name, opened)
    try:
        known, rounded = _known(channels)
        if known.all() or not known.any():
            state = "missing" if known.all() else "known"
            raise ValueError(f"leaves no pixel {state}; {_REMEDY}")
    except ValueError as error:
        raise ValueError(f"mask {name!r} {error}") from None
    if rounded:
        _LOG.warning("mask %r holds grays in %d pixels, rounded to black or white", name, rounded)
    return known.astype(np.float32)


def check_mask(mask: np.ndarray, observed: np.ndarray) -> None:
    """Raise ValueError if a mask seems inverted.

    That is when nearly all known pixels of the observation are black, or nearly all white, and
    the missing ones are of many colors: the known part is the holes.

    Args:
      mask: (H, W, 1), 0 or 1.
      observed: (H, W, C), 0 is black and 1 is white. Of another size it is not checked.
    """
    known = mask[..., 0] > 0
    if known.shape != observed.shape[:2] or known.all() or not known.any():
        return

    def share(pixels: np.ndarray, level: np.ndarray | int) -> float:
        return (np.abs(pixels - level) <= 9 / 255).all(axis=-1).mean()  # JPEG's noise

    missing = observed[~known]
    if share(missing, np.median(missing, axis=0)) > 0.5:
        return
    for level, color in ((0, "black"), (1, "white")):
        if (flat := share(observed[known], level)) > 0.9:
            raise ValueError(
                f"the mask seems inverted: {flat:.0%} of the pixels that it calls known are "
                f"{color} in the image; in a mask white is known and black is missing"
            )


def _known(channels: decoding.Channels) -> tuple[np.ndarray, int]:
    """Where pixels are known, (H, W, 1) bool, and how many were rounded."""
    color, alpha, white = channels
    visible, rounded = (np.ones((1, 1, 1), bool), 0) if alpha is None else _halves(alpha, 1)
    if visible.all():
        return _of_color(color, white)
    if not visible.any():
        raise ValueError(f"is transparent all over; {_REMEDY}")
    seen = color[visible[..., 0]] / white
    dark, bright = seen <= _NOISE, seen >= 1 - _NOISE
    if bright.all():
        return visible, rounded
    if dark.all():
        return ~visible, rounded
    if (dark | bright).all() or np.ptp(seen, axis=0).max() <= _NOISE:
        raise ValueError(f"does not say whether transparent means missing or known; {_REMEDY}")
    return visible, rounded


def _of_color(color: np.ndarray, white: int) -> tuple[np.ndarray, int]:
    """The mask in the channels that vary; they must agree."""
    if np.ptp(color, axis=-1).max() <= _NOISE * white:
        color = color.max(axis=-1, keepdims=True)
    spread = np.ptp(color, axis=(0, 1))
    varying = color[..., spread > min(_NOISE * white, spread.max() / 2)]
    if not varying.size:
        varying = color[..., :1]
    planes = [_halves(plane[..., None], white) for plane in np.moveaxis(varying, -1, 0)]
    (known, rounded), *others = sorted(planes, key=lambda plane: plane[0].std(), reverse=True)
    few = _FEW * min(known.sum(), (~known).sum())
    for other, _ in others:
        if other.all() or not other.any():  # one color but for noise
            continue
        differing = int((other != known).sum())
        if differing > few:
            raise ValueError(f"holds colors that are neither black nor white; {_REMEDY}")
        known, rounded = known & other, max(rounded, differing)
    return known, rounded


def _halves(plane: np.ndarray, white: int) -> tuple[np.ndarray, int]:
    """Where a plane is bright, and how many of its pixels were neither black nor white."""
    lowest, highest = plane.min(), plane.max()
    far_apart = lowest < highest and (lowest == 0 or highest - lowest > white / 2)
    if far_apart and np.isin(plane, (lowest, highest)).all():
        return plane == highest, 0
    dark, bright = plane <= _NOISE * white, (plane >= (1 - _NOISE) * white) & (plane <= white)
    gray = 1 - (dark | bright).mean()
    if gray > _FEW:
        raise ValueError(f"holds grays in {gray:.0%} of its pixels; {_REMEDY}")
    return plane >= white / 2, int(((plane != 0) & (plane != white)).sum())
