import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import isnas_jax as isnas
from isnas_jax.fitting import (
    Part,
    fit_many,
    fit_memory,
    lower_steps,
    refit,
    update_ema,
)
from isnas_jax.fitting.stopping import (
    Decision,
    Discrepancy,
    FixedIterations,
    LeastValidation,
    MovingVariance,
    RunToEnd,
    Step,
    WindowedVariance,
)
from isnas_jax.io import Checkpoint


def trajectory_problem(arrays, name):
    observed = arrays["observed"].transpose(1, 2, 0)
    if name == "inpainting":
        return isnas.inpainting(observed, arrays["mask"])
    if name == "sr":
        return isnas.super_resolution(observed, int(arrays["factor"]))
    return isnas.denoising(observed)


@pytest.mark.parametrize(
    ("name", "implementation"),
    [
        ("inpainting", "matmul"),
        pytest.param("sr", "matmul", marks=pytest.mark.thorough),
        pytest.param("sr", "conv", marks=pytest.mark.thorough),
    ],
)
def test_follows_the_published_trajectory(reference, name, implementation):
    arrays = reference(f"trajectory_{name}")
    state = {k.removeprefix("param/"): v for k, v in arrays.items() if k.startswith("param/")}
    width = state["enc1.op.0.1.weight"].shape[0]
    genotype = isnas.Genotype(int(arrays["cell"]), str(arrays["skips"]))
    numerics = isnas.Numerics(implementation)
    net = isnas.build_network(genotype, out_channels=3, channels=width, numerics=numerics)
    fit = isnas.fit(
        jax.random.key(0),
        net,
        trajectory_problem(arrays, name),
        variables=isnas.interop.from_torch_state_dict(net, state),
        z=arrays["input_noise"].transpose(0, 2, 3, 1),
        iterations=12,
        learning_rate=0.01,
        input_noise_std=0.0,
        ema_decay=0.99,
        clean=arrays["truth"].transpose(1, 2, 0),
    )
    # Rounding grows fast at Adam's first steps, in the published code as well.
    tolerance = np.array([1e-6, 1e-5, 1e-4] + [3e-3] * 9)
    assert np.all(np.abs(fit.loss - arrays["loss"]) <= tolerance)
    np.testing.assert_allclose(fit.psnr[:2], arrays["psnr"][:2], atol=1e-2)
    np.testing.assert_allclose(fit.psnr_ema[:3], arrays["psnr_ema"][:3], atol=1e-2)
    np.testing.assert_allclose(fit.ema, arrays["last_ema"].transpose(1, 2, 0), atol=2e-2)


def test_exponential_mean_is_equation_4():
    x, decay = np.random.default_rng(0).normal(size=(30, 4)), 0.9
    mean = jnp.zeros(4)
    for t in range(30):
        mean = update_ema(mean, x[t], decay, t)
        steps = np.arange(1, t + 1)
        explicit = decay**t * x[0] + ((1 - decay) * decay ** (t - steps)) @ x[1 : t + 1]
        np.testing.assert_allclose(mean, explicit, atol=1e-6)


def test_debiased_mean_weighs_all_outputs_alike_but_for_their_age():
    x, decay = np.random.default_rng(0).normal(size=(30, 4)), 0.9
    mean, from_zero = jnp.zeros(4), np.zeros(4)
    for t in range(30):
        mean = update_ema(mean, x[t], decay, t, debias=True)
        from_zero = decay * from_zero + (1 - decay) * x[t]
        np.testing.assert_allclose(mean, from_zero / (1 - decay ** (t + 1)), atol=1e-5)


@pytest.fixture
def problem():
    return isnas.denoising(jax.random.uniform(jax.random.key(1), (40, 72, 1)))


def run(net, problem, **options):
    options = {"iterations": 40, "stopping": WindowedVariance(5, 10)} | options
    return isnas.fit(jax.random.key(0), net, problem, **options)


def assert_same(first, second):
    for name in ("loss", "criterion", "output", "ema", "restored"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), name)
    assert first.restored_at == second.restored_at


