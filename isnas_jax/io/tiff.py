"""TIFF tags that change the meaning of pixel values and that Pillow ignores or rejects."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import TiffImagePlugin

# Tag numbers by their names in the TIFF 6.0 specification.
NEW_SUBFILE_TYPE, SUBFILE_TYPE = 254, 255
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLES_PER_PIXEL, MAX_SAMPLE_VALUE = 258, 262, 277, 281
PLANAR_CONFIGURATION, EXTRA_SAMPLES, SAMPLE_FORMAT = 284, 338, 339

_REMEDY = (
    "convert it to unsigned integers of 8 or 16 bits (gray, RGB or RGBA), or to gray "
    "floating-point numbers of 32 bits from 0 (black) to 1 (white)"
)
_PHOTOMETRIC_NAMES = {0: "white-is-zero gray", 1: "gray", 2: "RGB", 3: "palette", 5: "CMYK"}
_PHOTOMETRIC_NAMES |= {6: "YCbCr", 8: "LAB", 32803: "raw sensor", 34892: "raw sensor"}
_SAMPLE_FORMAT_NAMES = {
    1: "unsigned integers",
    2: "signed integers",
    3: "floating-point numbers",
}


def check(image: TiffImagePlugin.TiffImageFile) -> None:
    """Raise ValueError for an open file with pixels that Pillow would read incorrectly."""
    tags = image.tag_v2
    if PHOTOMETRIC not in tags:
        raise ValueError("its tag PhotometricInterpretation is missing; 0 may be black or white")
    is_planar = tags.get(PLANAR_CONFIGURATION) == 2 and max(tags.get(BITS_PER_SAMPLE, (8,))) > 8
    is_signed = 2 in tags.get(SAMPLE_FORMAT, ())
    # A gray or palette image with a channel of unspecified meaning.
    has_unknown_channel = tags[PHOTOMETRIC] in (0, 1, 3) and 0 in tags.get(EXTRA_SAMPLES, ())
    if is_planar or is_signed or has_unknown_channel or image.mode in ("I", "LAB"):
        if image.mode == "I":
            lowest, highest = image.getextrema()
            raise ValueError(f"{_describe(tags)} from {lowest} to {highest}; {_REMEDY}")
        raise ValueError(f"{_describe(tags)}; {_REMEDY}")


def why_unreadable(path: str | os.PathLike[str]) -> str | None:
    """Return a TIFF file's format and how to convert it, or None for other files."""
    with open(path, "rb") as file:
        header = file.read(8)
        if header[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return None
        if b"+" in header:  # BigTIFF
            header += file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
        return f"{_describe(tags)}; {_REMEDY}"


def _describe(tags: Mapping[int, Any]) -> str:
    channels, bits = tags.get(SAMPLES_PER_PIXEL, 1), max(tags.get(BITS_PER_SAMPLE, (1,)))
    photometric = _PHOTOMETRIC_NAMES.get(tags.get(PHOTOMETRIC, 0), "special")
    numbers = _SAMPLE_FORMAT_NAMES.get(max(tags.get(SAMPLE_FORMAT, (1,))), "other numbers")
    planes = " in separate planes" if tags.get(PLANAR_CONFIGURATION) == 2 else ""
    return (
        f"it is a TIFF of {channels} channel{'s' * (channels > 1)}{planes} "
        f"({photometric}), {numbers} of {bits} bits"
    )


def is_reduced(tags: Mapping[int, Any]) -> bool:
    """Return whether a page is a reduced copy of another page."""
    return bool(tags.get(NEW_SUBFILE_TYPE, 0) & 1) or tags.get(SUBFILE_TYPE) == 2


def white_level(tags: Mapping[int, Any], levels: np.ndarray) -> int:
    """Return the level of white in an image of 9 to 16 bits (of black, if white is zero).

    The tag MaxSampleValue is used if it declares full 9 to 16 bits, as cameras do. Other
    programs store the highest level that occurs.

    Args:
      tags: The tags of the page.
      levels: The pixels, unsigned integers of any dtype.

    Raises:
      ValueError: If no tag declares the level and no pixel uses the upper 4 of 16 bits.
    """
    bits, highest = max(tags[BITS_PER_SAMPLE]), int(levels.max())
    if bits < 16:
        return 2**bits - 1
    declared = int(np.max(tags.get(MAX_SAMPLE_VALUE, 0)))
    if declared >= highest and declared in [2**n - 1 for n in range(9, 17)]:
        return declared
    # An image with only two levels is a mask.
    if 0 < highest < 4096 and np.unique(levels).size > 2:
        raise ValueError(
            f"its 16 bits hold levels up to {highest} only, which is nearly black; scale them "
            "(12 bits: multiply by 16), or declare the level of white in the tag MaxSampleValue"
        )
    return 65535
