"""Load, save, find, resize and crop images.

Images are float32 (H, W, C) with 0 for black and 1 for white, where C is 1 or 3.
"""

import io
import logging
import os
import pathlib
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from PIL import Image

from isnas_jax.io import decoding, records

SMALLEST_SIDE = 16

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

# Photographs, micrographs and medical images that are part of scikit-image.
SAMPLES = (
    "astronaut",
    "camera",
    "cell",
    "chelsea",
    "coffee",
    "coins",
    "immunohistochemistry",
    "microaneurysms",
    "moon",
    "retina",
    "rocket",
)


def load(path: str | os.PathLike[str]) -> np.ndarray:
    """Load an image file or a sample.

    Grayscale files give one channel, all others three. 16-bit gray, RGB and RGBA files (PNG,
    TIFF) keep their precision; other formats are reduced to 8 bits. Transparent pixels are
    blended with white. The EXIF orientation is applied.

    Args:
      path: A file that Pillow can read, or "sample:NAME" with a name in `SAMPLES`.

    Returns:
      (H, W, C) float32 in [0, 1]; for floating-point files in [-1, 2].

    Raises:
      ValueError: If the file is missing or not an image, has several pages, is smaller
        than 16 pixels on a side or larger than 2**30 / 12 pixels, contains values that
        are not finite or outside these ranges, or its level of white is unknown.
    """
    name = os.fspath(path)
    if name.startswith("sample:"):
        sample = Image.fromarray(_sample(name.removeprefix("sample:")))
        image = decoding.over_white(decoding.split(sample))
    else:
        with decoding.open_image(name) as opened:
            image = decoding.over_white(decoding.decode(name, opened))
    if min(image.shape[:2]) < SMALLEST_SIDE:
        raise ValueError(
            f"image {name!r} is {image.shape[0]} x {image.shape[1]} pixels; "
            f"the smallest side is {SMALLEST_SIDE}"
        )
    return image


def load_all(paths: Mapping[str, str], load: Callable[[str], T]) -> dict[str, T]:
    """Load images by name, and report all failures together.

    Args:
      paths: Paths by name, such as `find` returns.
      load: Loads one path, such as `images.load`.

    Raises:
      ValueError: If an image cannot be loaded, naming each one and the reason.
    """
    loaded, failures = {}, []
    for name, path in paths.items():
        try:
            loaded[name] = load(path)
        except ValueError as error:
            failures.append(str(error))
    if failures:
        count = f"{len(failures)} of {len(paths)} images cannot be loaded: "
        raise ValueError((count if len(paths) > 1 else "") + "; ".join(failures))
    return loaded


def bit_depth(path: str | os.PathLike[str]) -> int:
    """Return the bits per channel, 8 or 16, that preserve the precision of a loaded image.

    Args:
      path: A file or sample; see `load`.

    Raises:
      ValueError: If the file is missing or not a supported image.
    """
    name = os.fspath(path)
    if name.startswith("sample:"):
        return 8
    with decoding.open_image(name) as opened:
        return 16 if decoding.has_sixteen_bits(opened) else 8


def _sample(name: str) -> np.ndarray:
    if name not in SAMPLES:
        raise ValueError(f"sample {name!r} does not exist; choose from {', '.join(SAMPLES)}")
    try:
        import skimage.data
    except ImportError:
        raise ValueError("samples need scikit-image: pip install scikit-image") from None
    return getattr(skimage.data, name)()


def save(path: str | os.PathLike[str], image: np.ndarray, *, bits: int = 8) -> None:
    """Save an image, clipped to [0, 1] and rounded to the nearest level.

    Args:
      path: The file; its suffix determines the format.
      image: (H, W, C).
      bits: Bits per channel: 8, or 16 for PNG. 16-bit color needs pypng.

    Raises:
      ValueError: If the format is unknown or does not support the bits.
    """
    path = pathlib.Path(path)
    records.write_bytes(path, encode(image, path.name, bits=bits))


