"""Every operation against XLA's own form in float64, value and gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from isnas_jax import ops
from isnas_jax.ops import _depthwise as depthwise
from isnas_jax.ops import _winograd as winograd

NHWC = ("NHWC", "HWIO", "NHWC")


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def assert_same_with_gradients(ours, plain, *arguments):
    """Compares values, and vector-Jacobian products with a random cotangent."""
    cotangent = normal(*jax.eval_shape(plain, *arguments).shape, seed=9)

    def evaluate(function):
        value, pull = jax.vjp(function, *arguments)
        return value, pull(cotangent)

    value, gradients = jax.jit(evaluate, static_argnums=0)(ours)
    expected, expected_gradients = jax.jit(evaluate, static_argnums=0)(plain)
    assert value.dtype == jnp.float64
    np.testing.assert_allclose(value, expected, atol=1e-10)
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-9)


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 9), (12, 5), (12, 9)])
@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_convolution(size, inputs, outputs):
    def plain(x, kernel):
        half = (size // 2,) * 2
        return lax.conv_general_dilated(x, kernel, (1, 1), [half] * 2, dimension_numbers=NHWC)

    for height in (2, 8):  # less than the kernel, and more
        arguments = normal(2, height, 10, inputs), normal(size, size, inputs, outputs, seed=1)
        assert_same_with_gradients(ops.convolution, plain, *arguments)


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
def test_convolutions_in_a_batch(axes):
    def plain(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=NHWC)

    x, kernel = normal(3, 2, 8, 10, 12), normal(3, 3, 3, 12, 9, seed=1)
    arguments = x if axes[0] == 0 else x[0], kernel if axes[1] == 0 else kernel[0]
    ours, expected = (jax.vmap(function, axes) for function in (ops.convolution, plain))
    assert_same_with_gradients(ours, expected, *arguments)


def test_gradients_of_gradients():
    x, kernel = normal(1, 8, 8, 9), normal(3, 3, 9, 9, seed=1)

    def squares(of, x):
        return jnp.square(jax.grad(lambda x: jnp.square(of(x, kernel)).sum())(x)).sum()

    def plain(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=NHWC)

    found, expected = (
        jax.grad(functools.partial(squares, of))(x) for of in (ops.convolution, plain)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-8)


@pytest.mark.parametrize(("side", "size"), [(2, 3), (4, 5), (4, 7), (8, 3), (16, 7)])
def test_no_convolution_of_a_step_is_naive(side, size):
    """On CPUs all but direct convolutions are naive in a loop."""
    x = jnp.zeros((1, side, side, 12), jnp.float32)
    kernel = jnp.zeros((size, size, 12, 12), jnp.float32)

    def step(carried, _):
        value, pull = jax.vjp(ops.convolution, *carried)
        return pull(value), None

    steps = jax.jit(lambda *carried: lax.scan(step, carried, length=3)[0])
    text = steps.lower(x, kernel).compile().as_text()
    for line in text.splitlines():
        if " convolution(" in line:
            assert "dim_labels=b01f_01io->b01f" in line
            for slow in ("lhs_dilate", "rhs_dilate", "rhs_reversal", "group_count"):
                assert slow not in line


@pytest.mark.thorough
@pytest.mark.parametrize(("size", "tolerance"), [(3, 3e-5), (5, 1e-4), (7, 6e-4)])
def test_winograd_rounds_as_float32_does(size, tolerance):
    """Its float32 values and gradients against the plain form in float64."""

    def plain(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=NHWC)

    for height, width in ((16, 32), (17, 19)):  # whole tiles and parts of tiles
        x = normal(2, height + size - 1, width + size - 1, 32)
        kernel = normal(size, size, 32, 40, seed=1)
        single = x.astype(jnp.float32), kernel.astype(jnp.float32)
        value, pull = jax.vjp(winograd.correlate, *single)
        expected, expected_pull = jax.vjp(plain, *(a.astype(float) for a in single))
        cotangent = normal(*expected.shape, seed=9).astype(jnp.float32)
        wanted = (expected, *expected_pull(cotangent.astype(float)))
        for ours, exact in zip((value, *pull(cotangent)), wanted, strict=True):
            assert ours.dtype == jnp.float32
            np.testing.assert_allclose(ours, exact, atol=tolerance * float(exact.std()))


def test_large_convolutions_take_the_tiled_form():
    x, kernel = normal(1, 16, 16, 16), normal(3, 3, 16, 16, seed=1)
    tiled, *direct = (
        str(jax.make_jaxpr(ops.convolution)(*arguments))
        for arguments in ((x, kernel), (x[:, :8], kernel), (x[..., :15], kernel[:, :, :15]))
    )
    assert "36" in tiled
    assert all("36" not in text for text in direct)


IMPLEMENTATIONS = [ops.Numerics("matmul"), ops.Numerics("conv")]


@pytest.mark.parametrize("numerics", IMPLEMENTATIONS)
@pytest.mark.parametrize("channels", [3, 12])
@pytest.mark.parametrize("stride", [1, 2])
def test_reflected_convolution(stride, channels, numerics):
    def ours(x, kernel):
        options = {"stride": stride, "padding": "reflect", "numerics": numerics}
        return ops.convolution(x, kernel, **options)

    def plain(x, kernel):
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        return lax.conv_general_dilated(x, kernel, (stride,) * 2, "VALID", dimension_numbers=NHWC)

    for shape in ((2, 8, 10, channels), (1, 2, 2, channels)):
        assert_same_with_gradients(ours, plain, normal(*shape), normal(3, 3, channels, 5, seed=1))


@pytest.mark.parametrize("numerics", IMPLEMENTATIONS)
@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_transposed_convolution(size, numerics):
    def ours(x, kernel):
        return ops.transposed_convolution(x, kernel, numerics=numerics)

    def plain(x, kernel):
        low = size - 1 - size // 2
        return lax.conv_general_dilated(
            x, kernel, (1, 1), [(low, low + 1)] * 2, lhs_dilation=(2, 2), dimension_numbers=NHWC
        )

    arguments = normal(2, 6, 4, 3), normal(size, size, 3, 5, seed=1)
    assert_same_with_gradients(ours, plain, *arguments)


@pytest.mark.parametrize("numerics", IMPLEMENTATIONS)
@pytest.mark.parametrize("size", [1, 3, 7])
def test_depthwise_convolution(size, numerics):
    def ours(x, kernel):
        return ops.depthwise_convolution(x, kernel, numerics=numerics)

    def plain(x, kernel):
        half = (size // 2,) * 2
        return lax.conv_general_dilated(
            x, kernel, (1, 1), [half] * 2, dimension_numbers=NHWC, feature_group_count=4
        )

    for height in (6, 32):  # less than a block of rows, and two
        x, kernel = normal(2, height, 8, 4), normal(size, size, 1, 4, seed=1)
        assert_same_with_gradients(ours, plain, x, kernel)
        # What is lowered for a GPU.
        np.testing.assert_allclose(depthwise.grouped(x, kernel), plain(x, kernel), atol=1e-10)
        cotangent = normal(*x.shape, seed=9)
        (expected,) = jax.vjp(functools.partial(plain, x), kernel)[1](cotangent)
        found = depthwise.sums_of_blocks(x, cotangent, kernel)
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_depthwise_convolutions_follow_the_platform():
    def step(x, kernel):
        numerics = ops.Numerics("conv")
        convolve = functools.partial(ops.depthwise_convolution, numerics=numerics)
        value, pull = jax.vjp(convolve, x, kernel)
        return value, pull(value)

    for platform, convolutions, blocks in (("cuda", 2, 1), ("tpu", 0, 0)):
        traced = jax.jit(step).trace(normal(1, 32, 32, 4), normal(7, 7, 1, 4))
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert text.count("stablehlo.convolution") == convolutions, platform
        assert text.count("optimization_barrier") == blocks, platform


def test_bfloat16_adds_up_in_float32():
    """49 taps of one sign: the error is that of rounding once, 2^-9."""
    rng = np.random.default_rng(0)
    x, kernel = (
        jnp.asarray(rng.uniform(1, 2, shape), jnp.bfloat16)
        for shape in ((1, 64, 64, 8), (7, 7, 1, 8))
    )
    numerics = ops.Numerics("conv", dtype="bfloat16")
    convolve = functools.partial(ops.depthwise_convolution, numerics=numerics)
    found, pull = jax.vjp(convolve, x, kernel)
    exact, exact_pull = jax.vjp(depthwise.grouped, x.astype(float), kernel.astype(float))
    np.testing.assert_allclose(found.astype(float), exact, rtol=2**-8)
    pulled, expected = pull(found), exact_pull(found.astype(float))
    blocks = depthwise.sums_of_blocks(x, found, kernel)
    assert blocks.dtype == jnp.float32
    for ours, wanted in zip((*pulled, blocks), (*expected, expected[1]), strict=True):
        np.testing.assert_allclose(ours.astype(float), wanted, rtol=2**-8)


@pytest.mark.parametrize("numerics", IMPLEMENTATIONS)
def test_batch_norm(numerics):
    ours = functools.partial(ops.batch_norm, numerics=numerics)

    def plain(x, scale, bias):
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return (x - mean) / jnp.sqrt(variance + 1e-5) * scale + bias

    arguments = 0.1 * normal(2, 6, 8, 4) + 5, normal(4, seed=1), normal(4, seed=2)
    assert_same_with_gradients(ours, plain, *arguments)


def test_bfloat16_maps_have_statistics_in_float32():
    x = 0.1 * normal(1, 32, 32, 2) + 3
    single = x.astype(jnp.bfloat16)
    scale, bias = normal(2, seed=1).astype("float32"), normal(2, seed=2).astype("float32")
    found, pull = jax.vjp(ops.batch_norm, single, scale, bias)
    assert found.dtype == jnp.bfloat16
    exact, exact_pull = jax.vjp(ops.batch_norm, single.astype(float), scale, bias)
    # But for the rounding of what comes out: no sum over a map was rounded to 8 bits.
    np.testing.assert_allclose(found.astype(float), exact, atol=2**-8 * float(abs(exact).max()))
    cotangent = normal(*found.shape, seed=9).astype(jnp.bfloat16)
    for ours, wanted in zip(
        pull(cotangent)[1:], exact_pull(cotangent.astype(float))[1:], strict=True
    ):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-3)


def test_batch_norm_keeps_its_digits_far_from_zero():
    x = 1e-3 * normal(1, 16, 16, 2) + 10
    single = ops.batch_norm(x.astype(jnp.float32), jnp.ones(2, "float32"), jnp.zeros(2, "float32"))
    exact = ops.batch_norm(x.astype(jnp.float32).astype(float), jnp.ones(2), jnp.zeros(2))
    # Values of magnitude 10 carry 1e-6, a thousandth of the spread.
    np.testing.assert_allclose(single, exact, atol=3e-3)


@pytest.mark.parametrize("place", [(0, 0), (8, 8), (5, 12)])
def test_batch_norm_keeps_its_digits_beside_an_outlier(place):
    x = normal(1, 16, 16, 1).at[0, *place].set(1e3).astype(jnp.float32)
    scale, bias = jnp.full(1, 100, "float32"), jnp.zeros(1, "float32")
    exact = ops.batch_norm(x.astype(float), scale.astype(float), bias.astype(float))
    np.testing.assert_allclose(ops.batch_norm(x, scale, bias), exact, rtol=1e-5, atol=1e-3)


def interpolate(x, taps):
    """Doubles a row by the definition: repeated edges, weights by distance."""
    size = len(x)
    out = np.zeros((2 * size, *x.shape[1:]))
    for i in range(2 * size):
        position = (i + 0.5) / 2 - 0.5
        for k in range(int(np.floor(position)) - 1, int(np.floor(position)) + 3):
            out[i] += taps(abs(position - k)) * x[np.clip(k, 0, size - 1)]
    return out


def bilinear(d):
    return max(0.0, 1 - d)


def bicubic(d, a=-0.75):
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


@pytest.mark.parametrize("taps", [bilinear, bicubic])
def test_upsample(taps):
    x = normal(1, 5, 7, 2)
    rows = interpolate(np.asarray(x[0]), taps)
    expected = interpolate(rows.swapaxes(0, 1), taps).swapaxes(0, 1)
    found, pull = jax.vjp(lambda x: ops.upsample(x, method=taps.__name__), x)
    np.testing.assert_allclose(found[0], expected, atol=1e-12)
    cotangent = normal(*found.shape, seed=1)
    down, across = interpolate(np.eye(5), taps), interpolate(np.eye(7), taps)
    adjoint = np.einsum("yi,xj,yxc->ijc", down, across, cotangent[0])
    np.testing.assert_allclose(pull(cotangent)[0][0], adjoint, atol=1e-12)


def test_nearest_upsample_and_pixel_shuffle():
    x = normal(1, 3, 4, 8)
    np.testing.assert_array_equal(
        ops.upsample(x, method="nearest")[0], np.kron(x[0], np.ones((2, 2, 1)))
    )
    shuffled = ops.pixel_shuffle(x)
    for c, dy, dx in np.ndindex(2, 2, 2):
        np.testing.assert_array_equal(shuffled[:, dy::2, dx::2, c], x[..., 4 * c + 2 * dy + dx])
