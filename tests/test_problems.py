import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import isnas_jax as isnas
from isnas_jax.problems import PROXIES, TASKS


class Quantity(np.ndarray):
    """An array with a unit, as astropy's."""

    unit = "adu"


@pytest.fixture
def clean():
    return jax.random.uniform(jax.random.key(0), (48, 64, 3))


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_downsampling_is_the_published_one(reference, factor):
    arrays = reference(f"lanczos2_x{factor}")
    x, y = (arrays[name][0].transpose(1, 2, 0) for name in "xy")
    problem = isnas.super_resolution(np.zeros_like(y), factor)
    np.testing.assert_allclose(problem.operator(x), y, atol=1e-5)


def test_super_resolution_observes_through_its_own_operator(clean):
    problem = TASKS["super_resolution"].corrupt(jax.random.key(1), clean, factor=4)
    assert problem.observed.shape == (12, 16, 3)
    assert problem.shape == clean.shape
    np.testing.assert_allclose(problem.operator(clean), problem.observed, atol=1e-6)


def test_noise_has_the_strength_asked_for_and_is_clipped(clean):
    middle = jnp.full((128, 128, 1), 0.5)
    noisy = TASKS["denoising"].corrupt(jax.random.key(1), middle, sigma=25).observed
    assert np.std(noisy) == pytest.approx(25 / 255, rel=0.03)
    clipped = TASKS["denoising"].corrupt(jax.random.key(1), clean, sigma=100).observed
    assert clipped.min() == 0
    assert clipped.max() == 1


def test_inpainting_hides_pixels_in_all_channels(clean):
    problem = TASKS["inpainting"].corrupt(jax.random.key(1), clean, missing=70)
    known = np.asarray(problem.observed != 0)
    assert known.mean() == pytest.approx(0.3, abs=0.03)
    assert (known.all(-1) == known.any(-1)).all()
    np.testing.assert_array_equal(problem.weights * clean, problem.observed)


def test_what_missing_pixels_hold_does_not_matter(clean):
    mask = np.asarray(jax.random.bernoulli(jax.random.key(2), 0.5, clean.shape[:2]))
    for missing in (7.0, np.nan):
        garbage = jnp.where(mask[..., None], clean, missing)
        first, second = isnas.inpainting(clean, mask), isnas.inpainting(garbage, mask)
        np.testing.assert_array_equal(first.observed, second.observed)


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
def test_refuses(clean, task, options, message):
    with pytest.raises(ValueError, match=message):
        TASKS[task].corrupt(jax.random.key(0), clean, **options)


def test_loss_is_the_weighted_mean_square_in_all_tasks(clean):
    """Against the definition, and for the mask against what the published code minimizes."""
    output = jax.random.uniform(jax.random.key(5), clean.shape)
    options = {"denoising": {"sigma": 25}, "inpainting": {}, "super_resolution": {"factor": 2}}
    for name, given in options.items():
        problem = TASKS[name].corrupt(jax.random.key(1), clean, **given)
        assert problem.task == name
        residual = np.asarray(problem.operator(output), np.float64) - np.asarray(problem.observed)
        weights = np.broadcast_to(np.asarray(problem.weights), residual.shape)
        expected = (weights * residual**2).mean()
        assert problem.loss(output) == pytest.approx(expected, rel=1e-5)
        share = weights.mean()
        assert problem.error(output) == pytest.approx(expected / share, rel=1e-5)
        if name == "inpainting":
            masked = (np.asarray(output) * weights - np.asarray(problem.observed)) ** 2
            assert problem.loss(output) == pytest.approx(masked.mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((20, 20, 3), 200, np.uint8), r"white is 255: image\.astype\(np\.float32\) / 255"),
        (np.full((20, 20, 3), 3, np.uint16), "/ 65535"),
        (jnp.zeros((20, 20, 3), bool), "not bool"),
        (np.full((20, 20, 3), 200.0), "about 200.*divide 8 bits by 255"),
        (np.linspace(-1, 1, 1200).reshape(20, 20, 3), "about -0.*-1 to 1 by"),
        (np.full((20, 20, 3), 1j), "real numbers, not complex128"),
        (np.full((20, 20, 3), None), "real numbers, not object"),
        (np.zeros((3, 20, 20)), r"np\.moveaxis\(image, 0, -1\)"),
        (np.zeros((20, 20, 4)), r"alpha out: image\[\.\.\., :-1\]"),
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
        (np.zeros((20, 20)), r"becomes one by image\[\.\.\., None\]"),
        (np.full((20, 20, 1), np.nan), "not finite"),
    ],
)
def test_images_of_another_kind_are_refused(image, message):
    for pose in (
        isnas.denoising,
        isnas.estimate_sigma,
        lambda image: isnas.super_resolution(image, 2),
    ):
        with pytest.raises(ValueError, match=message):
            pose(image)


def test_noise_beyond_white_and_black_is_no_other_range(clean):
    for image in (clean, np.zeros((64, 64, 3)), np.ones((64, 64, 1))):
        noise = 100 / 255 * np.random.default_rng(0).normal(size=image.shape)
        isnas.denoising(np.asarray(image) + noise)
        mask = np.random.default_rng(1).random(image.shape[:2]) > 0.95
        isnas.inpainting(np.asarray(image) + noise, mask)


