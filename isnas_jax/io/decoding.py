"""Decode image files to color channels in full depth, and alpha."""

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

# A gigabyte of float32 in color.
MOST_PIXELS = 2**30 // 12

# Documents, films, icons and containers that Pillow opens, and FITS, whose scale it ignores.
_NO_PHOTOGRAPHS = {"BUFR", "CUR", "EPS", "FITS", "FLI", "GRIB", "HDF5", "ICNS", "ICO", "IPTC"}
_NO_PHOTOGRAPHS |= {"MPEG", "PALM", "PDF", "WMF", "XBM", "XPM"}
# Here the first frame is the photograph; the others are previews, depth maps or layers.
_FIRST_FRAME_COUNTS = ("MPO", "PSD")


class Channels(NamedTuple):
    """A decoded image.

    Attributes:
      color: (H, W, C) float32 levels, C = 1 for gray, else 3.
      alpha: (H, W, 1) float32 in [0, 1], 0 where transparent; None if all is opaque.
      white: Level of white; black is 0.
    """

    color: np.ndarray
    alpha: np.ndarray | None
    white: int


def suffixes() -> set[str]:
    """Return the suffixes of image files, in lower case with their dot."""
    known = Image.registered_extensions().items()
    return {suffix for suffix, kind in known if kind not in _NO_PHOTOGRAPHS}


@contextlib.contextmanager
def open_image(name: str) -> Iterator[ImageFile.ImageFile]:
    """Open an image file; whatever fails inside becomes a ValueError that names the file."""
    try:
        with _opened(name) as opened:
            if opened.format in _NO_PHOTOGRAPHS:
                raise UnidentifiedImageError
            if math.prod(opened.size) > MOST_PIXELS:
                raise ValueError(f"{opened.size} pixels are more than {MOST_PIXELS:,}")
            _check_frames(opened)
            if opened.format == "TIFF":
                tiff.check(opened)  # type: ignore[arg-type]
            elif opened.mode == "I" and opened.format not in ("PNG", "PPM"):
                raise ValueError("nothing says which of its 32-bit integers is white")
            yield opened
    except FileNotFoundError:
        raise ValueError(f"image {name!r} does not exist") from None
    except Exception as error:  # of damaged files Pillow's decoders raise many kinds
        reason = _why_unknown(name) if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"{name!r} cannot be read as an image: {reason}") from None


def _opened(name: str) -> ImageFile.ImageFile:
    with warnings.catch_warnings():
        # Pillow warns of what is refused here, and refuses twice as many itself.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(name)
    # Pillow maps files that it knows the name of, and scrambles turned TIFF files by that.
    image.filename = ""
    return image


def _why_unknown(name: str) -> str:
    """Why Pillow does not know a file, and what to do."""
    if not pathlib.Path(name).stat().st_size:
        return "the file is empty"
    with contextlib.suppress(Exception):  # the tags of a damaged file
        if reason := tiff.why_unreadable(name):
            return reason
    return "its format is not supported; convert it to PNG, TIFF or JPEG"


def _check_frames(image: ImageFile.ImageFile) -> None:
    """ValueError for several pages or frames, where none is the obvious one."""
    frames = getattr(image, "n_frames", 1)
    if frames == 1 or image.format in _FIRST_FRAME_COUNTS:
        return
    if image.format == "TIFF":
        reduced = []
        for frame in range(frames):
            image.seek(frame)
            reduced.append(tiff.is_reduced(image.tag_v2))  # type: ignore[attr-defined]
        image.seek(0)
        if not reduced[0] and all(reduced[1:]):
            return
    raise ValueError(f"it holds {frames} pages or frames; save one as a separate file")


# Raw modes of 16 bits a channel, of which Pillow keeps the upper eight, and those that keep the
# lower: of the other byte order (N is the machine's own). Premultiplied color stays so.
_HALVES = {
    f"{mode};16{order}": (f"{plain};16{order}", f"{plain};16{other}")
    for mode, plain in (("RGB", "RGB"), ("RGBA", "RGBA"), ("RGBX", "RGBX"), ("RGBa", "RGBA"))
    for order, other in (("L", "B"), ("B", "L"), ("N", "B" if sys.byteorder == "little" else "L"))
}
# Gray and alpha of 16 bits are four bytes a pixel, as is RGBA of 8 bits.
_HALVES["LA;16B"] = ("RGBA",) * 2


