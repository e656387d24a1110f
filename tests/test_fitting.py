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
    Decision,
    Discrepancy,
    Fit,
    FitConfig,
    FitJob,
    FixedIterations,
    LeastValidation,
    MovingVariance,
    RunToEnd,
    Start,
    Step,
    WindowedVariance,
    cached_fit,
    fit_each,
    fit_many,
    lower_steps,
    refit,
    update_ema,
)
from isnas_jax.io import Checkpoint

KEY_REUSE = True  # batches
GENOTYPE = isnas.Genotype(46, "0000011001001001100111101")


def trajectory_problem(arrays, name):
    observed = arrays["observed"].transpose(1, 2, 0)
    if name == "inpainting":
        return isnas.inpainting(observed, arrays["mask"])
    if name == "sr":
        return isnas.super_resolution(observed, int(arrays["factor"]))
    return isnas.denoising(observed)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "implementation"), [("inpainting", "matmul"), ("sr", "matmul"), ("sr", "conv")]
)
def test_follows_the_published_trajectory(reference, name, implementation):
    arrays = reference(f"trajectory_{name}")
    state = {k.removeprefix("param/"): v for k, v in arrays.items() if k.startswith("param/")}
    width = state["enc1.op.0.1.weight"].shape[0]
    genotype = isnas.Genotype(int(arrays["cell"]), str(arrays["skips"]))
    numerics = isnas.Numerics(implementation)
    net = isnas.build_network(genotype, out_channels=3, channels=width, numerics=numerics)
    job = FitJob(
        jax.random.key(0),
        net,
        trajectory_problem(arrays, name),
        clean=arrays["truth"].transpose(1, 2, 0),
        z=arrays["input_noise"].transpose(0, 2, 3, 1),
        start=Start(isnas.interop.from_torch_state_dict(net, state)),
    )
    config = FitConfig(12, learning_rate=0.01, input_noise_std=0.0, ema_decay=0.99)
    (fit,) = fit_many([job], config)
    # Rounding grows fast at Adam's first steps, in the published code as well.
    tolerance = np.array([1e-6, 1e-5, 1e-4] + [3e-3] * 9)
    assert np.all(np.abs(fit.loss - arrays["loss"]) <= tolerance)
    np.testing.assert_allclose(fit.psnr[:2], arrays["psnr"][:2], atol=1e-2)
    np.testing.assert_allclose(fit.psnr_ema[:3], arrays["psnr_ema"][:3], atol=1e-2)
    np.testing.assert_allclose(fit.ema, arrays["last_ema"].transpose(1, 2, 0), atol=2e-2)


def test_moving_average_is_equation_4():
    x, decay = np.random.default_rng(0).normal(size=(30, 4)), 0.9
    ema = jnp.zeros(4)
    for t in range(30):
        ema = update_ema(ema, x[t], decay, t)
        steps = np.arange(1, t + 1)
        explicit = decay**t * x[0] + ((1 - decay) * decay ** (t - steps)) @ x[1 : t + 1]
        np.testing.assert_allclose(ema, explicit, atol=1e-6)


def test_debiased_average_weights_outputs_by_their_age_only():
    x, decay = np.random.default_rng(0).normal(size=(30, 4)), 0.9
    ema, from_zero = jnp.zeros(4), np.zeros(4)
    for t in range(30):
        ema = update_ema(ema, x[t], decay, t, debias=True)
        from_zero = decay * from_zero + (1 - decay) * x[t]
        np.testing.assert_allclose(ema, from_zero / (1 - decay ** (t + 1)), atol=1e-5)


@pytest.fixture
def problem():
    return isnas.denoising(jax.random.uniform(jax.random.key(1), (40, 72, 1)))


def run(net, problem, **options):
    options = {"iterations": 40, "stopping": WindowedVariance(5, 10)} | options
    return isnas.fit(jax.random.key(0), net, problem, **options)


def run_job(job, config):
    return fit_many([job], config)[0]


def assert_same(first, second):
    for name in ("loss", "criterion", "output", "ema", "restored"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), name)
    assert first.restored_at == second.restored_at


def test_same_key_gives_the_same_fit_for_every_chunk(small_network, problem):
    whole = run(small_network(), problem)
    assert_same(whole, run(small_network(), problem))
    assert_same(whole, run(small_network(), problem, chunk=7))
    other = isnas.fit(jax.random.key(9), small_network(), problem, iterations=40)
    assert not np.array_equal(other.loss[:5], whole.loss[:5])


