import numpy as np
import pytest
from PIL import Image

from isnas_jax import images


def test_eight_bits_round_trip_exactly(tmp_path):
    for shape in ((16, 20, 1), (16, 20, 3)):
        levels = np.random.default_rng(0).integers(0, 256, shape)
        image = (levels / 255).astype(np.float32)
        images.save(tmp_path / "x.png", image)
        loaded = images.load(tmp_path / "x.png")
        assert loaded.dtype == np.float32
        np.testing.assert_allclose(loaded, image, atol=1e-7)


def test_saving_rounds_and_clips(tmp_path):
    row = np.array([-0.2, 0.4999 / 255, 0.5001 / 255, 1.3], np.float32)
    images.save(tmp_path / "x.png", np.broadcast_to(row[None, :, None], (16, 4, 1)))
    assert np.asarray(Image.open(tmp_path / "x.png"))[0].tolist() == [0, 0, 1, 255]


def test_sixteen_bits_keep_their_precision(tmp_path):
    levels = np.arange(16 * 16, dtype=np.uint16).reshape(16, 16) * 257
    Image.fromarray(levels).save(tmp_path / "x.png")
    np.testing.assert_allclose(images.load(tmp_path / "x.png")[..., 0], levels / 65535, atol=1e-7)


def test_transparency_is_composed_over_white(tmp_path):
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[:8] = (255, 0, 0, 255)
    Image.fromarray(rgba).save(tmp_path / "x.png")
    loaded = images.load(tmp_path / "x.png")
    np.testing.assert_array_equal(loaded[0, 0], [1, 0, 0])
    np.testing.assert_array_equal(loaded[-1, 0], [1, 1, 1])


def test_grey_with_alpha_stays_grey(tmp_path):
    Image.new("LA", (16, 16), (51, 255)).save(tmp_path / "x.png")
    np.testing.assert_allclose(
        images.load(tmp_path / "x.png"), np.full((16, 16, 1), 0.2), atol=1e-6
    )


def test_samples_are_photographs():
    for name in images.SAMPLES:
        image = images.load(f"sample:{name}")
        assert min(image.shape[:2]) > 200
        assert image.std() > 0.05


def test_resize_sets_the_short_side():
    image = images.resize(np.random.default_rng(0).uniform(size=(60, 90, 3)), 40)
    assert image.shape == (40, 60, 3)
    assert image.dtype == np.float32


def test_errors_are_clear(tmp_path):
    (tmp_path / "x.txt").write_text("no image")
    Image.new("L", (10, 40)).save(tmp_path / "small.png")
    for path, message in (
        ("missing.png", "does not exist"),
        ("x.txt", "cannot be read as an image"),
        ("small.png", "smallest side is 16"),
    ):
        with pytest.raises(ValueError, match=message):
            images.load(tmp_path / path)
    with pytest.raises(ValueError, match="astronaut, camera"):
        images.load("sample:lena")
