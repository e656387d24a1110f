"""Test loading, saving, finding, resizing and cropping images."""

import struct
import zlib

import numpy as np
import png
import pytest
import tifffile
from PIL import Image

from isnas_jax.io import images


def test_8_bit_images_round_trip(tmp_path):
    for shape in ((16, 20, 1), (16, 20, 3)):
        levels = np.random.default_rng(0).integers(0, 256, shape)
        image = (levels / 255).astype(np.float32)
        images.save(tmp_path / "x.png", image)
        loaded = images.load(tmp_path / "x.png")
        assert loaded.dtype == np.float32
        np.testing.assert_allclose(loaded, image, atol=1e-7)


def test_save_rounds_and_clips(tmp_path):
    row = np.array([-0.2, 0.4999 / 255, 0.5001 / 255, 1.3], np.float32)
    images.save(tmp_path / "x.png", np.broadcast_to(row[None, :, None], (16, 4, 1)))
    assert np.asarray(Image.open(tmp_path / "x.png"))[0].tolist() == [0, 0, 1, 255]


def test_16_bit_gray_keeps_its_precision(tmp_path):
    levels = np.arange(16 * 16, dtype=np.uint16).reshape(16, 16) * 257
    Image.fromarray(levels).save(tmp_path / "x.png")
    np.testing.assert_allclose(images.load(tmp_path / "x.png")[..., 0], levels / 65535, atol=1e-7)


def write_16_bit_color(path, levels):
    """Write a 16-bit PNG or TIFF file without Pillow; the name selects the TIFF options."""
    if path.suffix == ".tif":
        byte_order = "<" if path.stem == "little" else ">"
        compression = "zlib" if path.stem == "zlib" else None
        options = {"byteorder": byte_order, "compression": compression}
        tifffile.imwrite(path, levels, photometric="rgb", **options)
        return
    height, width, channels = levels.shape
    with open(path, "wb") as file:
        writer = png.Writer(width, height, bitdepth=16, greyscale=False, alpha=channels == 4)
        writer.write(file, levels.reshape(height, -1))


@pytest.mark.parametrize("name", ["x.png", "big.tif", "little.tif", "zlib.tif"])
def test_16_bit_color_keeps_its_precision(name, tmp_path):
    levels = np.random.default_rng(0).integers(0, 2**16, (16, 20, 3), np.uint16)
    write_16_bit_color(tmp_path / name, levels)
    np.testing.assert_allclose(images.load(tmp_path / name), levels / 65535, atol=1e-7)
    assert images.bit_depth(tmp_path / name) == 16


def test_save_16_bits(tmp_path):
    levels = np.random.default_rng(0).integers(0, 2**16, (16, 20, 3), np.uint16)
    images.save(tmp_path / "color.png", levels / 65535, bits=16)
    rows = png.Reader(filename=str(tmp_path / "color.png")).asDirect()[2]
    np.testing.assert_array_equal(np.vstack([*map(np.asarray, rows)]), levels.reshape(16, -1))
    images.save(tmp_path / "x.png", levels[..., :1] / 65535, bits=16)
    np.testing.assert_array_equal(Image.open(tmp_path / "x.png"), levels[..., 0])
    assert images.bit_depth(tmp_path / "x.png") == 16
    images.save(tmp_path / "y.png", levels / 65535)
    assert images.bit_depth(tmp_path / "y.png") == images.bit_depth("sample:camera") == 8
    with pytest.raises(ValueError, match=r"x.jpg cannot have 16 bits"):
        images.save(tmp_path / "x.jpg", levels / 65535, bits=16)


