"""Test TIFF files as scanners, cameras and microscopes write them: read correctly or refused."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from isnas_jax.io import images

RNG = np.random.default_rng(0)
EIGHT = RNG.integers(0, 256, (20, 24), np.uint8)
SIXTEEN = RNG.integers(0, 2**16, (20, 24), np.uint16)
FLOAT = RNG.uniform(0, 1, (20, 24)).astype(np.float32)
WHITE_4095 = [(281, "H", 1, 4095, True)]


def write_tiff(folder, pixels, **options):
    options = {"photometric": "rgb" if pixels.ndim == 3 else "minisblack", **options}
    tifffile.imwrite(folder / "x.tif", pixels, **options)
    return folder / "x.tif"


READ = {
    "8 bits, white is zero": (255 - EIGHT, {"photometric": "miniswhite"}, EIGHT / 255),
    "16 bits, white is zero": (65535 - SIXTEEN, {"photometric": "miniswhite"}, SIXTEEN / 65535),
    "packed, white is zero": (
        65535 - SIXTEEN,
        {"photometric": "miniswhite", "compression": "zlib"},
        SIXTEEN / 65535,
    ),
    "12 bits in 16": (SIXTEEN >> 4, {"extratags": WHITE_4095}, (SIXTEEN >> 4) / 4095),
    "12 bits in 16, white is zero": (
        4095 - (SIXTEEN >> 4),
        {"extratags": WHITE_4095, "photometric": "miniswhite"},
        (SIXTEEN >> 4) / 4095,
    ),
    # Some programs store the highest level that occurs.
    "a maximum that is not white": (
        SIXTEEN // 2,
        {"extratags": [(281, "H", 1, 32766, True)]},
        (SIXTEEN // 2) / 65535,
    ),
    "a maximum below the highest level": (SIXTEEN, {"extratags": WHITE_4095}, SIXTEEN / 65535),
    "black in 16 bits": (0 * SIXTEEN, {}, 0 * FLOAT),
    "float": (FLOAT, {}, FLOAT),
    "float with noise": (1.4 * FLOAT - 0.2, {}, 1.4 * FLOAT - 0.2),
    "float, white is zero": (FLOAT, {"photometric": "miniswhite"}, 1 - FLOAT),
    "8-bit color in planes": (
        np.stack([EIGHT, 255 - EIGHT, EIGHT]),
        {"planarconfig": "separate"},
        np.dstack([EIGHT, 255 - EIGHT, EIGHT]) / 255,
    ),
    "a fourth channel that is not alpha": (
        np.dstack([SIXTEEN] * 3 + [SIXTEEN // 2]),
        {"extrasamples": ["unspecified"]},
        np.dstack([SIXTEEN] * 3) / 65535,
    ),
    "gray with alpha": (
        np.dstack([EIGHT, EIGHT]),
        {"photometric": "minisblack", "extrasamples": ["unassalpha"]},
        (EIGHT / 255) ** 2 + 1 - EIGHT / 255,
    ),
    "BigTIFF": (SIXTEEN, {"bigtiff": True}, SIXTEEN / 65535),
    "big-endian": (SIXTEEN, {"byteorder": ">"}, SIXTEEN / 65535),
}


@pytest.mark.parametrize("name", READ)
def test_supported_formats_are_read_by_their_tags(name, tmp_path):
    pixels, options, expected = READ[name]
    loaded = images.load(write_tiff(tmp_path, pixels, **options))
    assert loaded.dtype == np.float32
    expected = expected.reshape(20, 24, -1)
    assert loaded.shape == expected.shape
    np.testing.assert_allclose(loaded, expected, atol=1e-6)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("byte_order", "<>")
def test_premultiplied_color_is_blended_with_white(byte_order, compression, tmp_path):
    rng = np.random.default_rng(0)
    color, alpha = rng.uniform(0, 1, (20, 24, 3)), rng.uniform(0, 1, (20, 24, 1))
    pixels = np.concatenate([color * alpha, alpha], axis=-1)
    pixels[:5] = 0
    for dtype in (np.uint8, np.uint16):
        white = np.iinfo(dtype).max
        options = {
            "byteorder": byte_order,
            "compression": compression,
            "extrasamples": ["assocalpha"],
        }
        path = write_tiff(tmp_path, np.rint(pixels * white).astype(dtype), **options)
        expected = pixels[..., :3] + 1 - pixels[..., 3:]
        # Color and alpha are rounded, and Pillow rounds 8-bit images again.
        np.testing.assert_allclose(images.load(path), expected, atol=2 / white)


@pytest.mark.parametrize("pixels", [EIGHT, SIXTEEN, FLOAT, np.dstack([SIXTEEN] * 3)])
def test_orientation_tag(pixels, tmp_path):
    upright = images.load(write_tiff(tmp_path, pixels))
    flipped = [upright, upright[:, ::-1], upright[::-1, ::-1], upright[::-1]]
    transposed = [flipped[index].transpose(1, 0, 2) for index in (0, 3, 2, 1)]
    for orientation, expected in enumerate(flipped + transposed, start=1):
        path = write_tiff(tmp_path, pixels, extratags=[(274, "H", 1, orientation, True)])
        np.testing.assert_array_equal(images.load(path), expected, err_msg=str(orientation))


def with_nans(count):
    pixels = FLOAT.copy()
    pixels.flat[:count] = np.nan
    return pixels


REFUSED = {
    "12 bits in 16 without a tag": (SIXTEEN >> 4, {}, r"levels up to 40\d\d only.* multiply by 16"),
    "color of 12 bits in 16": (np.dstack([SIXTEEN >> 4] * 3), {}, "nearly black"),
    "int8": (EIGHT.astype(np.int8), {}, "signed integers of 8 bits; convert"),
    "int16": (EIGHT.astype(np.int16), {}, "signed integers of 16 bits from 0 to 255; convert"),
    "int32": (EIGHT.astype(np.int32), {}, "signed integers of 32 bits from 0 to 255; convert"),
    "uint32": (EIGHT.astype(np.uint32), {}, "unsigned integers of 32 bits from 0 to 255; convert"),
    "float16": (FLOAT.astype(np.float16), {}, "floating-point numbers of 16 bits; convert"),
    "float64": (FLOAT.astype(float), {}, "floating-point numbers of 64 bits; convert"),
    "float RGB": (np.dstack([FLOAT] * 3), {}, r"TIFF of 3 channels \(RGB\), floating-point"),
    "float from 0 to 255": (255 * FLOAT, {}, r"range from 0\.\d+ to 25\d\.\d+; scale them"),
    "NaN": (with_nans(7), {}, "7 of its values are not finite; replace them"),
    "five pages": (np.stack([EIGHT] * 5), {"photometric": "minisblack"}, "5 pages or frames"),
    "two channels": (
        np.dstack([EIGHT] * 2),
        {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unspecified"]},
        r"TIFF of 2 channels \(gray\), unsigned integers of 8 bits; convert",
    ),
    "three gray channels in planes": (
        np.stack([EIGHT] * 3),
        {"photometric": "minisblack", "planarconfig": "separate"},
        r"TIFF of 3 channels in separate planes \(gray\)",
    ),
    "color of 16 bits in planes": (
        np.stack([SIXTEEN] * 3),
        {"planarconfig": "separate"},
        r"TIFF of 3 channels in separate planes \(RGB\), unsigned integers of 16 bits",
    ),
    "gray of 16 bits with alpha": (
        np.dstack([SIXTEEN] * 2),
        {"photometric": "minisblack", "extrasamples": ["unassalpha"]},
        r"TIFF of 2 channels \(gray\), unsigned integers of 16 bits",
    ),
    "LAB": (np.dstack([EIGHT] * 3), {"photometric": "cielab"}, r"\(LAB\).* convert it"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_formats_are_refused_with_a_remedy(name, tmp_path):
    pixels, options, message = REFUSED[name]
    path = write_tiff(tmp_path, pixels, **options)
    with pytest.raises(
        ValueError, match=f"x.tif' cannot be read as an image: .*{message}"
    ) as raised:
        images.load(path)
    assert "\n" not in str(raised.value)


def test_compressed_16_bit_planes_are_refused(tmp_path):
    options = {"planarconfig": "separate", "compression": "zlib"}
    path = write_tiff(tmp_path, np.stack([SIXTEEN] * 3), **options)
    for read in (images.load, images.bit_depth):
        with pytest.raises(ValueError, match=r"x.tif' cannot be read .* in separate planes"):
            read(path)


def test_a_reduced_copy_does_not_count_as_a_page(tmp_path):
    for reduced in (True, False):
        with tifffile.TiffWriter(tmp_path / "x.tif") as file:
            file.write(SIXTEEN, photometric="minisblack")
            file.write(SIXTEEN[::2, ::2], photometric="minisblack", subfiletype=int(reduced))
        if reduced:
            np.testing.assert_allclose(
                images.load(tmp_path / "x.tif")[..., 0], SIXTEEN / 65535, atol=1e-7
            )
    with pytest.raises(ValueError, match="2 pages"):
        images.load(tmp_path / "x.tif")


def overwrite_tags(path, **tags):
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name, value in tags.items():
            file.pages[0].tags[name].overwrite(value)


def test_packed_twelve_bits(tmp_path):
    levels = (SIXTEEN >> 4)[:, :16]
    first, second = levels[:, ::2], levels[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=-1)
    path = write_tiff(tmp_path, packed.reshape(20, 24).astype(np.uint8))
    overwrite_tags(path, ImageWidth=16, BitsPerSample=12)
    np.testing.assert_allclose(images.load(path)[..., 0], levels / 4095, atol=1e-7)


def test_a_missing_photometric_interpretation_is_refused(tmp_path):
    path = write_tiff(tmp_path, EIGHT)
    # Replace the tag's number, little-endian, by an unused one.
    content = path.read_bytes()
    assert content.count(b"\x06\x01\x03\x00") == 1
    path.write_bytes(content.replace(b"\x06\x01\x03\x00", b"\x08\x01\x03\x00"))
    with pytest.raises(ValueError, match="tag PhotometricInterpretation is missing"):
        images.load(path)


def test_several_frames_in_other_formats(tmp_path):
    frames = [Image.fromarray(EIGHT), Image.fromarray(255 - EIGHT)]
    for suffix in ("gif", "webp", "png"):
        path = tmp_path / f"x.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        with pytest.raises(ValueError, match="2 pages or frames"):
            images.load(path)
    # Phones add frames such as a depth map after the photograph.
    frames[0].save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(images.load(tmp_path / "x.jpg")[..., 0], EIGHT / 255, atol=0.3)
