"""Compare values and gradients of each operation with XLA's own in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from isnas_jax import ops
from isnas_jax.ops import _depthwise as depthwise
from isnas_jax.ops import _winograd as winograd

DTYPE_PROMOTION = "standard"

NHWC = ("NHWC", "HWIO", "NHWC")


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def assert_values_and_gradients_equal(function, reference, *arguments):
    """Compare values, and vector-Jacobian products with a random cotangent."""
    cotangent = normal(*jax.eval_shape(reference, *arguments).shape, seed=9)

    def evaluate(function):
        value, pullback = jax.vjp(function, *arguments)
        return value, pullback(cotangent)

    value, gradients = jax.jit(evaluate, static_argnums=0)(function)
    expected, expected_gradients = jax.jit(evaluate, static_argnums=0)(reference)
    assert value.dtype == jnp.float64
    np.testing.assert_allclose(value, expected, atol=1e-10)
    for gradient, expected in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(gradient, expected, atol=1e-9)


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 9), (12, 5), (12, 9)])
@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_convolution(size, inputs, outputs):
    def reference(x, kernel):
        half = (size // 2,) * 2
        return lax.conv_general_dilated(x, kernel, (1, 1), [half] * 2, dimension_numbers=NHWC)

    for height in (2, 8):  # below and above the kernel size
        arguments = normal(2, height, 10, inputs), normal(size, size, inputs, outputs, seed=1)
        assert_values_and_gradients_equal(ops.convolution, reference, *arguments)


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
def test_convolution_under_vmap(axes):
    def reference(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=NHWC)

    x, kernel = normal(3, 2, 8, 10, 12), normal(3, 3, 3, 12, 9, seed=1)
    arguments = x if axes[0] == 0 else x[0], kernel if axes[1] == 0 else kernel[0]
    functions = (jax.vmap(function, axes) for function in (ops.convolution, reference))
    assert_values_and_gradients_equal(*functions, *arguments)


def test_second_derivatives_of_convolution():
    x, kernel = normal(1, 8, 8, 9), normal(3, 3, 9, 9, seed=1)

    def squared_gradient(convolve, x):
        return jnp.square(jax.grad(lambda x: jnp.square(convolve(x, kernel)).sum())(x)).sum()

    def reference(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=NHWC)

    actual, expected = (
        jax.grad(functools.partial(squared_gradient, convolve))(x)
        for convolve in (ops.convolution, reference)
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-8)


@pytest.mark.parametrize(("side", "size"), [(2, 3), (4, 5), (4, 7), (8, 3), (16, 7)])
def test_gradients_in_a_scan_use_only_direct_convolutions(side, size):
    """On CPUs, XLA runs a naive loop for any other convolution inside a scan."""
    x = jnp.zeros((1, side, side, 12), jnp.float32)
    kernel = jnp.zeros((size, size, 12, 12), jnp.float32)

    def step(carried, _):
        value, pullback = jax.vjp(ops.convolution, *carried)
        return pullback(value), None

    scan = jax.jit(lambda *carried: lax.scan(step, carried, length=3)[0])
    hlo = scan.lower(x, kernel).compile().as_text()
    for line in hlo.splitlines():
        if " convolution(" in line:
            assert "dim_labels=b01f_01io->b01f" in line
            for attribute in ("lhs_dilate", "rhs_dilate", "rhs_reversal", "group_count"):
                assert attribute not in line


@pytest.mark.thorough
@pytest.mark.parametrize(("size", "tolerance"), [(3, 3e-5), (5, 1e-4), (7, 6e-4)])
def test_winograd_is_accurate_to_float32(size, tolerance):
    """Compare float32 values and gradients with XLA's convolution in float64."""

    def reference(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=NHWC)

    for height, width in ((16, 32), (17, 19)):  # complete and partial tiles
        x = normal(2, height + size - 1, width + size - 1, 32)
        kernel = normal(size, size, 32, 40, seed=1)
        single = x.astype(jnp.float32), kernel.astype(jnp.float32)
        value, pullback = jax.vjp(winograd.correlate, *single)
        expected, expected_pullback = jax.vjp(reference, *(a.astype(float) for a in single))
        cotangent = normal(*expected.shape, seed=9).astype(jnp.float32)
        all_actual = (value, *pullback(cotangent))
        all_expected = (expected, *expected_pullback(cotangent.astype(float)))
        for actual, expected in zip(all_actual, all_expected, strict=True):
            assert actual.dtype == jnp.float32
            np.testing.assert_allclose(actual, expected, atol=tolerance * float(expected.std()))


