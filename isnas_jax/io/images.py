"""Image files to arrays and back: float32 (H, W, C), 0 is black and 1 is white, C = 1 or 3."""

import io
import logging
import os
import pathlib
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from PIL import Image

from isnas_jax.io import decoding, records

SMALLEST_SIDE = 16

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_LOSSLESS = (".tif", ".tiff", ".png", ".bmp", ".ppm", ".pgm")
# Photographs of telephones, cameras and microscopes that Pillow does not read.
_UNREADABLE = {".heic", ".heif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2"}
_UNREADABLE |= {".raf", ".pef", ".srw", ".czi", ".lif", ".nd2"}

# Photographs, micrographs and medical images that scikit-image ships with, no download needed.
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
    """Load an image.

    Grayscale gives one channel, everything else three. Of 16 bits a channel all count in gray
    and RGB, with or without alpha (PNG, TIFF), the upper eight elsewhere.
    Transparency is composed over white, and a photograph is turned as its
    camera was held (EXIF). Floating-point files may exceed [0, 1] by noise.

    Args:
      path: A file Pillow can read, or "sample:NAME" with a name in `SAMPLES`.

    Returns:
      (H, W, C) float32 in [0, 1]; of floating-point files in [-1, 2].

    Raises:
      ValueError: If the file is missing, is not an image, is smaller than 16
        pixels on a side, has more than 2**30 / 12 pixels or several pages, holds values
        that are not finite or outside of these ranges, or does not say what is white.
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
    """Load images, and report all that fail at once.

    Args:
      paths: By name; see `find`.
      load: Of a path, `load` or a function that calls it.

    Raises:
      ValueError: Naming every image that could not be loaded, and why.
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


def bits(path: str | os.PathLike[str]) -> int:
    """Return how many bits a channel needs to be saved as it was loaded, 8 or 16; see `load`.

    Args:
      path: As for `load`.

    Raises:
      ValueError: If the file is missing or is no image that `load` takes.
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
    """Writes (H, W, C) in [0, 1], rounded to the nearest level and clipped.

    Args:
      path: The file; its suffix says in what format.
      image: (H, W, C).
      bits: Of a channel: 8, or 16 for PNG (in color by pypng).

    Raises:
      ValueError: For a format that is not known, or has not so many bits.
    """
    path = pathlib.Path(path)
    records.write_bytes(path, encode(image, path.name, bits=bits))


def encode(image: np.ndarray, name: str = "image.png", *, bits: int = 8) -> bytes:
    """The content of an image file of this name, as `save` writes it."""
    suffix = pathlib.Path(name).suffix
    kind = Image.registered_extensions().get(suffix.lower())
    if not kind:
        raise ValueError(f"no image format is called {suffix!r}; .png is one")
    if bits != 8 and (bits, kind) != (16, "PNG"):
        raise ValueError(f"{name} cannot have {bits} bits; .png takes 8 or 16, others 8")
    content, level = io.BytesIO(), np.uint8 if bits == 8 else np.uint16
    levels = np.rint(np.clip(np.asarray(image), 0, 1) * np.iinfo(level).max).astype(level)
    if bits == 8 or levels.shape[-1] == 1:
        pillow = Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)
        pillow.save(content, kind)
    else:
        import png

        height, width, _ = levels.shape
        writer = png.Writer(width, height, bitdepth=16, greyscale=False)
        writer.write(content, levels.reshape(height, -1))
    return content.getvalue()


def resize(image: np.ndarray, short_side: int) -> np.ndarray:
    """Resizes (H, W, C) with antialiasing so that its shorter side has this many pixels.

    Only for clean images: it averages noise away.
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
    """Cuts rows and columns off the end until both sides are multiples of a factor."""
    height, width = (side - side % factor for side in image.shape[:2])
    return image[:height, :width]


def crop_to_square(image: np.ndarray) -> np.ndarray:
    """Cuts out the middle square."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def gray(image: np.ndarray) -> np.ndarray:
    """(H, W, 1): the weights of ITU-R BT.601 for RGB, gray as it is."""
    if image.shape[-1] == 1:
        return image
    return image @ np.array([[0.299], [0.587], [0.114]], np.float32)


def find(places: Sequence[str]) -> dict[str, str]:
    """Find images by name: samples, files, and the image files of folders.

    A folder gives its files in the order of their names, the same on all systems. Hidden files
    and subfolders do not count. Of files that differ by suffix or case only, a
    lossless one counts; a warning names the others.

    Raises:
      ValueError: If a folder holds no image, or images of two places have one name.
    """
    found: dict[str, str] = {}
    for place in places:
        if place.startswith("sample:"):
            inside = {place.removeprefix("sample:"): place}
        elif os.path.isdir(place):
            inside = _inside(pathlib.Path(place))
        else:
            inside = {_composed(pathlib.Path(place).stem): place}
        taken = {name.casefold(): name for name in found}
        for name, file in inside.items():
            if other := taken.get(name.casefold()):
                raise ValueError(f"two images are called {name!r}: {found[other]} and {file}")
        found |= inside
    return found


def _composed(name: str) -> str:
    """A file's name in the one spelling of accents that does not depend on the system."""
    return unicodedata.normalize("NFC", name)


def _inside(folder: pathlib.Path) -> dict[str, str]:
    """Files of a folder by name."""
    visible = [path for path in folder.iterdir() if path.name[0] != "." and not path.is_dir()]
    visible.sort(key=lambda path: (_composed(path.name), path.name))
    known = decoding.suffixes()
    files = [path for path in visible if path.suffix.lower() in known]
    if not files:
        kinds = ", ".join(sorted({path.suffix or path.name for path in visible})) or "no files"
        raise ValueError(
            f"folder {str(folder)!r} holds no image that can be read, but {kinds}; "
            "subfolders are not searched"
        )

    def key(path: pathlib.Path) -> str:
        return _composed(path.stem).casefold()

    chosen: dict[str, pathlib.Path] = {}
    for path in sorted(files, key=lambda path: path.suffix.lower() not in _LOSSLESS):
        chosen.setdefault(key(path), path)
    _warn_skipped("has the name of another image", [p for p in files if chosen[key(p)] != p])
    photographs = [path for path in visible if path.suffix.lower() in _UNREADABLE]
    _warn_skipped("cannot be read", [path for path in photographs if key(path) not in chosen])
    return {_composed(path.stem): str(path) for path in files if chosen[key(path)] == path}


def _warn_skipped(reason: str, paths: Iterable[pathlib.Path]) -> None:
    for path in paths:
        _LOG.warning("%r %s and is skipped", str(path), reason)
