"""Image files to arrays and back: float32 (H, W, C) in [0, 1], C = 1 or 3."""

import contextlib
import io
import math
import os
import pathlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps

from isnas_jax.io import records

SMALLEST_SIDE = 16
# A gigabyte of float32 in colour.
MOST_PIXELS = 2**30 // 12

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
    """Loads an image.

    Greyscale gives one channel, everything else three. Of 16 bits a channel all count in grey,
    RGB and RGBA (PNG, TIFF), the upper eight elsewhere.
    Transparency is composed over white, and a photograph is turned as its
    camera was held (EXIF). Floating-point files must already lie in [0, 1].

    Args:
      path: A file Pillow can read, or "sample:NAME" with a name in `SAMPLES`.

    Returns:
      (H, W, C) float32 in [0, 1].

    Raises:
      ValueError: If the file is missing, is not an image, is smaller than 16
        pixels on a side, has more than 2**30 / 12 pixels, or is a TIFF of 16 bits whose
        channels lie in planes.
    """
    name = os.fspath(path)
    if name.startswith("sample:"):
        image = _from_array(_sample(name.removeprefix("sample:")))
    else:
        with _read(name) as opened:
            if _has_deep_colour(opened):
                with _lower_half(name) as lower:
                    image = _deep_colour(opened, lower)
            else:
                image = _from_pillow(ImageOps.exif_transpose(opened))
    if min(image.shape[:2]) < SMALLEST_SIDE:
        raise ValueError(
            f"image {name!r} is {image.shape[0]} x {image.shape[1]} pixels; "
            f"the smallest side is {SMALLEST_SIDE}"
        )
    return image


def bits(path: str | os.PathLike[str]) -> int:
    """How many bits a channel needs to be saved as it was loaded, 8 or 16; see `load`.

    Args:
      path: As for `load`.

    Raises:
      ValueError: If the file is missing or is no image that `load` takes.
    """
    name = os.fspath(path)
    if name.startswith("sample:"):
        return 8
    with _read(name) as opened:
        return 16 if opened.mode[0] in "IF" or _has_deep_colour(opened) else 8


@contextlib.contextmanager
def _read(name: str) -> Iterator[ImageFile.ImageFile]:
    """Opens an image file; ValueError for what goes wrong with it."""
    try:
        with _opened(name) as opened:
            if math.prod(opened.size) > MOST_PIXELS:
                raise ValueError(f"{opened.size} pixels are more than {MOST_PIXELS:,}")
            # TIFF's PlanarConfiguration and BitsPerSample: Pillow reads these wrongly.
            tags = getattr(opened, "tag_v2", {})
            if tags.get(284) == 2 and max(tags.get(258, (8,))) > 8:
                raise ValueError("its 16 bits lie in a plane for each channel")
            yield opened
    except FileNotFoundError:
        raise ValueError(f"image {name!r} does not exist") from None
    except Exception as error:  # of damaged files Pillow's decoders raise many kinds
        raise ValueError(f"{name!r} cannot be read as an image: {error}") from None


def _opened(name: str) -> ImageFile.ImageFile:
    with warnings.catch_warnings():
        # Pillow warns of what is refused here, and refuses twice as many itself.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(name)


# Raw modes of 16 bits a channel, of which Pillow keeps the upper eight, and those that keep the
# lower: of the other byte order (N is the machine's own).
_UPPER_TO_LOWER = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA")
    for order, other in (("L", "B"), ("B", "L"), ("N", "B" if sys.byteorder == "little" else "L"))
}


def _lower(tile: Any) -> Any:
    """Where the lower eight bits of a file's pixels lie; None if they have no more than eight."""
    raw, *others = (tile.args,) if isinstance(tile.args, str) else tile.args or (None,)
    return tile._replace(args=(_UPPER_TO_LOWER[raw], *others)) if raw in _UPPER_TO_LOWER else None


def _has_deep_colour(image: ImageFile.ImageFile) -> bool:
    """Whether an open file holds colour of 16 bits a channel."""
    return any(map(_lower, image.tile))


