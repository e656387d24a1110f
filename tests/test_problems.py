import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import isnas_jax as isnas
from isnas_jax import registries
from isnas_jax.problems import without_measurements
from isnas_jax.registries import TASKS


class Quantity(np.ndarray):
    """An array with a unit, like those of astropy."""

    unit = "adu"


@pytest.fixture
def clean():
    return jax.random.uniform(jax.random.key(0), (48, 64, 3))


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_downsampling_matches_the_published_code(reference, factor):
    arrays = reference(f"lanczos2_x{factor}")
    x, y = (arrays[name][0].transpose(1, 2, 0) for name in "xy")
    problem = isnas.super_resolution(np.zeros_like(y), factor)
    np.testing.assert_allclose(problem.operator(x), y, atol=1e-5)


def test_low_resolution_image_is_the_operator_of_the_clean_image(clean):
    problem = isnas.downscale(jax.random.key(1), clean, factor=4)
    assert problem.observed.shape == (12, 16, 3)
    assert problem.shape == clean.shape
    np.testing.assert_allclose(problem.operator(clean), problem.observed, atol=1e-6)


def test_added_noise_has_standard_deviation_sigma_and_is_clipped(clean):
    gray = jnp.full((128, 128, 1), 0.5)
    noisy = isnas.add_noise(jax.random.key(1), gray, sigma=25).observed
    assert np.std(noisy) == pytest.approx(25 / 255, rel=0.03)
    clipped = isnas.add_noise(jax.random.key(1), clean, sigma=100).observed
    assert clipped.min() == 0
    assert clipped.max() == 1


def test_missing_pixels_are_missing_in_all_channels(clean):
    problem = isnas.remove_pixels(jax.random.key(1), clean, missing=70)
    known = np.asarray(problem.observed != 0)
    assert known.mean() == pytest.approx(0.3, abs=0.03)
    assert (known.all(-1) == known.any(-1)).all()
    np.testing.assert_array_equal(problem.weights * clean, problem.observed)


def test_values_of_missing_pixels_are_ignored(clean):
    mask = np.asarray(jax.random.bernoulli(jax.random.key(2), 0.5, clean.shape[:2]))
    expected = isnas.inpainting(clean, mask)
    for value in (7.0, np.nan):
        image = jnp.where(mask[..., None], clean, value)
        np.testing.assert_array_equal(isnas.inpainting(image, mask).observed, expected.observed)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("denoising", {"sigma": -1}, "sigma -1"),
        ("inpainting", {"missing": 0}, "missing 0"),
        ("inpainting", {"missing": 100}, "missing 100"),
        ("inpainting", {"mask": np.ones((5, 5))}, r"\(5, 5, 1\)"),
        ("inpainting", {"mask": np.full((48, 64), 0.5)}, "only 0"),
        ("inpainting", {"mask": np.zeros((48, 64))}, "no pixel"),
        ("denoising", {"sigma": 300}, "0 to 255"),
        ("super_resolution", {"factor": 3}, "factor 3"),
    ],
)
def test_invalid_corruptions_raise(clean, task, options, message):
    with pytest.raises(ValueError, match=message):
        TASKS[task].corrupt(jax.random.key(0), clean, **options)