@pytest.mark.parametrize("cell", [None, pytest.param(54, marks=pytest.mark.thorough)])
def test_clean_image_changes_only_the_evaluation(small_network, problem, cell):
    net = small_network()
    if cell:  # a network of five levels with convolutions
        genotype = isnas.Genotype(cell, "0000011001001001100111101")
        net = isnas.build_network(genotype, out_channels=1, channels=4)
    garbage = jax.random.uniform(jax.random.key(5), problem.shape)
    blind, evaluated = (run(net, problem, clean=clean) for clean in (None, garbage))
    assert_same(blind, evaluated)
    assert blind.psnr is None
    expected = -10 * np.log10(np.square(evaluated.ema - np.asarray(garbage)).mean())
    assert evaluated.psnr_ema[-1] == pytest.approx(expected, abs=1e-4)
    best = -10 * np.log10(np.square(evaluated.best - np.asarray(garbage)).mean())
    assert best == pytest.approx(evaluated.psnr_ema.max(), abs=1e-4)


def test_snapshots_are_the_average_at_their_iteration(small_network, problem):
    fit = run(small_network(), problem, snapshots=(0, 6, 39, 1000), stopping=FixedIterations())
    assert list(fit.snapshots) == [0, 6, 39]
    np.testing.assert_array_equal(fit.snapshots[39], fit.ema)
    np.testing.assert_array_equal(
        fit.snapshots[6],
        run(small_network(), problem, iterations=7, stopping=FixedIterations()).restored,
    )


class InterruptedFitError(Exception):
    pass


def test_interrupted_fit_resumes_where_it_was(small_network, problem, tmp_path):
    path = tmp_path / "fit.checkpoint"

    def interrupt(event):
        if event.done >= 20:
            raise InterruptedFitError

    resumed_at = []
    options = {"chunk": 5, "stopping": FixedIterations()}
    with pytest.raises(InterruptedFitError):
        run(small_network(), problem, checkpoint=Checkpoint(path, 0), progress=interrupt, **options)
    resumed = run(
        small_network(),
        problem,
        checkpoint=Checkpoint(path, 0),
        progress=lambda event: resumed_at.append(event.done),
        **options,
    )
    assert resumed_at == [20, 25, 30, 35, 40]
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

    def use_the_same_checkpoint(event):
        del event
        run(small_network(), problem, checkpoint=Checkpoint(path))

    with pytest.raises(ValueError, match="in use by another computation"):
        run(small_network(), problem, checkpoint=Checkpoint(path), progress=use_the_same_checkpoint)
    run(small_network(), problem, checkpoint=Checkpoint(path))


def test_changed_numbers_compile_nothing(small_network, problem):
    compilations = []
    compilation = "/jax/core/compile/backend_compile_duration"
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, _, **__: compilations.append(name) if name == compilation else None
    )
    config = FitConfig(20, snapshots=(3,))
    first = isnas.fit(jax.random.key(0), small_network(), problem, config)
    assert compilations
    before = len(compilations)
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
        assert len(compilations) == before, name
        if name == "snapshots":
            assert list(changed.snapshots) == [5]
        else:
            assert not np.array_equal(changed.ema, first.ema), name


def test_validation_is_the_error_of_the_average_on_other_measurements(small_network, problem):
    kept = jax.random.bernoulli(jax.random.key(2), 0.9, (40, 72))
    training, validation = (isnas.inpainting(problem.observed, mask) for mask in (kept, ~kept))
    job = FitJob(jax.random.key(0), small_network(), training)
    validated = run_job(job._replace(validation=validation), FitConfig(7))
    expected = np.square(validated.ema - np.asarray(problem.observed))[~np.asarray(kept)].mean()
    assert validated.validation[-1] == pytest.approx(expected, rel=1e-4)
    plain = run_job(job, FitConfig(7))
    assert_same(validated, plain)
    assert plain.validation is None