def _lower_half(name: str) -> Image.Image:
    """The lower eight bits of such a file, as an image of their own."""
    opened = _opened(name)
    opened.tile = [_lower(tile) for tile in opened.tile]
    return opened


def _deep_colour(upper: Image.Image, lower: Image.Image) -> np.ndarray:
    """All bits of such a file, in (H, W, 3)."""
    high, low = (np.asarray(ImageOps.exif_transpose(half), np.float32) for half in (upper, lower))
    levels = 256 * high + low
    pixels = levels / np.float32(65535)
    if pixels.shape[-1] == 4:
        opaque = pixels[..., 3:]
        pixels = opaque * pixels[..., :3] + (1 - opaque)
    return _with_white(pixels, levels, upper)


def _with_white(pixels: np.ndarray, levels: np.ndarray, image: Image.Image) -> np.ndarray:
    """White where an image of 16 bits has the colour that it calls transparent."""
    transparent = image.info.get("transparency")
    if transparent is None:
        return pixels
    return np.where((levels == transparent).all(axis=-1, keepdims=True), np.float32(1), pixels)


def _sample(name: str) -> np.ndarray:
    if name not in SAMPLES:
        raise ValueError(f"sample {name!r} does not exist; choose from {', '.join(SAMPLES)}")
    try:
        import skimage.data
    except ImportError:
        raise ValueError("samples need scikit-image: pip install scikit-image") from None
    return getattr(skimage.data, name)()


def _from_array(array: np.ndarray) -> np.ndarray:
    return _from_pillow(Image.fromarray(array))


def _from_pillow(image: Image.Image) -> np.ndarray:
    """Scales by the mode's range; composes transparency over white."""
    if image.mode.startswith("I"):
        levels = np.asarray(image, np.float32)[..., None]
        pixels = _with_white(levels / np.float32(65535), levels, image)
    elif image.mode == "F":
        pixels = np.asarray(image, np.float32)
    else:
        if image.has_transparency_data:
            opaque = Image.new("RGBA", image.size, "white")
            opaque.alpha_composite(image.convert("RGBA"))
            image = opaque.convert("L" if image.mode in ("LA", "L", "1") else "RGB")
        elif image.mode != "L":
            image = image.convert("L" if image.mode == "1" else "RGB")
        pixels = np.asarray(image, np.float32) / np.float32(255)
    if not (pixels.min() >= 0 and pixels.max() <= 1):
        raise ValueError(
            f"an image with values from {pixels.min()} to {pixels.max()}, where 0 to 1 is needed"
        )
    return pixels.reshape(*pixels.shape[:2], -1)


def save(path: str | os.PathLike[str], image: np.ndarray, *, bits: int = 8) -> None:
    """Writes (H, W, C) in [0, 1], rounded to the nearest level and clipped.

    Args:
      path: The file; its suffix says in what format.
      image: (H, W, C).
      bits: Of a channel: 8, or 16 for PNG (in colour by pypng).

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


def grey(image: np.ndarray) -> np.ndarray:
    """(H, W, 1): the weights of ITU-R BT.601 for RGB, grey as it is."""
    if image.shape[-1] == 1:
        return image
    return image @ np.array([[0.299], [0.587], [0.114]], np.float32)


def find(places: Sequence[str]) -> dict[str, str]:
    """Images by name: samples, files, and all readable files of folders, in their order.

    Raises:
      ValueError: If a place does not exist, a folder holds no image, or two
        images have one name.
    """
    suffixes = Image.registered_extensions()
    found: dict[str, str] = {}
    for place in places:
        path = pathlib.Path(place)
        files = [place]
        if path.is_dir():
            inside = sorted(path.iterdir())
            files = [str(file) for file in inside if file.suffix.lower() in suffixes]
            if not files:
                raise ValueError(f"folder {place!r} holds no image")
        for file in files:
            name = (
                file.removeprefix("sample:")
                if file.startswith("sample:")
                else pathlib.Path(file).stem
            )
            if name in found:
                raise ValueError(f"two images are called {name!r}: {found[name]} and {file}")
            found[name] = file
    return found