def test_same_key_same_fit_whatever_the_chunk(small_network, problem):
    whole = run(small_network(), problem)
    assert_same(whole, run(small_network(), problem))
    assert_same(whole, run(small_network(), problem, chunk=7))
    other = isnas.fit(jax.random.key(9), small_network(), problem, iterations=40)
    assert not np.array_equal(other.loss[:5], whole.loss[:5])


def test_truth_changes_nothing_but_the_evaluation(small_network, problem):
    garbage = jax.random.uniform(jax.random.key(5), problem.shape)
    blind, evaluated = (run(small_network(), problem, clean=t) for t in (None, garbage))
    assert_same(blind, evaluated)
    assert blind.psnr is None
    expected = -10 * np.log10(np.square(evaluated.ema - np.asarray(garbage)).mean())
    assert evaluated.psnr_ema[-1] == pytest.approx(expected, abs=1e-4)
    best = -10 * np.log10(np.square(evaluated.best - np.asarray(garbage)).mean())
    assert best == pytest.approx(evaluated.psnr_ema.max(), abs=1e-4)


def test_snapshots_are_the_mean_at_their_iteration(small_network, problem):
    fit = run(small_network(), problem, snapshots=(0, 6, 39, 1000), stopping=FixedIterations())
    assert list(fit.snapshots) == [0, 6, 39]
    np.testing.assert_array_equal(fit.snapshots[39], fit.ema)
    np.testing.assert_array_equal(
        fit.snapshots[6],
        run(small_network(), problem, iterations=7, stopping=FixedIterations()).restored,
    )


class KilledError(Exception):
    pass


def test_a_killed_fit_goes_on_where_it_was(small_network, problem, tmp_path):
    path = tmp_path / "fit.checkpoint"

    def die(progress):
        if progress.iteration >= 20:
            raise KilledError

    rest = []
    options = {"chunk": 5, "stopping": FixedIterations()}
    with pytest.raises(KilledError):
        run(small_network(), problem, checkpoint=Checkpoint(path, 0), progress=die, **options)
    resumed = run(
        small_network(),
        problem,
        checkpoint=Checkpoint(path, 0),
        progress=lambda p: rest.append(p.iteration),
        **options,
    )
    assert rest == [20, 25, 30, 35, 40]
    options |= {"checkpoint": Checkpoint(path, 0)}
    for changes, difference in (
        ({"learning_rate": 0.02}, r"config\.learning_rate was 0\.01 and is now 0\.02"),
        ({"clean": problem.observed}, r"clean was None and is now 'float32\[40, 72, 1\]"),
    ):
        with pytest.raises(ValueError, match=difference):
            run(small_network(), problem, **options | changes)
    with pytest.raises(ValueError, match=r"problem\.observed was"):
        run(small_network(), isnas.denoising(problem.observed + 0.1), **options)
    assert_same(resumed, run(small_network(), problem, stopping=FixedIterations()))


def test_a_checkpoint_has_one_writer(small_network, problem, tmp_path):
    path = tmp_path / "fit.checkpoint"

    def intrude(_):
        run(small_network(), problem, checkpoint=Checkpoint(path))

    with pytest.raises(ValueError, match="in use by another computation"):
        run(small_network(), problem, checkpoint=Checkpoint(path), progress=intrude)
    run(small_network(), problem, checkpoint=Checkpoint(path))


def test_numbers_change_without_compiling(small_network, problem):
    heard = []
    event = "/jax/core/compile/backend_compile_duration"
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, _, **__: heard.append(name) if name == event else None
    )
    config = isnas.FitConfig(20, snapshots=(3,))
    first = isnas.fit(jax.random.key(0), small_network(), problem, config)
    assert heard
    before = len(heard)
    changes = {
        "iterations": 30,
        "learning_rate": 0.02,
        "input_noise_std": 0.1,
        "ema_decay": 0.5,
        "debias": True,
        "snapshots": (5,),
    }
    for name, value in changes.items():
        changed = isnas.fit(jax.random.key(0), small_network(), problem, config, **{name: value})
        assert len(heard) == before, name
        if name == "snapshots":
            assert list(changed.snapshots) == [5]
        else:
            assert not np.array_equal(changed.ema, first.ema), name