def test_winograd_is_used_from_16_pixels_and_channels():
    x, kernel = normal(1, 16, 16, 16), normal(3, 3, 16, 16, seed=1)
    winograd_jaxpr, *other_jaxprs = (
        str(jax.make_jaxpr(ops.convolution)(*arguments))
        for arguments in ((x, kernel), (x[:, :8], kernel), (x[..., :15], kernel[:, :, :15]))
    )
    # A 3 x 3 kernel takes 36 matrix products.
    assert "36" in winograd_jaxpr
    assert all("36" not in jaxpr for jaxpr in other_jaxprs)


IMPLEMENTATIONS = [ops.Numerics("matmul"), ops.Numerics("conv")]


@pytest.mark.parametrize("numerics", IMPLEMENTATIONS)
@pytest.mark.parametrize("channels", [3, 12])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_with_reflection_padding(stride, channels, numerics):
    def convolve(x, kernel):
        options = {"stride": stride, "padding": "reflect", "numerics": numerics}
        return ops.convolution(x, kernel, **options)

    def reference(x, kernel):
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        return lax.conv_general_dilated(x, kernel, (stride,) * 2, "VALID", dimension_numbers=NHWC)

    for shape in ((2, 8, 10, channels), (1, 2, 2, channels)):
        x, kernel = normal(*shape), normal(3, 3, channels, 5, seed=1)
        assert_values_and_gradients_equal(convolve, reference, x, kernel)


@pytest.mark.parametrize("numerics", IMPLEMENTATIONS)
@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_transposed_convolution(size, numerics):
    def convolve(x, kernel):
        return ops.transposed_convolution(x, kernel, numerics=numerics)

    def reference(x, kernel):
        low = size - 1 - size // 2
        return lax.conv_general_dilated(
            x, kernel, (1, 1), [(low, low + 1)] * 2, lhs_dilation=(2, 2), dimension_numbers=NHWC
        )

    arguments = normal(2, 6, 4, 3), normal(size, size, 3, 5, seed=1)
    assert_values_and_gradients_equal(convolve, reference, *arguments)


@pytest.mark.parametrize("numerics", IMPLEMENTATIONS)
@pytest.mark.parametrize("size", [1, 3, 7])
def test_depthwise_convolution(size, numerics):
    def convolve(x, kernel):
        return ops.depthwise_convolution(x, kernel, numerics=numerics)

    def reference(x, kernel):
        half = (size // 2,) * 2
        return lax.conv_general_dilated(
            x, kernel, (1, 1), [half] * 2, dimension_numbers=NHWC, feature_group_count=4
        )

    for height in (6, 32):  # less than one block of rows, and two blocks
        x, kernel = normal(2, height, 8, 4), normal(size, size, 1, 4, seed=1)
        assert_values_and_gradients_equal(convolve, reference, x, kernel)
        # The forms for GPUs.
        actual, expected = depthwise.grouped_convolution(x, kernel), reference(x, kernel)
        np.testing.assert_allclose(actual, expected, atol=1e-10)
        cotangent = normal(*x.shape, seed=9)
        (expected,) = jax.vjp(functools.partial(reference, x), kernel)[1](cotangent)
        actual = depthwise.kernel_gradient_by_blocks(x, cotangent, kernel)
        np.testing.assert_allclose(actual, expected, atol=1e-9)


def test_depthwise_convolution_depends_on_the_lowering_platform():
    def step(x, kernel):
        numerics = ops.Numerics("conv")
        convolve = functools.partial(ops.depthwise_convolution, numerics=numerics)
        value, pullback = jax.vjp(convolve, x, kernel)
        return value, pullback(value)

    for platform, num_convolutions, num_barriers in (("cuda", 2, 1), ("tpu", 0, 0)):
        traced = jax.jit(step).trace(normal(1, 32, 32, 4), normal(7, 7, 1, 4))
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert text.count("stablehlo.convolution") == num_convolutions, platform
        assert text.count("optimization_barrier") == num_barriers, platform


def test_depthwise_bfloat16_accumulates_in_float32():
    """For 49 taps of one sign, the error is that of a single rounding, 2^-9."""
    rng = np.random.default_rng(0)
    x, kernel = (
        jnp.asarray(rng.uniform(1, 2, shape), jnp.bfloat16)
        for shape in ((1, 64, 64, 8), (7, 7, 1, 8))
    )
    numerics = ops.Numerics("conv", dtype="bfloat16")
    convolve = functools.partial(ops.depthwise_convolution, numerics=numerics)
    actual, pullback = jax.vjp(convolve, x, kernel)
    exact, exact_pullback = jax.vjp(
        depthwise.grouped_convolution, x.astype(float), kernel.astype(float)
    )
    np.testing.assert_allclose(actual.astype(float), exact, rtol=2**-8)
    gradients, expected_gradients = pullback(actual), exact_pullback(actual.astype(float))
    by_blocks = depthwise.kernel_gradient_by_blocks(x, actual, kernel)
    assert by_blocks.dtype == jnp.float32
    gradients, expected_gradients = (
        (*gradients, by_blocks),
        (*expected_gradients, expected_gradients[1]),
    )
    for gradient, expected in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(gradient.astype(float), expected, rtol=2**-8)


@pytest.mark.parametrize("numerics", IMPLEMENTATIONS)
def test_batch_norm(numerics):
    normalize = functools.partial(ops.batch_norm, numerics=numerics)

    def reference(x, scale, bias):
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return (x - mean) / jnp.sqrt(variance + 1e-5) * scale + bias

    arguments = 0.1 * normal(2, 6, 8, 4) + 5, normal(4, seed=1), normal(4, seed=2)
    assert_values_and_gradients_equal(normalize, reference, *arguments)


def test_batch_norm_of_bfloat16_has_float32_statistics():
    x = 0.1 * normal(1, 32, 32, 2) + 3
    low_precision = x.astype(jnp.bfloat16)
    scale, bias = normal(2, seed=1).astype("float32"), normal(2, seed=2).astype("float32")
    actual, pullback = jax.vjp(ops.batch_norm, low_precision, scale, bias)
    assert actual.dtype == jnp.bfloat16
    exact, exact_pullback = jax.vjp(ops.batch_norm, low_precision.astype(float), scale, bias)
    # Only the output is rounded to 8 bits, not the sums over the feature maps.
    np.testing.assert_allclose(actual.astype(float), exact, atol=2**-8 * float(abs(exact).max()))
    cotangent = normal(*actual.shape, seed=9).astype(jnp.bfloat16)
    gradients = pullback(cotangent)[1:]
    expected_gradients = exact_pullback(cotangent.astype(float))[1:]
    for gradient, expected in zip(gradients, expected_gradients, strict=True):
        assert gradient.dtype == jnp.float32
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-3)


