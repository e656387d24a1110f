"""Masks as image editors save them."""

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


def gray(level_missing, level_known, dtype=np.uint8):
    return np.where(KNOWN, level_known, level_missing).astype(dtype)


def enlarged(pixels, factor):
    return pixels.repeat(factor, 0).repeat(factor, 1)


def layers(*levels):
    return np.dstack(
        [np.broadcast_to(np.asarray(level, np.uint8), KNOWN.shape) for level in levels]
    )


def jpeg(pixels):
    pixels, content = enlarged(pixels, 4), io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=85)
    return np.asarray(Image.open(content))


MASKS = {
    "black and white": WHITE,
    "1 bit": KNOWN,
    "RGB": layers(WHITE, WHITE, WHITE),
    "0 and 1": gray(0, 1),
    "0 and 1 in RGB": layers(KNOWN, KNOWN, KNOWN),
    "0 and 1 of 16 bits": gray(0, 1, np.uint16),
    "16 bits": gray(0, 65535, np.uint16),
    "nearly black and white": gray(12, 240),
    "the red channel": layers(WHITE, 0, 0),
    "red holes on white": layers(255, WHITE, WHITE),
    "holes erased from white": layers(WHITE, WHITE),
    "holes erased from white that lose their color": layers(WHITE, WHITE, WHITE, WHITE),
    "holes erased from white that keep it": layers(255, 255, 255, WHITE),
    "holes painted black on a transparent layer": layers(0, 0, 0, 255 - WHITE),
    "holes erased from the photograph": np.dstack([PHOTOGRAPH, WHITE]),
}


@pytest.mark.parametrize("name", MASKS)
def test_holes_are_found_wherever_an_editor_puts_them(name, tmp_path, caplog):
    Image.fromarray(MASKS[name]).save(tmp_path / "mask.png")
    mask = load_mask(tmp_path / "mask.png")
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(mask, KNOWN[..., None])
    assert not caplog.messages


def test_other_files_of_masks(tmp_path):
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
        writer.write(file, np.dstack([gray(0, 1, np.uint16)] * 3).reshape(40, -1))
    tiffs = {
        "float": (gray(0, 1, np.float32), "minisblack"),
        "levels": (gray(0, 255, np.float32), "minisblack"),
        "labels": (gray(0, 1, np.uint16), "minisblack"),
        "inverted8": (255 - WHITE, "miniswhite"),
        "inverted16": (gray(65535, 0, np.uint16), "miniswhite"),
    }
    for name, (pixels, photometric) in tiffs.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric=photometric)
    found = sorted(tmp_path.iterdir())
    assert len(found) == 10
    for path in found:
        np.testing.assert_array_equal(load_mask(path)[..., 0], KNOWN, err_msg=path.name)


def smooth(pixels):
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(0.4)))


@pytest.mark.parametrize(
    "pixels", [jpeg(WHITE), jpeg(MASKS["RGB"]), jpeg(MASKS["red holes on white"]), smooth(WHITE)]
)
def test_few_grays_are_rounded_with_a_warning(pixels, tmp_path, caplog):
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    mask = load_mask(tmp_path / "mask.png")[..., 0]
    assert np.isin(mask, (0, 1)).all()
    assert (mask != enlarged(KNOWN, len(mask) // len(KNOWN))).mean() < 0.02
    assert "mask.png' holds grays in " in caplog.text


REFUSED = {
    "white": (layers(255), "leaves no pixel missing"),
    "white in RGBA": (layers(255, 255, 255, 255), "leaves no pixel missing"),
    "nearly white": (gray(254, 255), "leaves no pixel missing"),
    "black": (layers(0), "leaves no pixel known"),
    "labels": (gray(1, 2), "leaves no pixel known"),
    "red": (layers(255, 0, 0), "leaves no pixel missing"),
    "transparent": (layers(255, 255, 255, 0), "transparent all over"),
    "grays": (smooth(smooth(gray(60, 200))), r"holds grays in 100% of its pixels"),
    "a photograph": (PHOTOGRAPH, "holds grays"),
    "red and green": (layers(WHITE, 255 - WHITE, 0), "colors that are neither"),
    "red strokes on a layer": (layers(255, 0, 0, 255 - WHITE), "whether transparent means"),
    "black and white with holes": (
        np.dstack([np.tile(np.uint8([0, 255]), (40, 24)), WHITE]),
        "whether transparent means",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_masks_that_say_nothing_are_refused(name, tmp_path):
    pixels, message = REFUSED[name]
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match=f"^mask .*x.png' .*{message}.*save it in black"):
        load_mask(tmp_path / "x.png")


def test_a_mask_is_read_like_an_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    Image.fromarray(WHITE).rotate(90, expand=True).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(load_mask(tmp_path / "x.png")[..., 0], KNOWN)
    for name, message in (("none.png", "does not exist"), ("x.txt", "cannot be read as an image")):
        (tmp_path / "x.txt").write_text("no image")
        with pytest.raises(ValueError, match=message):
            load_mask(tmp_path / name)


@pytest.mark.parametrize("hole", [0, 255])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_an_inverted_mask_is_refused(hole, suffix, tmp_path):
    mask = enlarged(KNOWN, 4)[..., None].astype(np.float32)
    picture = images.load("sample:chelsea")[:160, :192]
    levels = np.where(mask, np.rint(255 * picture), hole).astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / f"x.{suffix}", quality=95)
    observed = images.load(tmp_path / f"x.{suffix}")
    check_mask(mask, observed)
    check_mask(1 - mask, picture)
    check_mask(1 - mask, observed[:40])
    # White holes in a night sky are no inversion.
    check_mask(mask, np.broadcast_to(1 - mask, picture.shape))
    color = "white" if hole else "black"
    with pytest.raises(ValueError, match=f"seems inverted: .*known are {color} in the image"):
        check_mask(1 - mask, observed)
