from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import wasserstein_distance

import isnas_jax as isnas
from isnas_jax import registries
from isnas_jax.ops import quality, spectra
from isnas_jax.searching import metrics

IMAGES = ("camera_64x64", "astronaut_96x64")


@pytest.mark.parametrize("name", IMAGES)
def test_published_metrics_match_the_published_code(reference, name):
    arrays = reference(f"metrics_{name}")
    observed = arrays["image"].transpose(1, 2, 0)
    outputs = arrays["outputs"].transpose(0, 2, 3, 1)
    names = [key.removeprefix("metric/") for key in arrays if key.startswith("metric/")]
    assert len(names) == 13
    for metric in names:
        function = registries.PUBLISHED_METRICS[metric]
        values = jax.jit(jax.vmap(function, (None, 0)))(observed, outputs)
        tolerance = 1e-2 if "hist" in metric else 1e-3
        np.testing.assert_allclose(values, arrays[f"metric/{metric}"], tolerance, err_msg=metric)
    assert spectra.strip(*observed.shape[:2]).sum() == arrays["strip_pixels"]


@pytest.fixture
def pair(reference):
    arrays = reference("metrics_astronaut_96x64")
    return arrays["image"].transpose(1, 2, 0), arrays["outputs"][1].transpose(1, 2, 0)


def test_spectrum_keeps_the_energy_and_has_the_mean_in_the_center(pair):
    image = pair[0]
    psd = np.asarray(spectra.power_spectral_density(image))
    energy = np.square(image).mean(axis=(0, 1))
    np.testing.assert_allclose(psd.sum(axis=(0, 1)), energy, rtol=1e-5)  # Parseval
    np.testing.assert_allclose(psd[48, 32], image.mean(axis=(0, 1)) ** 2, rtol=1e-5)


def test_squared_decibels_are_5_3_times_less_than_published(pair):
    for name, published in (("psd_db_mse", "psd db mse"), ("psd_db_strip_mse", "psd db strip mse")):
        ratio = registries.PUBLISHED_METRICS[published](*pair) / registries.METRICS[name](*pair)
        assert ratio == pytest.approx(np.log(10) ** 2, rel=1e-4)


def test_histogram_distance_equals_that_of_scipy_up_to_the_bin_width(pair):
    strip = spectra.strip(96, 64)
    samples = [np.asarray(spectra.power_spectral_density(image))[strip].ravel() for image in pair]
    width = np.ptp(np.concatenate(samples)) / metrics.BINS
    expected = wasserstein_distance(*samples)
    assert expected > 3 * width
    assert isnas.psd_strip_hist_emd(*pair) == pytest.approx(expected, abs=float(width))


def test_bandwidth_ignores_contrast_unlike_the_published_one(pair):
    image = pair[0]
    faint = 0.5 + 0.05 * (image - 0.5)
    bandwidth, published = isnas.psd_99_bw, registries.PUBLISHED_METRICS["psd 99_per_bw"]
    assert bandwidth(image, faint) == pytest.approx(float(bandwidth(image, image)), rel=1e-3)
    assert published(image, faint) < 0.02 < published(image, image)


def test_frequencies_and_their_negatives_are_both_in_the_ring_or_both_outside():
    """In floating point, the ring's edge fell between them at 65 of these square sizes."""
    for size in range(32, 1025):
        ring = spectra.strip(size, size)
        first = 1 - size % 2  # an even side has no opposite of its lowest frequency
        assert (ring[first:, first:] == ring[first:, first:][::-1, ::-1]).all(), size
    radius = spectra.radius(320, 640)[1:, 1:]
    np.testing.assert_array_equal(radius, radius[::-1, ::-1])


def test_ring_is_that_of_exact_fractions():
    for height, width in ((20, 60), (60, 45), (100, 64)):
        for (row, column), inside in np.ndenumerate(spectra.strip(height, width)):
            squared = (
                Fraction(row - height // 2, height) ** 2 + Fraction(column - width // 2, width) ** 2
            )
            assert inside == (Fraction(1, 400) <= squared < Fraction(1, 100))


def test_bandwidth_of_one_frequency_is_its_diameter():
    rows = np.arange(128)[:, None, None] * np.ones((1, 128, 1))
    wave = np.float32(0.5 + 0.4 * np.cos(2 * np.pi * rows * 16 / 128))  # radius 1/8
    assert isnas.psd_99_bw(wave, wave) == pytest.approx(0.25 / np.sqrt(2), abs=1 / metrics.CIRCLES)


def test_random_metric_is_uniform_and_repeatable(pair):
    noise = jax.random.uniform(jax.random.key(0), (200, 16, 16, 1))
    scores = jax.vmap(registries.METRICS["random"], (None, 0))(noise[0], noise)
    assert registries.METRICS["random"](*pair) == registries.METRICS["random"](*pair)
    assert len(np.unique(scores)) == 200
    assert abs(scores.mean() - 0.5) < 5 / (12 * 200) ** 0.5


def test_all_metrics_are_finite_for_flat_images():
    flat = jnp.full((32, 32, 3), 0.5)
    image = jax.random.uniform(jax.random.key(0), (32, 32, 3))
    for name, metric in registries.METRICS.items():
        assert np.isfinite(metric(image, flat)), name


def test_unknown_metric_lists_the_valid_ones():
    for error in (ValueError, KeyError):
        with pytest.raises(error, match=r"psd_db_strip_mse.*psd db strip mse"):
            registries.METRICS["psnr"]


def test_published_metrics_can_be_looked_up_but_are_not_listed():
    assert registries.METRICS["psd db mse"] is registries.PUBLISHED_METRICS["psd db mse"]
    assert "psd db mse" not in registries.METRICS
    assert registries.METRICS["psd_99_bw"] is isnas.psd_99_bw


def test_psnr_and_luma():
    from skimage.color import rgb2ycbcr
    from skimage.metrics import peak_signal_noise_ratio

    a, b = np.random.default_rng(0).uniform(size=(2, 20, 24, 3)).astype(np.float32)
    assert quality.psnr(a, b) == pytest.approx(
        peak_signal_noise_ratio(a, b, data_range=1), abs=1e-4
    )
    np.testing.assert_allclose(quality.luma(a)[..., 0], rgb2ycbcr(a)[..., 0] / 255, atol=1e-5)