def test_loss_and_error_are_weighted_mean_squares(clean):
    """Compare with the definition and, in inpainting, with the published loss."""
    output = jax.random.uniform(jax.random.key(5), clean.shape)
    options = {"denoising": {"sigma": 25}, "inpainting": {}, "super_resolution": {"factor": 2}}
    for name, task_options in options.items():
        problem = TASKS[name].corrupt(jax.random.key(1), clean, **task_options)
        assert problem.task == name
        residual = np.asarray(problem.operator(output), np.float64) - np.asarray(problem.observed)
        weights = np.broadcast_to(np.asarray(problem.weights), residual.shape)
        expected = (weights * residual**2).mean()
        assert problem.loss(output) == pytest.approx(expected, rel=1e-5)
        assert problem.error(output) == pytest.approx(expected / weights.mean(), rel=1e-5)
        if name == "inpainting":
            masked = (np.asarray(output) * weights - np.asarray(problem.observed)) ** 2
            assert problem.loss(output) == pytest.approx(masked.mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            np.full((20, 20, 3), 200, np.uint8),
            r"white is 255, use image\.astype\(np\.float32\) / 255",
        ),
        (np.full((20, 20, 3), 3, np.uint16), "/ 65535"),
        (jnp.zeros((20, 20, 3), bool), "not bool"),
        (np.full((20, 20, 3), 200.0), "about 200.*divide 8-bit values by 255"),
        (np.linspace(-1, 1, 1200).reshape(20, 20, 3), "about -0.*for -1 to 1 use"),
        (np.full((20, 20, 3), 1j), "real numbers, not complex128"),
        (np.full((20, 20, 3), None), "real numbers, not object"),
        (np.zeros((3, 20, 20)), r"np\.moveaxis\(image, 0, -1\)"),
        (np.zeros((20, 20, 4)), r"alpha channel: image\[\.\.\., :-1\]"),
        (np.zeros((0, 0, 3)), r"not \(0, 0, 3\)"),
        (np.zeros((20, 20, 3)).tolist(), "not a list: np.asarray"),
        (memoryview(np.zeros((20, 20, 3))), "not a memoryview: np.asarray"),
        ("a.png", r"io\.images\.load\(path\)"),
        (Image.new("P", (20, 20)), r'PIL Image: np\.asarray\(image\.convert\("RGB"\)'),
        (
            np.ma.masked_equal(np.zeros((20, 20, 3)), 0),
            r"inpainting\(image\.filled\(0\), ~image\.mask",
        ),
        (Quantity((20, 20, 3)), "take its .value"),
        (np.zeros((20, 20)), r"for a gray \(H, W\) use image\[\.\.\., None\]"),
        (np.full((20, 20, 1), np.nan), "not finite"),
    ],
)
def test_other_values_than_float_images_raise(image, message):
    for function in (
        isnas.denoising,
        isnas.estimate_sigma,
        lambda image: isnas.super_resolution(image, 2),
    ):
        with pytest.raises(ValueError, match=message):
            function(image)


def test_noise_may_leave_the_range_of_an_image(clean):
    for image in (clean, np.zeros((64, 64, 3)), np.ones((64, 64, 1))):
        noise = 100 / 255 * np.random.default_rng(0).normal(size=image.shape)
        isnas.denoising(np.asarray(image) + noise)
        mask = np.random.default_rng(1).random(image.shape[:2]) > 0.95
        isnas.inpainting(np.asarray(image) + noise, mask)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, jnp.bfloat16, np.memmap])
def test_float_arrays_are_converted_exactly(dtype, tmp_path):
    values = np.arange(64).reshape(8, 8, 1) / 64
    if dtype is np.memmap:
        values.tofile(tmp_path / "image")
        image = np.memmap(tmp_path / "image", np.float64, "r", shape=values.shape)
    else:
        image = values.astype(dtype)
    problem = isnas.denoising(image)
    assert problem.observed.dtype == np.float32
    np.testing.assert_array_equal(problem.observed, values)


def test_problems_cannot_be_created_inside_of_jit(clean):
    with pytest.raises(ValueError, match="inside of jit, vmap or grad"):
        jax.jit(lambda image: isnas.denoising(image).observed)(clean)


@pytest.mark.parametrize("sigma", ["auto", [25] * 3, np.full(3, 25), True, np.nan])
def test_invalid_sigma_raises(clean, sigma):
    with pytest.raises(
        ValueError, match=r"one number of gray levels.*estimate_sigma|must be in 0 to 255"
    ):
        isnas.denoising(clean, sigma)


def test_factor_may_be_a_float_with_an_integer_value(clean):
    problem = isnas.super_resolution(clean, 4.0)
    assert problem.shape == (192, 256, 3)
    assert problem.operator(np.zeros(problem.shape, np.float32)).shape == clean.shape
    assert isnas.downscale(jax.random.key(0), clean, factor=2.0).shape == clean.shape
    with pytest.raises(ValueError, match="factor '4'"):
        isnas.super_resolution(clean, "4")


def test_estimate_sigma_matches_scikit_image(clean, recwarn):
    from skimage.restoration import estimate_sigma

    noisy = 0.5 + 0.05 * np.random.default_rng(0).normal(size=(48, 31, 3)).astype(np.float32)
    expected = 255 * estimate_sigma(noisy, average_sigmas=True, channel_axis=-1)
    assert isnas.estimate_sigma(noisy) == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(0.05 * 255, rel=0.1)
    assert isnas.estimate_sigma(np.full((32, 32, 3), 0.5)) == 0.0
    assert isnas.estimate_sigma(noisy * np.float32([1, 0, 0])) > 0
    with pytest.raises(ValueError, match="4 x 6 pixels; the smallest side is 8"):
        isnas.estimate_sigma(noisy[:4, :6])
    assert not [str(warning.message) for warning in recwarn]