def test_batch_norm_is_accurate_for_a_large_mean():
    x = 1e-3 * normal(1, 16, 16, 2) + 10
    single = ops.batch_norm(x.astype(jnp.float32), jnp.ones(2, "float32"), jnp.zeros(2, "float32"))
    exact = ops.batch_norm(x.astype(jnp.float32).astype(float), jnp.ones(2), jnp.zeros(2))
    # float32 resolves 1e-6 at 10, which is 1e-3 of the standard deviation.
    np.testing.assert_allclose(single, exact, atol=3e-3)


@pytest.mark.parametrize("position", [(0, 0), (8, 8), (5, 12)])
def test_batch_norm_is_accurate_with_an_outlier(position):
    x = normal(1, 16, 16, 1).at[0, *position].set(1e3).astype(jnp.float32)
    scale, bias = jnp.full(1, 100, "float32"), jnp.zeros(1, "float32")
    exact = ops.batch_norm(x.astype(float), scale.astype(float), bias.astype(float))
    np.testing.assert_allclose(ops.batch_norm(x, scale, bias), exact, rtol=1e-5, atol=1e-3)


def interpolate(x, taps):
    """Double the first axis by the definition: repeated edges, weights by distance."""
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
    actual, pullback = jax.vjp(lambda x: ops.upsample(x, method=taps.__name__), x)
    np.testing.assert_allclose(actual[0], expected, atol=1e-12)
    cotangent = normal(*actual.shape, seed=1)
    down, across = interpolate(np.eye(5), taps), interpolate(np.eye(7), taps)
    adjoint = np.einsum("yi,xj,yxc->ijc", down, across, cotangent[0])
    np.testing.assert_allclose(pullback(cotangent)[0][0], adjoint, atol=1e-12)


def test_nearest_upsampling_and_pixel_shuffle():
    x = normal(1, 3, 4, 8)
    np.testing.assert_array_equal(
        ops.upsample(x, method="nearest")[0], np.kron(x[0], np.ones((2, 2, 1)))
    )
    shuffled = ops.pixel_shuffle(x)
    for c, dy, dx in np.ndindex(2, 2, 2):
        np.testing.assert_array_equal(shuffled[:, dy::2, dx::2, c], x[..., 4 * c + 2 * dy + dx])


def test_leaky_relu_has_gradients_by_input_and_slope():
    x, slope = jnp.array([-2.0, -0.5, 0.0, 3.0]), jnp.array(0.3)

    def total(x, slope):
        return jnp.square(ops.leaky_relu(x, slope)).sum()

    by_x, by_slope = jax.grad(total, (0, 1))(x, slope)
    np.testing.assert_allclose(by_x, 2 * np.where(x >= 0, x, 0.09 * x), rtol=1e-6)
    assert by_slope == pytest.approx(float((2 * 0.3 * jnp.square(jnp.minimum(x, 0))).sum()))
    assert jax.grad(total, 1)(x, slope) == by_slope