def _raw_mode(image: ImageFile.ImageFile) -> str | None:
    """How a file's pixels lie on disk, if Pillow would drop the lower half of 16 bits."""
    for tile in image.tile:
        raw = tile.args if isinstance(tile.args, str) else (tile.args or (None,))[0]
        if raw in _HALVES:
            return raw
    return None


def has_sixteen_bits(image: ImageFile.ImageFile) -> bool:
    """Return whether an open file has more than eight bits a channel."""
    return image.mode[0] in "IF" or _raw_mode(image) is not None


def _decoded_as(name: str, half: int) -> np.ndarray:
    """A half of the bytes of such a file, (H, W, 3 or 4)."""

    def changed(tile: Any) -> Any:
        raw, *others = (tile.args,) if isinstance(tile.args, str) else tile.args
        return tile._replace(args=(_HALVES[raw][half], *others))

    with _opened(name) as opened:
        opened.tile = [changed(tile) for tile in opened.tile]
        return np.asarray(ImageOps.exif_transpose(opened), np.float32)


def decode(name: str, image: ImageFile.ImageFile) -> Channels:
    """Return the channels of an open file, turned as its camera was held (EXIF)."""
    raw = _raw_mode(image)
    if raw is None:
        channels = split(ImageOps.exif_transpose(image))
    else:
        upper, lower = (_decoded_as(name, half) for half in (0, 1))
        if raw.startswith("LA"):
            upper, lower = upper[..., ::2], upper[..., 1::2]
        levels = 256 * upper + lower
        count = 1 if levels.shape[-1] == 2 else 3
        color, alpha = levels[..., :count], levels[..., count:] / np.float32(65535)
        if raw.startswith("RGBa"):
            color = color / np.where(alpha > 0, alpha, 1)
        channels = Channels(color, alpha if alpha.size else _opaque(color, image), 65535)
    if image.format != "TIFF" or not has_sixteen_bits(image):
        return channels
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    color, white = channels.color, channels.white
    if image.mode != "F":
        white = tiff.white_level(tags, color)
    if tags[tiff.PHOTOMETRIC] == 0:  # Pillow inverts up to eight bits only
        color = white - color
    return Channels(color, channels.alpha, white)


def split(image: Image.Image) -> Channels:
    """Return the channels of a Pillow image."""
    if image.mode[0] in "IF":
        levels = np.asarray(image, np.float32)[..., None]
        return Channels(levels, _opaque(levels, image), 1 if image.mode == "F" else 65535)
    gray = image.mode in ("1", "L", "LA", "La")
    if not image.has_transparency_data:
        levels = np.asarray(image.convert("L" if gray else "RGB"), np.float32)
        return Channels(levels.reshape(*levels.shape[:2], -1), None, 255)
    if image.mode == "La":
        image = image.convert("LA")
    levels = np.asarray(image.convert("RGBA"), np.float32)
    alpha = levels[..., 3:] / np.float32(255)
    return Channels(levels[..., : 1 if gray else 3], alpha, 255)


def _opaque(levels: np.ndarray, image: Image.Image) -> np.ndarray | None:
    """Alpha of 16 bits where one level or color is called transparent."""
    transparent = image.info.get("transparency")
    if transparent is None:
        return None
    return (levels != transparent).any(axis=-1, keepdims=True).astype(np.float32)


def over_white(channels: Channels) -> np.ndarray:
    """Compose over white, and scale to 0 (black) to 1 (white).

    Returns:
      (H, W, C) float32. Floating-point files may exceed [0, 1] by noise.

    Raises:
      ValueError: For values that are not finite, or outside of [-1, 2].
    """
    pixels = channels.color / np.float32(channels.white)
    if unknown := pixels.size - np.isfinite(pixels).sum():
        raise ValueError(
            f"{unknown} of its values are not finite; give them a finite value, and to have them "
            "restored, mark them in a mask for inpainting"
        )
    if pixels.min() < -1 or pixels.max() > 2:
        raise ValueError(
            f"its values range from {pixels.min():g} to {pixels.max():g}; scale them so that "
            "0 is black and 1 is white"
        )
    if channels.alpha is None:
        return pixels
    return channels.alpha * pixels + (1 - channels.alpha)
