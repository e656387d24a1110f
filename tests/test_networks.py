"""Tests of networks, their initialization, and the conversion of published weights."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import isnas_jax as isnas
from isnas_jax import registries
from isnas_jax.networks import architectures
from isnas_jax.networks.genotypes import NAS_DIP, decode_cell, valid_cells
from isnas_jax.ops.numerics import IMPLEMENTATIONS

INPUT_SHAPE = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)


def build_from(meta):
    """Build the network that the metadata of a reference file describes."""
    options = {"out_channels": 3, "channels": meta["channels"]}
    if meta["kind"] == "cross_skip":
        return isnas.build_network(isnas.Genotype(meta["cell"], meta["skips"]), **options)
    kind, task = meta["kind"].split("_")
    baseline = {"dip": isnas.dip, "nasdip": isnas.nas_dip}[kind]
    task = "super_resolution" if task == "sr" else task
    return isnas.build_network(baseline, task=task, **options)


def load(reference, name):
    """Load the arrays, the network and the published weights of a reference file."""
    arrays = reference(name)
    state = {k.removeprefix("param/"): v for k, v in arrays.items() if k.startswith("param/")}
    return arrays, build_from(json.loads(str(arrays["meta"]))), state


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    "name",
    ["cell016", "cell044", "cell080", "cell283", "dip_inpainting", "nasdip_sr", "skips_none"],
)
def test_outputs_equal_those_of_the_published_network(reference, name, implementation):
    arrays, net, state = load(reference, f"network_{name}")
    net = net.clone(numerics=isnas.Numerics(implementation))
    variables = isnas.interop.from_torch_state_dict(net, state)
    y = net.apply(variables, arrays["x"].transpose(0, 2, 3, 1))
    # Without skips, the first normalization amplifies rounding errors. The published output
    # has an error of 1.1e-4, and this one depends on the CPU.
    atol = 3e-4 if name == "skips_none" else 1e-4
    np.testing.assert_allclose(np.moveaxis(y, -1, 1), arrays["y"], atol=atol)


def test_error_for_a_missing_weight_names_it(reference):
    _, net, state = load(reference, "network_cell016")
    del state["dec3.op.4.1.weight"]
    with pytest.raises(ValueError, match=r"no 'dec3\.op\.4\.1\.weight'"):
        isnas.interop.from_torch_state_dict(net, state)


@pytest.mark.parametrize("first", range(0, 324, 27))
def test_valid_cells_double_height_and_width_and_have_gradients(first, request):
    step = 1 if request.config.getoption("--thorough") else 9
    x = jax.random.normal(jax.random.key(1), (1, 4, 6, 16))
    weights = jax.random.normal(jax.random.key(2), (1, 8, 12, 16))
    for index in sorted(set(range(first, first + 27, step)) & set(valid_cells(16))):
        cell = architectures.UpsamplingCell(index, 16)
        variables = cell.init(jax.random.key(0), x)

        def loss(variables, x, cell=cell):
            return (cell.apply(variables, x) * weights).sum()

        assert cell.apply(variables, x).shape == (1, 8, 12, 16), index
        if decode_cell(index).activation != "leaky_relu":
            continue  # leaky ReLU covers the gradients of all operations
        gradient = jax.grad(loss, argnums=(0, 1))(variables, x)
        for leaf in jax.tree.leaves(gradient):
            assert np.isfinite(leaf).all(), index
            assert np.any(leaf != 0), index


def test_valid_cells_are_the_same_for_16_and_128_channels():
    assert valid_cells(16) == valid_cells(128)
    assert len(valid_cells(128)) == 297


def test_initialization_has_the_distribution_of_pytorch():
    net = isnas.build_network(isnas.Genotype(316, "0" * 25), out_channels=3, channels=32)
    params = net.lazy_init(jax.random.key(0), INPUT_SHAPE)["params"]
    # The bound is 1 / sqrt(fan_in); transposed convolutions have fan_in = outputs * taps.
    for kernel, bias, fan_in in (
        (params["enc1"]["down"]["conv"]["kernel"], params["enc1"]["down"]["conv"]["bias"], 27),
        (params["dec1"]["block1"]["conv"]["kernel"], None, 288),
        (params["up1"]["conv"]["kernel"], params["up1"]["conv"]["bias"], 32 * 9),
    ):
        bound = fan_in**-0.5
        assert 0.98 * bound < np.abs(kernel).max() <= bound
        assert abs(np.std(kernel) / (bound / 3**0.5) - 1) < 0.1
        if bias is not None:
            assert 0 < np.abs(bias).max() <= bound


def test_absent_skips_have_no_parameters_and_shared_modules_exist_once():
    def module_names(skips):
        net = isnas.build_network(isnas.Genotype(4, skips), out_channels=1, channels=8)
        return set(jax.eval_shape(net.init, jax.random.key(0), INPUT_SHAPE)["params"])

    without_skips = module_names("0" * 25)
    assert not any(name.startswith("skip") for name in without_skips)
    # The skip from e_0 to level 3 passes level 2, where it joins the skip from e_1.
    skips = "0" * 10 + "11000" + "0" * 10
    assert module_names(skips) - without_skips == {"skip_down_1_2", "skip_down_2_3"}


def test_weights_of_common_modules_depend_only_on_the_key():
    first, second = (
        isnas.build_network(isnas.Genotype(4, skips), out_channels=1, channels=8).lazy_init(
            jax.random.key(5), INPUT_SHAPE
        )
        for skips in ("1" * 25, "0" * 25)
    )
    for name, value in second["params"].items():
        jax.tree.map(np.testing.assert_array_equal, value, first["params"][name])


def test_baselines_have_the_published_configs():
    dip = isnas.build_network(isnas.dip, out_channels=3, task="inpainting")
    assert (dip.skip_channels, dip.upsampling, dip.in_channels) == (128, "nearest", 32)
    dip = isnas.build_network(isnas.dip, out_channels=3, task="denoising")
    assert (dip.skip_channels, dip.upsampling) == (4, "bilinear")
    nas_dip = isnas.build_network(isnas.nas_dip, out_channels=3, task="super_resolution")
    assert (nas_dip.genotype, nas_dip.in_channels) == (NAS_DIP["super_resolution"], 32)


@pytest.mark.thorough
def test_bfloat16_networks_return_float32_images_close_to_the_published(reference):
    arrays, net, state = load(reference, "network_cell080")
    variables = isnas.interop.from_torch_state_dict(net, state)
    net = net.clone(numerics=isnas.Numerics(dtype="bfloat16"))
    y, pullback = jax.vjp(net.apply, variables, arrays["x"].transpose(0, 2, 3, 1))
    assert y.dtype == jnp.float32
    error = np.moveaxis(y, -1, 1) - arrays["y"]
    assert 1e-4 < np.sqrt(np.mean(error**2)) < 0.2 * arrays["y"].std()
    for leaf in jax.tree.leaves(pullback(y)[0]):
        assert leaf.dtype == jnp.float32


def test_errors_list_the_valid_choices():
    with pytest.raises(ValueError, match="'lax' does not exist; choose from matmul, conv"):
        isnas.Numerics("lax")
    with pytest.raises(ValueError, match="float32, bfloat16"):
        isnas.Numerics(dtype="float16")
    with pytest.raises(
        ValueError, match=r"'unet' is a text; .* or a baseline, such as isnas_jax\.dip"
    ):
        isnas.build_network("unet", out_channels=3)
    for error in (ValueError, KeyError):
        with pytest.raises(error, match="network 'unet' does not exist; choose from dip, nas-dip"):
            registries.BASELINES["unet"]
    with pytest.raises(ValueError, match="nas-dip has no task 'deblurring'"):
        isnas.build_network(isnas.nas_dip, out_channels=3, task="deblurring")
    with pytest.raises(ValueError, match="impossible at 128 channels"):
        isnas.build_network(isnas.Genotype(240, "0" * 25), out_channels=3)
    net = isnas.build_network(isnas.dip, out_channels=3, channels=4)
    with pytest.raises(ValueError, match="multiple of 32"):
        net.init(jax.random.key(0), jnp.zeros((1, 80, 64, 32)))


def test_a_baseline_builds_a_network_of_ones_own(small_network):
    built = []

    def build(task, **channels):
        built.append((task, channels))
        return small_network(out_channels=channels["out_channels"])

    baseline = isnas.Baseline("small", build)
    assert str(baseline) == "small"
    net = isnas.build_network(baseline, out_channels=3, task="inpainting", channels=8)
    assert net == small_network(out_channels=3)
    assert built == [("inpainting", {"out_channels": 3, "channels": 8, "in_channels": 32})]