@pytest.mark.parametrize("kind", [np.float16, np.float64, jnp.bfloat16, np.memmap])
def test_arrays_of_floats_are_taken_as_they_are(kind, tmp_path):
    values = np.arange(64).reshape(8, 8, 1) / 64
    if kind is np.memmap:
        values.tofile(tmp_path / "image")
        image = np.memmap(tmp_path / "image", np.float64, "r", shape=values.shape)
    else:
        image = values.astype(kind)
    problem = isnas.denoising(image)
    assert problem.observed.dtype == np.float32
    np.testing.assert_array_equal(problem.observed, values)


def test_posing_cannot_be_traced(clean):
    with pytest.raises(ValueError, match="inside of jit, vmap or grad"):
        jax.jit(lambda image: isnas.denoising(image).observed)(clean)


@pytest.mark.parametrize("sigma", ["auto", [25] * 3, np.full(3, 25), True, np.nan])
def test_sigma_is_one_number(clean, sigma):
    with pytest.raises(ValueError, match=r"one number of gray levels.*estimate_sigma|outside of 0"):
        isnas.denoising(clean, sigma)


def test_a_whole_factor_may_be_a_float(clean):
    problem = isnas.super_resolution(clean, 4.0)
    assert problem.shape == (192, 256, 3)
    assert problem.operator(np.zeros(problem.shape, np.float32)).shape == clean.shape
    assert (
        TASKS["super_resolution"].corrupt(jax.random.key(0), clean, factor=2.0).shape == clean.shape
    )
    with pytest.raises(ValueError, match="factor '4'"):
        isnas.super_resolution(clean, "4")


def test_estimated_noise_is_scikit_images(clean, recwarn):
    from skimage.restoration import estimate_sigma

    noisy = 0.5 + 0.05 * np.random.default_rng(0).normal(size=(48, 31, 3)).astype(np.float32)
    expected = 255 * estimate_sigma(noisy, average_sigmas=True, channel_axis=-1)
    assert isnas.estimate_sigma(noisy) == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(0.05 * 255, rel=0.1)
    assert isnas.estimate_sigma(np.full((32, 32, 3), 0.5)) == 0.0
    assert (
        isnas.estimate_sigma(
            np.concatenate([noisy[..., :1], noisy[..., :1] * 0], -1)[..., [0, 1, 1]]
        )
        > 0
    )
    with pytest.raises(ValueError, match="4 x 6 pixels; the smallest side is 8"):
        isnas.estimate_sigma(noisy[:4, :6])
    assert not [str(warning.message) for warning in recwarn]


def test_problems_know_their_noise(clean):
    assert isnas.denoising(clean).sigma is None
    noisy = TASKS["denoising"].corrupt(jax.random.key(1), clean, sigma=25)
    assert noisy.sigma == 25
    assert PROXIES["crop"](16)(noisy).sigma == 25


def test_an_operator_without_a_part_cannot_be_cut(clean):
    problem = isnas.Problem.of(clean, jax.tree_util.Partial(jnp.flip), task="mirror")
    with pytest.raises(ValueError, match="'mirror' cannot be cut"):
        PROXIES["crop"](16)(problem)


def test_proxies_see_the_observation_only(clean):
    noisy = TASKS["denoising"].corrupt(jax.random.key(1), clean, sigma=25)
    crop = PROXIES["crop"](32)(noisy)
    np.testing.assert_array_equal(crop.observed, noisy.observed[8:40, 16:48])
    assert PROXIES["full"](32)(noisy) is noisy
    resized = PROXIES["resize"](24)(noisy)
    assert resized.shape == (24, 32, 3)
    assert (resized.weights == 1).all()
    assert resized.sigma is None  # averaged away
    with pytest.raises(ValueError, match="smallest side is 16"):
        PROXIES["crop"](8)


@pytest.mark.parametrize("kind", ["crop", "decimate"])
def test_proxy_masks_stay_binary_and_keep_their_rate(clean, kind):
    problem = TASKS["inpainting"].corrupt(jax.random.key(1), clean, missing=50)
    small = PROXIES[kind](32)(problem)
    mask = small.weights
    assert set(np.unique(mask)) == {0, 1}
    assert np.mean(mask) == pytest.approx(0.5, abs=0.08)
    np.testing.assert_array_equal(small.observed, mask * small.observed)


def test_resizing_a_mask_is_refused(clean):
    problem = TASKS["inpainting"].corrupt(jax.random.key(1), clean, missing=50)
    with pytest.raises(ValueError, match="only 0"):
        PROXIES["resize"](32)(problem)


def test_super_resolution_proxy_keeps_the_factor(clean):
    problem = TASKS["super_resolution"].corrupt(jax.random.key(1), clean, factor=2)
    small = PROXIES["crop"](16)(problem)
    assert small.observed.shape == (16, 16, 3)
    assert small.shape == (32, 32, 3)
    np.testing.assert_array_equal(small.observed, problem.observed[4:20, 8:24])