def test_16_bits_are_oriented_and_blended_like_8_bits(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (16, 20, 4), np.uint8)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(levels).save(tmp_path / "eight.png", exif=exif)
        write_16_bit_color(tmp_path / "x.png", levels * np.uint16(257))
        # pypng cannot write EXIF. Insert the chunk after the header, which has 33 bytes.
        content = (tmp_path / "x.png").read_bytes()
        exif_data = exif.tobytes().removeprefix(b"Exif\0\0")
        chunk = b"eXIf" + exif_data
        chunk = struct.pack(">I", len(exif_data)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        (tmp_path / "sixteen.png").write_bytes(content[:33] + chunk + content[33:])
        eight, sixteen = (images.load(tmp_path / f"{name}.png") for name in ("eight", "sixteen"))
        np.testing.assert_allclose(sixteen, eight, atol=1 / 255)


@pytest.mark.parametrize("gray", [True, False])
def test_16_bit_transparent_color_becomes_white(gray, tmp_path):
    levels = np.full((16, 16, 1 if gray else 3), 513, np.uint16)
    levels[8:] = 514  # the upper eight bits are equal
    transparent = 514 if gray else (514,) * 3
    with open(tmp_path / "x.png", "wb") as file:
        writer = png.Writer(16, 16, greyscale=gray, bitdepth=16, transparent=transparent)
        writer.write(file, levels.reshape(16, -1))
    loaded = images.load(tmp_path / "x.png")
    np.testing.assert_allclose(loaded[:8], 513 / 65535, atol=1e-7)
    np.testing.assert_array_equal(loaded[8:], 1)


def test_transparency_is_blended_with_white(tmp_path):
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[:8] = (255, 0, 0, 255)
    Image.fromarray(rgba).save(tmp_path / "x.png")
    loaded = images.load(tmp_path / "x.png")
    np.testing.assert_array_equal(loaded[0, 0], [1, 0, 0])
    np.testing.assert_array_equal(loaded[-1, 0], [1, 1, 1])


def test_exif_orientation_is_applied(tmp_path):
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to view
    Image.fromarray(upright).rotate(90, expand=True).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(images.load(tmp_path / "x.png"), upright / 255)


def test_gray_with_alpha_stays_gray(tmp_path):
    Image.new("LA", (16, 16), (51, 255)).save(tmp_path / "x.png")
    np.testing.assert_allclose(
        images.load(tmp_path / "x.png"), np.full((16, 16, 1), 0.2), atol=1e-6
    )


def test_16_bit_gray_with_alpha_stays_gray(tmp_path):
    levels = np.random.default_rng(0).integers(0, 2**16, (16, 20, 2), np.uint16)
    levels[:4, :, 1], levels[4:8, :, 1] = 0, 65535
    with open(tmp_path / "x.png", "wb") as file:
        writer = png.Writer(20, 16, bitdepth=16, greyscale=True, alpha=True)
        writer.write(file, levels.reshape(16, -1))
    gray, alpha = levels[..., :1] / 65535, levels[..., 1:] / 65535
    loaded = images.load(tmp_path / "x.png")
    np.testing.assert_allclose(loaded, alpha * gray + 1 - alpha, atol=1e-6)
    assert images.bit_depth(tmp_path / "x.png") == 16


def test_palette_with_a_transparent_color(tmp_path):
    indices = np.random.default_rng(0).integers(0, 3, (16, 20), np.uint8)
    palette = Image.fromarray(indices, "P")
    palette.putpalette([255, 0, 0, 0, 0, 255, 0, 255, 0])
    for suffix in ("png", "gif"):
        palette.save(tmp_path / f"x.{suffix}", transparency=1)
        expected = np.array([[1, 0, 0], [1, 1, 1], [0, 1, 0]])[indices]
        np.testing.assert_array_equal(images.load(tmp_path / f"x.{suffix}"), expected)


def test_cmyk_is_converted_to_rgb(tmp_path):
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[:8, :, 1:3] = 255  # magenta and yellow: red
    image = Image.fromarray(ink, "CMYK")
    for suffix in ("jpg", "tif"):  # CMYK JPEG files are stored inverted, as by Adobe
        image.save(tmp_path / f"x.{suffix}")
        loaded = images.load(tmp_path / f"x.{suffix}")
        np.testing.assert_allclose(loaded[:7], np.broadcast_to([1, 0, 0], (7, 16, 3)), atol=0.05)
        np.testing.assert_allclose(loaded[9:], 1, atol=0.05)


def test_netpbm_is_scaled_by_its_maximum(tmp_path):
    levels = np.random.default_rng(0).integers(0, 4096, (16, 20)).astype(">u2")
    (tmp_path / "x.pgm").write_bytes(b"P5 20 16 4095\n" + levels.tobytes())
    loaded = images.load(tmp_path / "x.pgm")
    np.testing.assert_allclose(loaded[..., 0], levels / 4095, atol=1 / 65535)


def test_samples_load():
    for name in images.SAMPLES:
        image = images.load(f"sample:{name}")
        assert min(image.shape[:2]) > 100
        assert image.std() > 0.03


def test_resize_sets_the_short_side():
    image = images.resize(np.random.default_rng(0).uniform(size=(60, 90, 3)), 40)
    assert image.shape == (40, 60, 3)
    assert image.dtype == np.float32


def test_gray_agrees_with_pillow(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (16, 20, 3), np.uint8)
    expected = np.asarray(Image.fromarray(levels).convert("L"))
    np.testing.assert_allclose(images.gray(levels / 255)[..., 0], expected / 255, atol=1 / 255)
    image = np.zeros((16, 16, 1), np.float32)
    assert images.gray(image) is image


def test_crop_to_square_takes_the_middle():
    columns = np.broadcast_to(np.arange(21)[:, None], (16, 21, 1))
    for image in (columns, columns.transpose(1, 0, 2)):
        square = images.crop_to_square(image)
        assert square.shape == (16, 16, 1)
        assert (square.min(), square.max()) == (2, 17)


def test_find_returns_images_by_name(tmp_path):
    for name in ("b.png", "a.jpg"):
        Image.new("L", (16, 16)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    paths = images.find(["sample:moon", str(tmp_path)])
    assert list(paths) == ["moon", "a", "b"]
    assert images.load(paths["a"]).shape == (16, 16, 1)
    with pytest.raises(ValueError, match="two images are called 'b'"):
        images.find([str(tmp_path), str(tmp_path / "b.png")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no image that can be read, but no files"):
        images.find([str(tmp_path / "empty")])
    for name in ("x.heic", "x.mpg", "Thumbs.db"):
        (tmp_path / "empty" / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"but Thumbs\.db, x\.heic, x\.mpg"):
        images.find([str(tmp_path / "empty")])


def test_find_skips_hidden_and_unsupported_files(tmp_path, caplog):
    supported = ["Cafe\u0301.JPG", "IMG_2.TIFF", "a.png", "b-1.jpeg", "b.jpg", "z.webp"]
    for name in supported:
        Image.new("L", (16, 16)).save(tmp_path / name)
    skipped = ["IMG_2.CR2", "Thumbs.db", "data.h5", "film.mpeg", "icon.ico", "logo.eps", "scan.pdf"]
    for name in ["._a.png", ".hidden.png", ".DS_Store", *skipped]:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    paths = images.find([str(tmp_path)])
    assert [*paths] == ["Café", "IMG_2", "a", "b-1", "b", "z"]
    assert [*paths.values()] == [str(tmp_path / name) for name in supported]
    assert [*images.load_all(paths, images.load)] == [*paths]
    assert caplog.messages == [
        f"folder {str(tmp_path)!r}: skipped {', '.join(skipped)}, which cannot be read"
    ]
    Image.new("L", (16, 16)).save(tmp_path / "A.bmp")
    with pytest.raises(ValueError, match=r"two images are called 'a': .*A\.bmp and .*a\.png"):
        images.find([str(tmp_path)])


def test_load_all_names_all_failures(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)).save(
        tmp_path / "good.png"
    )
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:2000])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "page.png").write_text("<html>")
    message = (
        "3 of 4 images cannot be loaded: .*cut.png' cannot be read.*; .*empty.jpg' cannot be read "
        "as an image: the file is empty; .*page.png' .*its format is not supported; convert it"
    )
    with pytest.raises(ValueError, match=message):
        images.load_all(images.find([str(tmp_path)]), images.load)


def test_load_error_messages(tmp_path):
    (tmp_path / "x.txt").write_text("no image")
    Image.new("L", (10, 40)).save(tmp_path / "small.png")
    for path, message in (
        ("missing.png", "does not exist"),
        ("x.txt", "cannot be read as an image"),
        ("small.png", "smallest side is 16"),
    ):
        with pytest.raises(ValueError, match=message):
            images.load(tmp_path / path)
    with pytest.raises(ValueError, match="does not exist"):
        images.bit_depth(tmp_path / "missing.png")
    with pytest.raises(ValueError, match="astronaut, camera"):
        images.load("sample:lena")


def test_too_many_pixels_are_refused_before_decoding(tmp_path, recwarn):
    Image.new("1", (12000, 9000)).save(tmp_path / "large.png")
    with pytest.raises(ValueError, match="12000, 9000"):
        images.load(tmp_path / "large.png")
    assert not [str(warning.message) for warning in recwarn]
