"""Decode image files to color and alpha at full bit depth.

Pillow truncates most 16-bit color formats to 8 bits. This module decodes the upper and lower
bytes separately and combines them. It refuses files that Pillow would read incorrectly.
"""

import contextlib
import math
import pathlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from isnas_jax.io import tiff

# 1 GiB as float32 RGB.
MAX_PIXELS = 2**30 // 12

# Documents, videos, icons and containers that Pillow opens, and FITS, because it ignores the scale.
_UNSUPPORTED_FORMATS = {"BUFR", "CUR", "EPS", "FITS", "FLI", "GRIB", "HDF5", "ICNS", "ICO", "IPTC"}
_UNSUPPORTED_FORMATS |= {"MPEG", "PALM", "PDF", "WMF", "XBM", "XPM"}
# The first frame of these formats is the photograph; others are previews, depth maps or layers.
_FIRST_FRAME_FORMATS = ("MPO", "PSD")


class Channels(NamedTuple):
    """A decoded image."""

    color: np.ndarray  # (H, W, C) float32 levels, C = 1 for gray, else 3
    alpha: np.ndarray | None  # (H, W, 1) float32 in [0, 1], 0 where transparent
    white: int  # the level of white; black is 0


def suffixes() -> set[str]:
    """Return the file name suffixes of supported image formats, such as ".png"."""
    formats = Image.registered_extensions().items()
    return {suffix for suffix, name in formats if name not in _UNSUPPORTED_FORMATS}


@contextlib.contextmanager
def open_image(name: str) -> Iterator[ImageFile.ImageFile]:
    """Open an image file; every error inside the context becomes a ValueError with its name."""
    try:
        with _open(name) as image:
            if image.format in _UNSUPPORTED_FORMATS:
                raise UnidentifiedImageError
            if math.prod(image.size) > MAX_PIXELS:
                raise ValueError(f"{image.size} pixels are more than {MAX_PIXELS:,}")
            _check_frames(image)
            if image.format == "TIFF":
                tiff.check(image)  # type: ignore[arg-type]
            elif image.mode == "I" and image.format not in ("PNG", "PPM"):
                raise ValueError("the level of white in its 32-bit integers is unknown")
            yield image
    except FileNotFoundError:
        raise ValueError(f"image {name!r} does not exist") from None
    except Exception as error:  # Pillow raises many types for damaged files
        reason = _why_unknown(name) if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"{name!r} cannot be read as an image: {reason}") from None


def _open(name: str) -> ImageFile.ImageFile:
    with warnings.catch_warnings():
        # `open_image` limits the size itself.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(name)
    # With a file name, Pillow memory-maps the file and then misreads rotated TIFF files.
    image.filename = ""
    return image


def _why_unknown(name: str) -> str:
    """Return why Pillow does not recognize a file, and a remedy."""
    if not pathlib.Path(name).stat().st_size:
        return "the file is empty"
    with contextlib.suppress(Exception):  # the tags of a damaged file
        if reason := tiff.why_unreadable(name):
            return reason
    return "its format is not supported; convert it to PNG, TIFF or JPEG"


def _check_frames(image: ImageFile.ImageFile) -> None:
    """Raise ValueError for several pages or frames, unless one is clearly the image."""
    num_frames = getattr(image, "n_frames", 1)
    if num_frames == 1 or image.format in _FIRST_FRAME_FORMATS:
        return
    if image.format == "TIFF":
        is_reduced = []
        for frame in range(num_frames):
            image.seek(frame)
            is_reduced.append(tiff.is_reduced(image.tag_v2))  # type: ignore[attr-defined]
        image.seek(0)
        if not is_reduced[0] and all(is_reduced[1:]):
            return
    raise ValueError(f"it holds {num_frames} pages or frames; save one as a separate file")


# For each raw mode of 16 bits per channel, of which Pillow keeps the upper byte only: modes that
# decode the upper byte and, by claiming the other byte order, the lower one. N is the native byte
# order. Premultiplied color (RGBa) is decoded without the division by alpha.
_BYTE_MODES = {
    f"{mode};16{order}": (f"{plain};16{order}", f"{plain};16{other_order}")
    for mode, plain in (("RGB", "RGB"), ("RGBA", "RGBA"), ("RGBX", "RGBX"), ("RGBa", "RGBA"))
    for order, other_order in (
        ("L", "B"),
        ("B", "L"),
        ("N", "B" if sys.byteorder == "little" else "L"),
    )
}
# 16-bit gray with alpha has four bytes per pixel, like 8-bit RGBA.
_BYTE_MODES["LA;16B"] = ("RGBA",) * 2