def test_validation_is_the_error_of_the_mean_on_other_measurements(small_network, problem):
    kept = jax.random.bernoulli(jax.random.key(2), 0.9, (40, 72))
    ours, theirs = (isnas.inpainting(problem.observed, mask) for mask in (kept, ~kept))
    fit = run(small_network(), ours, iterations=7, validation=theirs, stopping=FixedIterations())
    left = ~np.asarray(kept)
    expected = np.square(fit.ema - np.asarray(problem.observed))[left].mean()
    assert fit.validation[-1] == pytest.approx(expected, rel=1e-4)
    assert_same(fit, run(small_network(), ours, iterations=7, stopping=FixedIterations()))
    assert run(small_network(), ours, iterations=2).validation is None


def test_loss_terms_are_added_and_the_loss_stays_the_problems(small_network, problem):
    """A heavy total variation flattens the output; the reported loss does not contain it."""
    options = {"iterations": 60, "stopping": FixedIterations(), "input_noise_std": 0.0}
    plain = run(small_network(), problem, **options)
    flat = run(
        small_network(),
        problem,
        regularizers=[isnas.REGULARIZERS["total variation"](10.0)],
        **options,
    )
    assert np.abs(np.diff(flat.output, axis=0)).mean() < (
        0.5 * np.abs(np.diff(plain.output, axis=0)).mean()
    )
    expected = np.square(flat.output - np.asarray(problem.observed)).mean()
    assert flat.loss[-1] == pytest.approx(expected, rel=1e-4)
    assert flat.loss[0] == plain.loss[0]


def test_a_rule_may_hand_over_what_it_was_given(small_network, problem):
    """The state is given away to the program; arrays of the problem in it are not."""

    class Keeps(FixedIterations):
        def init(self, problem):
            return problem.observed, problem.observed

    run(small_network(), problem, iterations=3, stopping=Keeps())
    assert np.isfinite(problem.observed).all()

    class Plain(FixedIterations):
        """Plain numbers are arrays as well."""

        def init(self, problem):
            return np.inf, 0

        def update(self, state, step):
            return (step.loss, step.iteration), Decision(True, False, state[0])

    fit = run(small_network(), problem, iterations=3, stopping=Plain())
    np.testing.assert_array_equal(fit.criterion, [np.inf, *fit.loss[:2]])


JAX_SETTINGS = {
    "x64": lambda: jax.enable_x64(True),
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "rank": lambda: jax.numpy_rank_promotion("raise"),
    "dtype": lambda: jax.numpy_dtype_promotion("strict"),
}


@pytest.fixture(scope="module")
def fits_by_setting():
    """Fits of every part of the loop: validation, refit, clean image, snapshots, each rule."""

    def fits(net):
        noisy = isnas.TASKS["denoising"].corrupt(
            jax.random.key(1), np.full((16, 20, 1), 0.5), sigma=9
        )
        rule = RunToEnd(LeastValidation(3, 0.5, 2), 9)
        held = isnas.FitConfig(8, rule, split=isnas.SPLITS["held-out"](0.2), snapshots=(3,))
        held = dataclasses.replace(held, refit_from=0.5)
        part = isnas.fit(jax.random.key(0), net, noisy, held, clean=np.full((16, 20, 1), 0.5))
        whole = refit(
            jax.random.key(0), net, noisy, held, [Part(noisy, part)], clean=noisy.observed
        )
        bootstrap = isnas.SPLITS["bootstrap"](0.2)(jax.random.key(2), noisy)[0]
        rules = [
            isnas.fit(jax.random.key(0), net, bootstrap, iterations=8, stopping=rule)
            for rule in (WindowedVariance(3, 4), MovingVariance(start=2), Discrepancy())
        ]
        return [fit.arrays() for fit in (part, whole, *rules)]

    plain = {}

    def compare(net, setting):
        if not plain:
            plain["fits"] = fits(net)
        with JAX_SETTINGS[setting]():
            found = fits(net)
        for ours, expected in zip(found, plain["fits"], strict=True):
            assert ours.keys() == expected.keys()
            for name, values in expected.items():
                np.testing.assert_array_equal(ours[name], values, name)
                assert ours[name].dtype == values.dtype, name
        _, whole, window, *_ = found
        assert "validation" not in whole
        assert np.isnan(whole["criterion"][-1])  # of all measurements, none of which validates
        np.testing.assert_array_equal(np.isnan(window["criterion"]), np.arange(8) < 2)

    return compare


