"""Test properties that hold for all shapes, dtypes, masks and genotypes."""

import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import isnas_jax as isnas
from isnas_jax.io import images
from isnas_jax.networks import padded_side
from isnas_jax.networks.genotypes import NUM_CELLS

SIDES = st.integers(16, 48)


@given(
    height=SIDES,
    width=SIDES,
    mode=st.sampled_from(["L", "RGB", "I;16", "1"]),
    seed=st.integers(0, 99),
)
def test_load_preserves_shape_and_levels(tmp_path_factory, height, width, mode, seed):
    rng, path = np.random.default_rng(seed), tmp_path_factory.getbasetemp() / "drawn.png"
    white = {"L": 255, "RGB": 255, "I;16": 65535, "1": 1}[mode]
    dtype = {"I;16": np.uint16, "1": bool}.get(mode, np.uint8)
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    pixels = rng.integers(0, white, shape, endpoint=True).astype(dtype)
    Image.fromarray(pixels).save(path)
    image = images.load(path)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, pixels.reshape(height, width, -1) / white, atol=1e-7)


@given(height=SIDES, width=SIDES, channels=st.sampled_from([1, 3]), seed=st.integers(0, 99))
def test_save_and_load_round_to_half_a_level(tmp_path_factory, height, width, channels, seed):
    path = tmp_path_factory.getbasetemp() / "saved.png"
    image = np.random.default_rng(seed).uniform(-0.2, 1.2, (height, width, channels))
    images.save(path, image)
    np.testing.assert_allclose(images.load(path), np.clip(image, 0, 1), atol=0.5 / 255 + 1e-7)


@given(cell=st.integers(0, NUM_CELLS - 1), skips=st.text("01", min_size=25, max_size=25))
def test_genotypes_parse_from_their_text(cell, skips):
    genotype = isnas.Genotype(cell, skips)
    assert isnas.Genotype.parse(str(genotype)) == genotype
    assert isnas.Genotype.parse(f" {cell},{skips}\n") == genotype
    assert sum(map(sum, genotype.skip_matrix())) == skips.count("1")


@given(side=st.integers(1, 4000))
def test_padded_side_is_the_smallest_supported(side):
    padded = padded_side(side)
    assert padded >= max(side, 64)
    assert padded % 32 == 0
    assert padded - 32 < max(side, 64)


@given(known=st.floats(0.1, 1), fraction=st.floats(0.05, 0.9), seed=st.integers(0, 99))
def test_hold_out_splits_the_known_measurements(known, fraction, seed):
    rng = np.random.default_rng(seed)  # one shape only, because each one compiles
    mask = (rng.random((20, 28, 1)) < known).astype(np.float32)
    problem = isnas.inpainting(rng.random((20, 28, 3)).astype(np.float32), mask)
    training, validation = isnas.HoldOut(fraction)(jax.random.key(seed), problem)
    combined = np.asarray(training.weights) + np.asarray(validation.weights)
    np.testing.assert_array_equal(combined > 0, np.asarray(problem.weights) > 0)
    assert not np.any((np.asarray(training.weights) > 0) & (np.asarray(validation.weights) > 0))