def test_a_fit_starts_from_given_variables_and_optimizer_state(small_network, problem):
    """The last iterations of a fit are those of a fit that starts from its state."""
    options = {"input_noise_std": 0.0, "ema_decay": 0.0, "learning_rate": 0.05}
    job = FitJob(jax.random.key(0), small_network(), problem)
    first, whole = (run_job(job, FitConfig(length, **options)) for length in (8, 20))
    start = Start(first.variables, first.optimizer_state)
    rest = run_job(job._replace(start=start), FitConfig(12, **options))
    np.testing.assert_array_equal(rest.loss, whole.loss[8:])
    np.testing.assert_array_equal(rest.output, whole.output)
    # Without the state of Adam, the steps differ.
    fresh = run_job(job._replace(start=Start(first.variables)), FitConfig(12, **options))
    assert fresh.loss[0] == whole.loss[8]
    assert not np.array_equal(fresh.loss, whole.loss[8:])


def test_a_fit_takes_a_given_noise_map(small_network, problem):
    job = FitJob(jax.random.key(0), small_network(), problem)
    fits = [
        run_job(job._replace(z=z), FitConfig(1, input_noise_std=0.0))
        for z in (np.zeros((1, 64, 96, 2)), np.zeros((1, 64, 96, 2), np.float32), None)
    ]
    assert np.ptp(fits[0].output) == 0  # the network works on each pixel alone
    assert_same(fits[0], fits[1])
    assert np.ptp(fits[2].output) > 0


def test_regularizers_are_minimized_but_not_reported(small_network, problem):
    """A heavy total variation flattens the output; the reported loss does not contain it."""
    options = {"iterations": 60, "stopping": FixedIterations(), "input_noise_std": 0.0}
    plain = run(small_network(), problem, **options)
    flat = run(
        small_network(),
        problem,
        regularizers=[isnas.TotalVariation(10.0)],
        **options,
    )
    assert np.abs(np.diff(flat.output, axis=0)).mean() < (
        0.5 * np.abs(np.diff(plain.output, axis=0)).mean()
    )
    expected = np.square(flat.output - np.asarray(problem.observed)).mean()
    assert flat.loss[-1] == pytest.approx(expected, rel=1e-4)
    assert flat.loss[0] == plain.loss[0]


def test_states_of_rules_may_be_shared_arrays_and_plain_numbers(small_network, problem):
    """The program of a fit takes the memory of its state, but not of arrays in the problem."""

    class SharesArrays(FixedIterations):
        def init(self, problem, iterations):
            return problem.observed, problem.observed

    run(small_network(), problem, iterations=3, stopping=SharesArrays())
    assert np.isfinite(problem.observed).all()

    class PlainNumbers(FixedIterations):
        def init(self, problem, iterations):
            return np.inf, iterations

        def update(self, state, step):
            return (step.loss, step.iteration), Decision(True, False, state[0])

    fit = run(small_network(), problem, iterations=3, stopping=PlainNumbers())
    np.testing.assert_array_equal(fit.criterion, [np.inf, *fit.loss[:2]])


JAX_SETTINGS = {
    "x64": lambda: jax.enable_x64(True),
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "rank": lambda: jax.numpy_rank_promotion("raise"),
    "dtype": lambda: jax.numpy_dtype_promotion("standard"),  # all tests use "strict"
}


@pytest.fixture(scope="module")
def fits_by_setting():
    """Fits of every part of the loop: validation, refit, clean image, snapshots, each rule."""

    def fits(net):
        noisy = isnas.add_noise(jax.random.key(1), np.full((16, 20, 1), 0.5), sigma=9)
        rule = RunToEnd(LeastValidation(3, 0.5, 2), 9)
        config = FitConfig(8, rule, split=isnas.HoldOut(0.2), snapshots=(3,), refit_from=0.5)
        job = FitJob(jax.random.key(0), net, noisy, np.full((16, 20, 1), 0.5))
        validated = run_job(job, config)
        whole = refit(job._replace(clean=noisy.observed), config, [validated], noisy)
        bootstrap = isnas.CoupledBootstrap(0.2)(jax.random.key(2), noisy)[0]
        rules = [
            isnas.fit(jax.random.key(0), net, bootstrap, iterations=8, stopping=rule)
            for rule in (WindowedVariance(3, 4), MovingVariance(start=2), Discrepancy())
        ]
        return [fit.arrays() for fit in (validated, whole, *rules)]

    plain = {}

    def compare(net, setting):
        if not plain:
            plain["fits"] = fits(net)
        with JAX_SETTINGS[setting]():
            results = fits(net)
        for arrays, expected in zip(results, plain["fits"], strict=True):
            assert arrays.keys() == expected.keys()
            for name, values in expected.items():
                np.testing.assert_array_equal(arrays[name], values, name)
                assert arrays[name].dtype == values.dtype, name
        _, whole, window, *_ = results
        assert "validation" not in whole
        assert np.isnan(whole["criterion"][-1])  # a refit has no measurements to validate with
        np.testing.assert_array_equal(np.isnan(window["criterion"]), np.arange(8) < 2)

    return compare