THOROUGH = ("rank", "dtype", "debug_infs")


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param(name, marks=[pytest.mark.thorough] * (name in THOROUGH))
        for name in JAX_SETTINGS
    ],
)
def test_a_setting_of_jax_changes_no_number(small_network, fits_by_setting, setting):
    fits_by_setting(small_network(), setting)


def test_a_fit_reads_well_and_draws_itself(small_network, problem):
    fit = run(small_network(), problem, clean=problem.observed, stopping=FixedIterations(6))
    assert repr(fit).startswith("Fit of 40 x 72 x 1: 6 iterations, restored at 5 with ")
    assert fit.plot().get_axes()[0].get_images()[0].get_array().shape == (40, 72)


def test_a_fit_that_explodes_says_which_and_when(problem, small_network):
    with pytest.raises(FloatingPointError, match=r"SmallNetwork is not finite at iteration 0"):
        run(
            small_network(),
            problem,
            variables=jax.tree.map(
                lambda p: p * jnp.nan,
                small_network().init(jax.random.key(0), jnp.zeros((1, 64, 96, 2))),
            ),
        )


def test_padding_never_enters_the_loss(small_network, problem):
    fit = run(small_network(), problem, iterations=1)
    assert fit.output.shape == (40, 72, 1)
    expected = np.square(fit.output - np.asarray(problem.observed)).mean()
    assert fit.loss[0] == pytest.approx(expected, rel=1e-5)


def test_refuses_impossible_settings(small_network, problem):
    for options in (
        {"iterations": 0},
        {"chunk": 0},
        {"learning_rate": 0.0},
        {"learning_rate": np.nan},
        {"input_noise_std": np.inf},
        {"ema_decay": 1.0},
    ):
        with pytest.raises(ValueError, match=str(next(iter(options)))):
            run(small_network(), problem, **options)
    with pytest.raises(ValueError, match="images of 3 channels, not of 1"):
        run(small_network(out_channels=3), problem)
    for clean, message in (
        (np.zeros((3, 3, 1)), "clean image of shape"),
        (np.zeros(problem.shape, np.uint8), r"float32\) / 255"),
        (np.full(problem.shape, np.nan), "the clean image holds values that are not finite"),
        (np.full(problem.shape, 200.0), "the clean image holds values of about 200"),
    ):
        with pytest.raises(ValueError, match=message):
            run(small_network(), problem, clean=clean)


def test_refuses_what_is_no_key_network_rule_or_problem(small_network, problem):
    net, key = small_network(), jax.random.key(0)
    for arguments, options, message in (
        ((0, net, problem), {}, r"give jax\.random\.key\(0\)"),
        ((jax.random.PRNGKey(0), net, problem), {}, "wrap_key_data"),
        ((jax.random.split(key), net, problem), {}, r"key\[0\]"),
        ((key, "dip", problem), {}, "'dip' is no network"),
        ((key, GENOTYPE, problem), {}, "is no network"),
        ((key, net, problem.observed), {}, "is no problem"),
        ((key, net, problem), {"stopping": "es-wmv"}, "'es-wmv' is a name"),
        ((key, net, problem), {"stopping": isnas.STOPPING["es-wmv"]}, "is no rule"),
    ):
        with pytest.raises(ValueError, match=message):
            isnas.fit(*arguments, iterations=2, **options)
    with pytest.raises(ValueError, match="inside of jit, vmap or grad"):
        jax.vmap(lambda key: isnas.fit(key, net, problem, iterations=2).ema)(jax.random.split(key))