def _raw_mode(image: ImageFile.ImageFile) -> str | None:
    """Return the pixel layout of a file if Pillow would drop the lower byte, else None."""
    for tile in image.tile:
        mode = tile.args if isinstance(tile.args, str) else (tile.args or (None,))[0]
        if mode in _BYTE_MODES:
            return mode
    return None


def has_sixteen_bits(image: ImageFile.ImageFile) -> bool:
    """Return whether an open file has more than eight bits per channel."""
    return image.mode[0] in "IF" or _raw_mode(image) is not None


def _decode_bytes(name: str, index: int) -> np.ndarray:
    """Decode the upper (index 0) or lower (1) bytes of a 16-bit file, (H, W, 3 or 4)."""

    def replace_mode(tile: Any) -> Any:
        mode, *others = (tile.args,) if isinstance(tile.args, str) else tile.args
        return tile._replace(args=(_BYTE_MODES[mode][index], *others))

    with _open(name) as image:
        image.tile = [replace_mode(tile) for tile in image.tile]
        return np.asarray(ImageOps.exif_transpose(image), np.float32)


def decode(name: str, image: ImageFile.ImageFile) -> Channels:
    """Return the channels of an open file, rotated as its EXIF orientation says."""
    raw_mode = _raw_mode(image)
    if raw_mode is None:
        channels = split(ImageOps.exif_transpose(image))
    else:
        upper, lower = (_decode_bytes(name, index) for index in (0, 1))
        if raw_mode.startswith("LA"):
            upper, lower = upper[..., ::2], upper[..., 1::2]
        levels = 256 * upper + lower
        num_colors = 1 if levels.shape[-1] == 2 else 3
        color, alpha = levels[..., :num_colors], levels[..., num_colors:] / np.float32(65535)
        if raw_mode.startswith("RGBa"):
            color = color / np.where(alpha > 0, alpha, 1)
        alpha = alpha if alpha.size else _alpha_of_transparent_color(color, image)
        channels = Channels(color, alpha, 65535)
    if image.format != "TIFF" or not has_sixteen_bits(image):
        return channels
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    color, white = channels.color, channels.white
    if image.mode != "F":
        white = tiff.white_level(tags, color)
    if tags[tiff.PHOTOMETRIC] == 0:  # white is zero; Pillow inverts images of 8 bits only
        color = white - color
    return Channels(color, channels.alpha, white)


def split(image: Image.Image) -> Channels:
    """Return the channels of a Pillow image."""
    if image.mode[0] in "IF":
        levels = np.asarray(image, np.float32)[..., None]
        alpha = _alpha_of_transparent_color(levels, image)
        return Channels(levels, alpha, 1 if image.mode == "F" else 65535)
    is_gray = image.mode in ("1", "L", "LA", "La")
    if not image.has_transparency_data:
        levels = np.asarray(image.convert("L" if is_gray else "RGB"), np.float32)
        return Channels(levels.reshape(*levels.shape[:2], -1), None, 255)
    if image.mode == "La":
        image = image.convert("LA")
    levels = np.asarray(image.convert("RGBA"), np.float32)
    alpha = levels[..., 3:] / np.float32(255)
    return Channels(levels[..., : 1 if is_gray else 3], alpha, 255)


def _alpha_of_transparent_color(levels: np.ndarray, image: Image.Image) -> np.ndarray | None:
    """Return alpha for a 16-bit image in which one color is transparent, else None."""
    transparent_color = image.info.get("transparency")
    if transparent_color is None:
        return None
    return (levels != transparent_color).any(axis=-1, keepdims=True).astype(np.float32)


def over_white(channels: Channels) -> np.ndarray:
    """Scale to 0 (black) to 1 (white) and blend transparent pixels with a white background.

    Returns:
      (H, W, C) float32. Floating-point files may exceed [0, 1] because of noise.

    Raises:
      ValueError: For values that are not finite or outside [-1, 2].
    """
    pixels = channels.color / np.float32(channels.white)
    if num_nonfinite := pixels.size - np.isfinite(pixels).sum():
        raise ValueError(
            f"{num_nonfinite} of its values are not finite; replace them, and mark them as "
            "missing in a mask to have them inpainted"
        )
    if pixels.min() < -1 or pixels.max() > 2:
        raise ValueError(
            f"its values range from {pixels.min():g} to {pixels.max():g}; scale them so that "
            "0 is black and 1 is white"
        )
    if channels.alpha is None:
        return pixels
    return channels.alpha * pixels + (1 - channels.alpha)