THOROUGH = ("rank", "dtype", "debug_infs", "x64")


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param(name, marks=[pytest.mark.thorough] * (name in THOROUGH))
        for name in JAX_SETTINGS
    ],
)
def test_settings_of_jax_change_no_number(small_network, fits_by_setting, setting):
    fits_by_setting(small_network(), setting)


def test_a_fit_has_a_readable_summary_and_a_figure(small_network, problem):
    options = {"iterations": 6, "stopping": FixedIterations()}
    fit = run(small_network(), problem, clean=problem.observed, **options)
    assert repr(fit).startswith("Fit of 40 x 72 x 1: 6 iterations, restored at 5 with ")
    assert fit.plot().get_axes()[0].get_images()[0].get_array().shape == (40, 72)


def test_error_of_a_loss_that_is_not_finite_names_network_and_iteration(problem, small_network):
    net = small_network()
    variables = net.init(jax.random.key(0), jnp.zeros((1, 64, 96, 2)))
    start = Start(jax.tree.map(lambda leaf: leaf * jnp.nan, variables))
    job = FitJob(jax.random.key(0), net, problem, start=start)
    with pytest.raises(FloatingPointError, match=r"SmallNetwork is not finite at iteration 0"):
        run_job(job, FitConfig(2))


def test_padding_is_not_part_of_the_loss(small_network, problem):
    fit = run(small_network(), problem, iterations=1)
    assert fit.output.shape == (40, 72, 1)
    expected = np.square(fit.output - np.asarray(problem.observed)).mean()
    assert fit.loss[0] == pytest.approx(expected, rel=1e-5)


def test_impossible_values_raise(small_network, problem):
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
    with pytest.raises(ValueError, match="generates 3 channels, but the image has 1"):
        run(small_network(out_channels=3), problem)
    for clean, message in (
        (np.zeros((3, 3, 1)), r"clean image of shape \(3, 3, 1\) for an image of shape"),
        (np.zeros(problem.shape, np.uint8), r"float32\) / 255"),
        (np.full(problem.shape, np.nan), "the clean image holds values that are not finite"),
        (np.full(problem.shape, 200.0), "the clean image holds values of about 200"),
    ):
        with pytest.raises(ValueError, match=message):
            run(small_network(), problem, clean=clean)


def test_arguments_of_other_types_raise(small_network, problem):
    net, key = small_network(), jax.random.key(0)
    for arguments, options, message in (
        ((0, net, problem), {}, r"give jax\.random\.key\(0\)"),
        ((jax.random.PRNGKey(0), net, problem), {}, "wrap_key_data"),
        ((jax.random.split(key), net, problem), {}, r"key\[0\]"),
        ((key, "dip", problem), {}, "'dip' is not a Flax module"),
        ((key, GENOTYPE, problem), {}, "is not a Flax module"),
        ((key, net, problem.observed), {}, "is not a problem"),
        ((key, net, problem), {"stopping": "es-wmv"}, "'es-wmv' is a name"),
        ((key, net, problem), {"stopping": isnas.WindowedVariance}, "is not a stopping rule"),
    ):
        with pytest.raises(ValueError, match=message):
            isnas.fit(*arguments, iterations=2, **options)
    with pytest.raises(ValueError, match="inside of jit, vmap or grad"):
        jax.vmap(lambda key: isnas.fit(key, net, problem, iterations=2).ema)(jax.random.split(key))