def test_sigma_is_known_after_corruption_and_in_crops(clean):
    assert isnas.denoising(clean).sigma is None
    noisy = isnas.add_noise(jax.random.key(1), clean, sigma=25)
    assert noisy.sigma == 25
    assert isnas.Crop(16)(noisy).sigma == 25


def test_operator_without_shrink_has_no_crop(clean):
    problem = isnas.Problem.create(clean, jax.tree_util.Partial(jnp.flip), task="mirror")
    with pytest.raises(ValueError, match="'mirror' cannot shrink"):
        isnas.Crop(16)(problem)


def test_proxies_of_a_noisy_image(clean):
    noisy = isnas.add_noise(jax.random.key(1), clean, sigma=25)
    crop = isnas.Crop(32)(noisy)
    np.testing.assert_array_equal(crop.observed, noisy.observed[8:40, 16:48])
    resized = isnas.Resize(24)(noisy)
    assert resized.shape == (24, 32, 3)
    assert (resized.weights == 1).all()
    assert resized.sigma is None  # averaging reduces the noise
    with pytest.raises(ValueError, match=r"a proxy of 8 pixels is too small.*smallest side is 16"):
        isnas.Crop(8)


@pytest.mark.parametrize("name", ["crop", "decimate"])
def test_proxy_masks_are_binary_with_the_same_known_fraction(clean, name):
    problem = isnas.remove_pixels(jax.random.key(1), clean, missing=50)
    proxy = registries.PROXIES[name](32)(problem)
    mask = proxy.weights
    assert set(np.unique(mask)) == {0, 1}
    assert np.mean(mask) == pytest.approx(0.5, abs=0.08)
    np.testing.assert_array_equal(proxy.observed, mask * proxy.observed)


def test_resizing_a_mask_raises(clean):
    problem = isnas.remove_pixels(jax.random.key(1), clean, missing=50)
    with pytest.raises(ValueError, match="cannot average a mask"):
        isnas.Resize(32)(problem)


def test_super_resolution_proxy_keeps_the_factor(clean):
    problem = isnas.downscale(jax.random.key(1), clean, factor=2)
    proxy = isnas.Crop(16)(problem)
    assert proxy.observed.shape == (16, 16, 3)
    assert proxy.shape == (32, 32, 3)
    np.testing.assert_array_equal(proxy.observed, problem.observed[4:20, 8:24])


def test_registry_maps_sizes_to_proxies():
    assert registries.PROXIES["full"](32) is None
    assert registries.PROXIES["crop"](32) == isnas.Crop(32)
    for error in (ValueError, KeyError):
        with pytest.raises(
            error, match=r"proxy 'half' does not exist.*full, crop, decimate, resize"
        ):
            registries.PROXIES["half"]


def test_a_task_corrupts_a_clean_image_and_poses_the_problem_of_an_observation(clean):
    for name, corrupt, options in (
        ("denoising", isnas.add_noise, {"sigma": 25}),
        ("inpainting", isnas.remove_pixels, {"missing": 50}),
        ("super_resolution", isnas.downscale, {"factor": 2}),
    ):
        task = TASKS[name]
        assert (task.name, task.corrupt) == (name, corrupt)
        problem = task.corrupt(jax.random.key(1), clean, **options)
        if name == "inpainting":
            options = {"mask": problem.weights}
        posed = task.pose(problem.observed, **options)
        assert posed.task == problem.task == name
        assert posed.shape == problem.shape == clean.shape
        for field in ("observed", "weights"):
            np.testing.assert_array_equal(getattr(posed, field), getattr(problem, field))
    with pytest.raises(ValueError, match="task 'deblurring' does not exist; choose from denoising"):
        TASKS["deblurring"]


def test_a_problem_without_measurements_has_no_loss_and_no_error(clean):
    problem = isnas.add_noise(jax.random.key(1), clean, sigma=25)
    assert problem.has_measurements
    empty = without_measurements(problem)
    assert not empty.has_measurements
    image = jnp.ones(clean.shape)
    assert (float(empty.loss(image)), float(empty.error(image))) == (0, 0)
    np.testing.assert_array_equal(empty.observed, problem.observed)