GENOTYPE = isnas.Genotype(46, "0000011001001001100111101")


@pytest.mark.thorough
def test_steps_hold_no_naive_convolution_and_with_remat_fewer_maps():
    """On CPUs all but direct convolutions are naive in a loop."""
    plans = []
    for remat in (False, True):
        net = isnas.build_network(GENOTYPE, out_channels=3, channels=32, remat=remat)
        steps = lower_steps(net, isnas.denoising(jnp.zeros((64, 64, 3)))).compile()
        text = steps.as_text()
        assert " while(" in text
        convolutions = [line for line in text.splitlines() if " convolution(" in line]
        assert convolutions
        for line in convolutions:
            assert "dim_labels=b01f_01io->b01f" in line
            for slow in ("lhs_dilate", "rhs_dilate", "rhs_reversal", "group_count"):
                assert slow not in line
        plans.append(steps)
    kept, remat = plans
    assert remat.cost_analysis()["flops"] > 1.1 * kept.cost_analysis()["flops"]
    temporary = [steps.memory_analysis().temp_size_in_bytes for steps in plans]
    assert temporary[1] < 0.8 * temporary[0]


@pytest.mark.thorough
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_steps_for_accelerators_hold_full_precision_and_nothing_of_the_cpus(platform):
    for genotype in (GENOTYPE, isnas.Genotype(172, "1" * 25), "dip"):
        net = isnas.build_network(
            genotype,
            out_channels=3,
            channels=32,
            numerics=isnas.Numerics("conv"),
        )
        problem = isnas.super_resolution(jnp.zeros((32, 32, 3)), 2)
        text = lower_steps(net, problem, target=platform).as_text()
        convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
        products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
        assert len(convolutions) > 60
        # Those of the operator and its gradient; Winograd's would be several a convolution.
        assert len(products) <= 8
        for line in convolutions + products:
            assert line.count("HIGHEST") == 2, line
        assert "lapack" not in text
        assert "custom_call" not in text.replace("@Sharding", "")


def test_many_fits_one_by_one_are_single_fits(small_network, problem):
    keys = jax.random.split(jax.random.key(3), 2)
    config = isnas.FitConfig(20, WindowedVariance(5, 10))
    asked = [isnas.FitJob(key, small_network(), problem) for key in keys]
    fits = fit_many(asked, config, together=False)
    for key, fit in zip(keys, fits, strict=True):
        assert_same(fit, isnas.fit(key, small_network(), problem, config))


def test_many_fits_need_one_size(small_network, problem):
    other = isnas.denoising(jnp.zeros((64, 64, 1)))

    def asked(*nets, problems=(problem, other)):
        keys = jax.random.split(jax.random.key(3), 2)
        return [isnas.FitJob(*of) for of in zip(keys, nets, problems, strict=True)]

    with pytest.raises(ValueError, match=r"\(40, 72, 1\), \(64, 64, 1\)"):
        fit_many(asked(small_network(), small_network()), isnas.FitConfig(2), together=True)
    nets = [isnas.build_network(isnas.Genotype(c, "0" * 25), out_channels=1) for c in (4, 60)]
    with pytest.raises(ValueError, match=r"genotype 4:0+ and genotype 60:0+ differ in more than"):
        fit_many(asked(*nets, problems=[problem] * 2), isnas.FitConfig(2), together=True)


@pytest.mark.parametrize("together", [False, True])
def test_of_many_fits_one_fails_alone(small_network, problem, together):
    keys = jax.random.split(jax.random.key(3), 2)
    bad = dataclasses.replace(problem, observed=problem.observed.at[0, 0].set(jnp.nan))
    heard = []
    asked = [
        isnas.FitJob(key, small_network(), one)
        for key, one in zip(keys, (problem, bad), strict=True)
    ]
    found = isnas.fit_stream(
        asked,
        isnas.FitConfig(8, chunk=3),
        together=together,
        progress=lambda position, news: heard.append((position, news.iteration)),
    )
    good, failed = (result for _, result in sorted(found, key=lambda of: of[0]))
    alone = isnas.fit(keys[0], small_network(), problem, isnas.FitConfig(8, chunk=3))
    np.testing.assert_allclose(good.loss, alone.loss, rtol=1e-5)
    assert isinstance(failed, FloatingPointError)
    assert "iteration 0" in str(failed)
    assert [at for position, at in heard if position == 0] == [3, 6, 8]
    with pytest.raises(FloatingPointError):
        fit_many(asked, isnas.FitConfig(2), together=together)