@pytest.mark.parametrize(
    ("start", "update", "message"),
    [
        (
            0,
            lambda state, step: (step.loss, Decision(True, False)),
            "starts with 0.0",
        ),
        (0.0, lambda state, step: ((state, state), Decision(True, False)), "structure, shapes"),
        (0.0, lambda state, step: Decision(True, False), r"must return \(state, Decision\)"),
        (0.0, lambda state, step: (state, Decision(step.ema > 0, False)), "a Decision of scalars"),
    ],
)
def test_rules_of_another_form_are_refused(small_network, problem, start, update, message):
    methods = {"init": lambda *_: start, "update": lambda _, state, step: update(state, step)}
    rule = dataclasses.make_dataclass("Rule", [], namespace=methods, frozen=True)()
    with pytest.raises(ValueError, match=f"Rule.update.*{message}"):
        isnas.fit(jax.random.key(0), small_network(), problem, iterations=2, stopping=rule)
    with pytest.raises(ValueError, match="a dataclass must be frozen"):
        FitConfig(2, dataclasses.make_dataclass("Rule", [], namespace=methods)())


def test_other_inputs_of_a_job_are_checked(small_network, problem):
    job = FitJob(jax.random.key(0), small_network(), problem)
    small = isnas.denoising(np.zeros((40, 40, 1)))
    with pytest.raises(ValueError, match=r"validation problem of shape \(40, 40, 1\) for an image"):
        run_job(job._replace(validation=small), FitConfig(2))
    with pytest.raises(ValueError, match="LeastValidation needs a validation problem"):
        run_job(job, FitConfig(2, LeastValidation()))


@pytest.mark.thorough
def test_steps_have_no_slow_convolution_and_remat_keeps_fewer_feature_maps():
    """On CPUs, XLA runs all but direct convolutions in a loop naively."""
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
def test_steps_for_accelerators_have_full_precision_and_no_call_of_a_cpu_library(platform):
    for architecture in (GENOTYPE, isnas.Genotype(172, "1" * 25), isnas.dip):
        net = isnas.build_network(
            architecture,
            out_channels=3,
            channels=32,
            numerics=isnas.Numerics("conv"),
        )
        problem = isnas.super_resolution(jnp.zeros((32, 32, 3)), 2)
        text = lower_steps(net, problem, target=platform).as_text()
        convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
        products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
        assert len(convolutions) > 60
        # Those of the operator and its gradient. Winograd needs several for each convolution.
        assert len(products) <= 8
        for line in convolutions + products:
            assert line.count("HIGHEST") == 2, line
        assert "lapack" not in text
        assert "custom_call" not in text.replace("@Sharding", "")


def jobs_of(net, problems, **fields):
    """Return a job for each problem, each with its own key."""
    keys = jax.random.split(jax.random.key(3), len(problems))
    return [
        FitJob(key, net, problem, **fields) for key, problem in zip(keys, problems, strict=True)
    ]


