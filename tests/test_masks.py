"""Test reading masks as image editors save them."""

import io

import numpy as np
import png
import pytest
import tifffile
from PIL import Image, ImageFilter

from isnas_jax.io import check_mask, images, load_mask

KNOWN = np.ones((40, 48), bool)
KNOWN[8:20, 10:30] = KNOWN[30:33] = False
WHITE = KNOWN * np.uint8(255)
PHOTOGRAPH = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)


def two_levels(level_missing, level_known, dtype=np.uint8):
    return np.where(KNOWN, level_known, level_missing).astype(dtype)


def upsample(pixels, factor):
    return pixels.repeat(factor, 0).repeat(factor, 1)


def stack_channels(*levels):
    return np.dstack(
        [np.broadcast_to(np.asarray(level, np.uint8), KNOWN.shape) for level in levels]
    )


def jpeg_compress(pixels):
    pixels, content = upsample(pixels, 4), io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=85)
    return np.asarray(Image.open(content))


MASKS = {
    "black and white": WHITE,
    "1 bit": KNOWN,
    "RGB": stack_channels(WHITE, WHITE, WHITE),
    "0 and 1": two_levels(0, 1),
    "0 and 1 in RGB": stack_channels(KNOWN, KNOWN, KNOWN),
    "0 and 1 of 16 bits": two_levels(0, 1, np.uint16),
    "16 bits": two_levels(0, 65535, np.uint16),
    "nearly black and white": two_levels(12, 240),
    "holes erased from white": stack_channels(WHITE, WHITE),
    "holes erased from white, their color set to black": stack_channels(WHITE, WHITE, WHITE, WHITE),
    "holes erased from white, their color kept": stack_channels(255, 255, 255, WHITE),
    "holes painted black on a transparent layer": stack_channels(0, 0, 0, 255 - WHITE),
    "holes erased from the photograph": np.dstack([PHOTOGRAPH, WHITE]),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_in_any_levels(name, tmp_path, caplog):
    Image.fromarray(MASKS[name]).save(tmp_path / "mask.png")
    mask = load_mask(tmp_path / "mask.png")
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(mask, KNOWN[..., None])
    assert not caplog.messages


def test_masks_in_other_file_formats(tmp_path):
    palette = Image.fromarray(KNOWN.astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    palette.save(tmp_path / "palette.png")
    palette.save(tmp_path / "palette.gif")
    transparent = Image.fromarray(KNOWN.astype(np.uint8), "P")
    transparent.putpalette([255, 255, 255, 255, 255, 255])
    transparent.save(tmp_path / "transparent.png", transparency=0)
    Image.fromarray(WHITE).save(tmp_path / "x.bmp")
    with open(tmp_path / "deep.png", "wb") as file:
        writer = png.Writer(48, 40, bitdepth=16, greyscale=False)
        writer.write(file, np.dstack([two_levels(0, 1, np.uint16)] * 3).reshape(40, -1))
    tiffs = {
        "float": (two_levels(0, 1, np.float32), "minisblack"),
        "levels": (two_levels(0, 255, np.float32), "minisblack"),
        "labels": (two_levels(0, 1, np.uint16), "minisblack"),
        "inverted8": (255 - WHITE, "miniswhite"),
        "inverted16": (two_levels(65535, 0, np.uint16), "miniswhite"),
    }
    for name, (pixels, photometric) in tiffs.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric=photometric)
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 10
    for path in paths:
        np.testing.assert_array_equal(load_mask(path)[..., 0], KNOWN, err_msg=path.name)


def blur(pixels):
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(0.4)))


@pytest.mark.parametrize(
    "pixels",
    [
        jpeg_compress(WHITE),
        jpeg_compress(MASKS["RGB"]),
        blur(WHITE),
    ],
)
def test_few_gray_pixels_are_rounded_with_a_warning(pixels, tmp_path, caplog):
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    mask = load_mask(tmp_path / "mask.png")[..., 0]
    assert np.isin(mask, (0, 1)).all()
    assert (mask != upsample(KNOWN, len(mask) // len(KNOWN))).mean() < 0.02
    assert "mask.png' holds grays in " in caplog.text


REFUSED = {
    "white": (stack_channels(255), "leaves no pixel missing"),
    "white in RGBA": (stack_channels(255, 255, 255, 255), "leaves no pixel missing"),
    "nearly white": (two_levels(254, 255), "leaves no pixel missing"),
    "black": (stack_channels(0), "leaves no pixel known"),
    "labels": (two_levels(1, 2), "leaves no pixel known"),
    "the red channel": (stack_channels(WHITE, 0, 0), "holds colors"),
    "red holes on white": (stack_channels(255, WHITE, WHITE), "holds colors"),
    "transparent": (stack_channels(255, 255, 255, 0), "transparent everywhere"),
    "grays": (blur(blur(two_levels(60, 200))), r"holds grays in 100% of its pixels"),
    "a photograph": (PHOTOGRAPH, "holds colors"),
    "red strokes on a layer": (stack_channels(255, 0, 0, 255 - WHITE), "whether transparent means"),
    "black and white with holes": (
        np.dstack([np.tile(np.uint8([0, 255]), (40, 24)), WHITE]),
        "whether transparent means",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_ambiguous_masks_are_refused(name, tmp_path):
    pixels, message = REFUSED[name]
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match=f"^mask .*x.png' .*{message}.*save it in black"):
        load_mask(tmp_path / "x.png")


def test_masks_apply_exif_orientation_and_report_unreadable_files(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to view
    Image.fromarray(WHITE).rotate(90, expand=True).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(load_mask(tmp_path / "x.png")[..., 0], KNOWN)
    for name, message in (("none.png", "does not exist"), ("x.txt", "cannot be read as an image")):
        (tmp_path / "x.txt").write_text("no image")
        with pytest.raises(ValueError, match=message):
            load_mask(tmp_path / name)


@pytest.mark.parametrize("hole_level", [0, 255])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_an_inverted_mask_is_refused(hole_level, suffix, tmp_path):
    mask = upsample(KNOWN, 4)[..., None].astype(np.float32)
    clean = images.load("sample:chelsea")[:160, :192]
    levels = np.where(mask, np.rint(255 * clean), hole_level).astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / f"x.{suffix}", quality=95)
    observed = images.load(tmp_path / f"x.{suffix}")
    check_mask(mask, observed)
    check_mask(1 - mask, clean)
    check_mask(1 - mask, observed[:40])
    # A black image with white holes is not inverted.
    check_mask(mask, np.broadcast_to(1 - mask, clean.shape))
    color = "white" if hole_level else "black"
    with pytest.raises(ValueError, match=f"seems inverted: .*known are {color} in the image"):
        check_mask(1 - mask, observed)