@dataclasses.dataclass(frozen=True)
class Crowded:
    """Keeps everything; asks for too much memory in a batch of more than two."""

    def init(self, problem):
        return ()

    def update(self, state, step):
        def allocate(loss):
            if loss.size > 2:
                raise MemoryError("RESOURCE_EXHAUSTED: out of memory")
            return loss

        criterion = jax.pure_callback(allocate, step.loss, step.loss, vmap_method="expand_dims")
        return state, Decision(jnp.array(True), jnp.array(False), criterion)


@pytest.mark.parametrize(
    ("memory", "stopping", "batches"),
    [
        (None, FixedIterations(), [5]),
        (1, FixedIterations(), [1] * 5),
        ("a quarter more than two", FixedIterations(), [2, 2, 1]),
        (None, Crowded(), [2, 2, 1]),
    ],
)
def test_a_batch_is_as_large_as_memory_allows(small_network, problem, memory, stopping, batches):
    keys = jax.random.split(jax.random.key(3), 5)
    asked = [isnas.FitJob(key, small_network(), problem) for key in keys]
    config = isnas.FitConfig(2, stopping, chunk=1)
    if isinstance(memory, str):
        memory = fit_memory(small_network(), problem) * 9 // 4
    heard = []
    fits = fit_many(
        asked,
        config,
        together=True,
        memory=memory,
        progress=lambda position, news: heard.append((position, news.iteration)),
    )
    order, first = [], 0
    for size in batches:
        order += [(first + place, at) for at in (1, 2) for place in range(size)]
        first += size
    assert heard == order
    for key, found in zip(keys, fits, strict=True):
        alone = isnas.fit(key, small_network(), problem, config)
        np.testing.assert_allclose(found.loss, alone.loss, rtol=1e-4)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        jax.vmap(lambda loss: Crowded().update((), Step(0, 0, 0, loss, 0, False, 0)))(jnp.ones(3))


def test_a_killed_batch_goes_on_where_it_was(small_network, problem, tmp_path):
    config = isnas.FitConfig(12, chunk=3)

    def many(name, **options):
        keys = jax.random.split(jax.random.key(3), 2)
        asked = [
            isnas.FitJob(
                key, small_network(), problem, problem.observed, Checkpoint(tmp_path / at, 0)
            )
            for key, at in zip(keys, (f"{name}0", f"{name}1"), strict=True)
        ]
        return asked, fit_many(asked, config, together=True, **options)

    def die(position, progress):
        if position == 1 and progress.iteration > 6:
            raise KilledError

    with pytest.raises(KilledError):
        many("broken", progress=die)
    heard = []
    asked, resumed = many(
        "broken", progress=lambda *news: heard.append((news[0], news[1].iteration))
    )
    assert heard == [(0, 9), (1, 9), (0, 12), (1, 12)]
    for one, whole in zip(resumed, many("whole")[1], strict=True):
        assert_same(one, whole)
        np.testing.assert_array_equal(one.psnr_ema, whole.psnr_ema)
    # What a batch has kept of a fit, the fit takes up alone.
    key, net, _, clean, checkpoint = asked[1]
    heard.clear()
    alone = isnas.fit(
        key, net, problem, config, clean=clean, checkpoint=checkpoint, progress=heard.append
    )
    assert [news.iteration for news in heard] == [12]
    np.testing.assert_allclose(alone.loss, resumed[1].loss, rtol=1e-2)


@pytest.mark.thorough
def test_many_fits_on_eight_devices_are_single_fits():
    script = pathlib.Path(__file__).parent / "eight_devices.py"
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