class Reports(list):
    """A callback that records (number, iterations) of every event of `fit_many`."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def __call__(self, event):
        kind, number, count = event.stage
        assert (kind, count) == ("fit", self.count)
        self.append((number, event.done))


def test_many_fits_one_after_another_equal_single_fits(small_network, problem):
    config = FitConfig(20, WindowedVariance(5, 10))
    jobs, reports = jobs_of(small_network(), [problem] * 2), Reports(2)
    fits = fit_many(jobs, config, batched=False, progress=reports)
    for job, fit in zip(jobs, fits, strict=True):
        assert_same(fit, isnas.fit(job.key, job.net, problem, config))
    assert reports == [(1, len(fits[0].loss)), (2, len(fits[1].loss))]


@pytest.mark.parametrize("batched", [False, True])
def test_many_fits_may_be_none_or_one(small_network, problem, batched):
    assert fit_many([], FitConfig(2), batched=batched) == []
    (job,) = jobs_of(small_network(), [problem])
    (single,) = fit_many([job], FitConfig(2), batched=batched)
    assert_same(single, isnas.fit(job.key, job.net, problem, FitConfig(2)))


def test_a_batch_needs_one_size_and_one_cell(small_network, problem):
    other = isnas.denoising(jnp.zeros((64, 64, 1)))
    with pytest.raises(ValueError, match=r"\(40, 72, 1\), \(64, 64, 1\)"):
        fit_many(jobs_of(small_network(), [problem, other]), FitConfig(2), batched=True)
    nets = [isnas.build_network(isnas.Genotype(c, "0" * 25), out_channels=1) for c in (4, 60)]
    jobs = [
        job._replace(net=net) for job, net in zip(jobs_of(None, [problem] * 2), nets, strict=True)
    ]
    with pytest.raises(ValueError, match=r"genotype 4:0+ and genotype 60:0+ differ in more than"):
        fit_many(jobs, FitConfig(2), batched=True)
    jobs[1] = jobs[1]._replace(net=small_network())
    with pytest.raises(ValueError, match="only if they share a cell"):
        fit_many(jobs, FitConfig(2), batched=True)


@pytest.mark.parametrize("batched", [False, True])
def test_one_failed_fit_does_not_end_the_others(small_network, problem, batched):
    broken = dataclasses.replace(problem, observed=problem.observed.at[0, 0].set(jnp.nan))
    jobs, config = jobs_of(small_network(), [broken, problem]), FitConfig(8, chunk=3)
    ended, reports = [], Reports(2)

    def on_end(index, result):
        ended.append((index, result))

    fit_each(jobs, config, on_end, batched=batched, progress=reports)
    (first, failure), (second, fit) = ended  # the failed fit ends at its first chunk
    assert (first, second) == (0, 1)
    assert isinstance(failure, FloatingPointError)
    assert "SmallNetwork is not finite at iteration 0" in str(failure)
    single = isnas.fit(jobs[1].key, small_network(), problem, config)
    np.testing.assert_allclose(fit.loss, single.loss, rtol=1e-5)
    assert [done for number, done in reports if number == 2] == [3, 6, 8]
    ended_before_error = Reports(2)
    with pytest.raises(FloatingPointError, match="iteration 0"):
        fit_many(jobs, config, batched=batched, progress=ended_before_error)
    assert ended_before_error[-1] == (2, 8)


@pytest.mark.parametrize("batched", [False, True])
def test_each_fit_is_passed_on_as_soon_as_it_has_ended(small_network, problem, batched):
    dark = dataclasses.replace(problem, observed=problem.observed * 0)
    jobs = jobs_of(small_network(), [problem, dark, problem])
    order = []

    @dataclasses.dataclass(frozen=True)
    class StopDark(FixedIterations):
        def update(self, state, step):
            return state, Decision(True, step.problem.observed.max() == 0)

    fit_each(
        jobs,
        FitConfig(6, StopDark(), chunk=2),
        lambda index, fit: order.append(("end", index + 1, len(fit.loss))),
        batched=batched,
        progress=lambda event: order.append((*event.stage[1:2], event.done, event.total)),
    )
    dark_fit = [(2, 1, 1), ("end", 2, 1)]
    if batched:
        assert order[:4] == [(1, 2, 6), dark_fit[0], (3, 2, 6), dark_fit[1]]
    else:
        assert order[3:6] == [("end", 1, 6), *dark_fit]
    assert order[-1] == ("end", 3, 6)


def test_an_error_of_the_callback_ends_the_fits(small_network, problem):
    class FullDiskError(Exception):
        pass

    def store(index, fit):
        raise FullDiskError

    for batched in (False, True):
        with pytest.raises(FullDiskError):
            fit_each(jobs_of(small_network(), [problem] * 2), FitConfig(2), store, batched=batched)


def test_events_of_a_fit(small_network, problem):
    events = []
    fit = run(
        small_network(),
        problem,
        iterations=7,
        chunk=3,
        stopping=FixedIterations(),
        progress=events.append,
    )
    assert [(event.stage, event.done, event.total) for event in events] == [
        (("fit", 1, 1), done, 7) for done in (3, 6, 7)
    ]
    assert [event.loss for event in events] == fit.loss[[2, 5, 6]].tolist()
    seconds = [event.seconds for event in events]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0
    assert all(event.image is None for event in events)
    # A fit that stops early ends its own report.
    events.clear()
    stopped = run(small_network(), problem, progress=events.append, learning_rate=0.1)
    assert events[-1].done == events[-1].total == len(stopped.loss) < 40


@dataclasses.dataclass(frozen=True)
class TooLarge:
    """Keep everything; run out of memory in a batch of more than two."""

    def init(self, problem, iterations):
        return ()

    def update(self, state, step):
        def allocate(loss):
            if loss.size > 2:
                raise MemoryError("RESOURCE_EXHAUSTED: out of memory")
            return loss

        criterion = jax.pure_callback(allocate, step.loss, step.loss, vmap_method="expand_dims")
        return state, Decision(jnp.array(True), jnp.array(False), criterion)


@pytest.mark.parametrize(
    ("stopping", "batches"), [(FixedIterations(), [5]), (TooLarge(), [2, 2, 1])]
)
def test_a_batch_is_as_large_as_memory_allows(small_network, problem, stopping, batches):
    jobs, reports = jobs_of(small_network(), [problem] * 5), Reports(5)
    config = FitConfig(2, stopping, chunk=1)
    fits = fit_many(jobs, config, batched=True, progress=reports)
    order, first = [], 1
    for size in batches:
        order += [(first + slot, done) for done in (1, 2) for slot in range(size)]
        first += size
    assert reports == order
    for job, fit in zip(jobs, fits, strict=True):
        single = isnas.fit(job.key, job.net, problem, config)
        np.testing.assert_allclose(fit.loss, single.loss, rtol=1e-4)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        jax.vmap(lambda loss: TooLarge().update((), Step(0, 0, 0, loss, 0, False, 0)))(jnp.ones(3))


def test_interrupted_batch_resumes_where_it_was(small_network, problem, tmp_path):
    config = FitConfig(12, chunk=3)

    def run_batch(name, **options):
        jobs = [
            job._replace(checkpoint=Checkpoint(tmp_path / f"{name}{index}", 0))
            for index, job in enumerate(
                jobs_of(small_network(), [problem] * 2, clean=problem.observed)
            )
        ]
        return jobs, fit_many(jobs, config, batched=True, **options)

    def interrupt(event):
        if event.stage[1] == 2 and event.done > 6:
            raise InterruptedFitError

    with pytest.raises(InterruptedFitError):
        run_batch("interrupted", progress=interrupt)
    reports = Reports(2)
    jobs, resumed = run_batch("interrupted", progress=reports)
    assert reports == [(1, 9), (2, 9), (1, 12), (2, 12)]
    for fit, whole in zip(resumed, run_batch("whole")[1], strict=True):
        assert_same(fit, whole)
        np.testing.assert_array_equal(fit.psnr_ema, whole.psnr_ema)
    # A single fit resumes from the checkpoint of a batch.
    reports = Reports(1)
    (single,) = fit_many([jobs[1]], config, progress=reports)
    assert reports == [(1, 12)]
    np.testing.assert_allclose(single.loss, resumed[1].loss, rtol=1e-2)


def test_cached_fits_are_loaded(small_network, problem, tmp_path):
    config = FitConfig(4, chunk=2, snapshots=(1,))
    (job,) = jobs_of(small_network(), [problem], clean=problem.observed)
    reports = Reports(1)
    computed = cached_fit(job, config, tmp_path, reports)
    assert reports == [(1, 2), (1, 4)]
    loaded = cached_fit(job, config, tmp_path, reports)
    assert len(reports) == 2
    assert loaded.variables is None
    assert loaded.arrays().keys() == computed.arrays().keys()
    for name, array in run_job(job, config).arrays().items():
        np.testing.assert_array_equal(loaded.arrays()[name], array, name)
    assert not list(tmp_path.rglob("*.checkpoint"))
    # Another config is another fit.
    cached_fit(job, dataclasses.replace(config, iterations=3), tmp_path, reports)
    assert reports[2:] == [(1, 2), (1, 3)]


def test_without_a_folder_a_job_keeps_its_own_checkpoint(small_network, problem, tmp_path):
    (job,) = jobs_of(small_network(), [problem])
    job = job._replace(checkpoint=Checkpoint(tmp_path / "own.checkpoint", 0))
    cached_fit(job, FitConfig(4, chunk=2))
    assert job.checkpoint.path.exists()


def test_a_fit_is_restored_from_its_arrays(small_network, problem):
    fit = run(small_network(), problem, snapshots=(2,), clean=problem.observed)
    restored = Fit.from_arrays(fit.arrays())
    assert_same(restored, fit)
    assert repr(restored) == repr(fit)
    np.testing.assert_array_equal(restored.snapshots[2], fit.snapshots[2])
    assert (restored.variables, restored.validation, restored.fold_fits) == (None, None, ())


@pytest.mark.thorough
def test_batches_on_eight_devices_equal_single_fits():
    script = pathlib.Path(__file__).parent / "eight_devices.py"
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