def encode(image: np.ndarray, name: str = "image.png", *, bits: int = 8) -> bytes:
    """Return the content of the file that `save` would write under a name."""
    suffix = pathlib.Path(name).suffix
    image_format = Image.registered_extensions().get(suffix.lower())
    if not image_format:
        raise ValueError(f"image format {suffix!r} does not exist; use .png, for example")
    if bits != 8 and (bits, image_format) != (16, "PNG"):
        raise ValueError(f"{name} cannot have {bits} bits; .png takes 8 or 16, others 8")
    content, dtype = io.BytesIO(), np.uint8 if bits == 8 else np.uint16
    levels = np.rint(np.clip(np.asarray(image), 0, 1) * np.iinfo(dtype).max).astype(dtype)
    if bits == 8 or levels.shape[-1] == 1:
        pillow = Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)
        pillow.save(content, image_format)
    else:
        import png

        height, width, _ = levels.shape
        writer = png.Writer(width, height, bitdepth=16, greyscale=False)
        writer.write(content, levels.reshape(height, -1))
    return content.getvalue()


def resize(image: np.ndarray, short_side: int) -> np.ndarray:
    """Resize a clean image (H, W, C), with antialiasing, to a given shorter side in pixels.

    Do not resize noisy images, because averaging pixels removes noise.
    """
    if short_side < SMALLEST_SIDE:
        raise ValueError(f"the shorter side must be at least {SMALLEST_SIDE}, not {short_side}")
    height, width = image.shape[:2]
    scale = short_side / min(height, width)
    size = (round(width * scale), round(height * scale))
    channels = [
        Image.fromarray(np.asarray(channel, np.float32)).resize(size, Image.Resampling.LANCZOS)
        for channel in np.moveaxis(image, -1, 0)
    ]
    return np.clip(np.stack([np.asarray(channel) for channel in channels], axis=-1), 0, 1)


def crop_to_multiple(image: np.ndarray, factor: int) -> np.ndarray:
    """Crop the bottom and right so that both sides are multiples of `factor`."""
    height, width = (side - side % factor for side in image.shape[:2])
    return image[:height, :width]


def crop_to_square(image: np.ndarray) -> np.ndarray:
    """Crop the largest square at the center."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def gray(image: np.ndarray) -> np.ndarray:
    """Convert RGB to gray, (H, W, 1), with the weights of ITU-R BT.601; return gray unchanged."""
    if image.shape[-1] == 1:
        return image
    return image @ np.array([[0.299], [0.587], [0.114]], np.float32)


def find(paths: Sequence[str]) -> dict[str, str]:
    """Return the paths of images by name, from samples, files and folders.

    The name of a file is its stem. The images of a folder are sorted by name, in the same
    order on all systems. Hidden files and subfolders are skipped. Other files that are not
    images are skipped with a warning.

    Raises:
      ValueError: If a folder contains no image, or two images have one name; upper and
        lower case do not differ.
    """
    files: list[tuple[str, str]] = []
    for path in paths:
        if path.startswith("sample:"):
            files.append((path.removeprefix("sample:"), path))
        else:
            found = _find_in_folder(pathlib.Path(path)) if os.path.isdir(path) else [path]
            files += [(_normalize(pathlib.Path(file).stem), file) for file in found]
    seen: dict[str, str] = {}
    for name, file in files:
        if (other := seen.setdefault(name.casefold(), file)) is not file:
            raise ValueError(f"two images are called {name!r}: {other} and {file}")
    return dict(files)


def _normalize(name: str) -> str:
    """Return a file name with composed accents, which some systems store decomposed."""
    return unicodedata.normalize("NFC", name)


def _find_in_folder(folder: pathlib.Path) -> list[str]:
    visible = [path for path in folder.iterdir() if path.name[0] != "." and not path.is_dir()]
    visible.sort(key=lambda path: (_normalize(path.name), path.name))
    supported = decoding.suffixes()
    skipped = ", ".join(path.name for path in visible if path.suffix.lower() not in supported)
    found = [str(path) for path in visible if path.suffix.lower() in supported]
    if not found:
        raise ValueError(
            f"folder {str(folder)!r} holds no image that can be read, but "
            f"{skipped or 'no files'}; subfolders are not searched"
        )
    if skipped:
        _LOG.warning("folder %r: skipped %s, which cannot be read", str(folder), skipped)
    return found
