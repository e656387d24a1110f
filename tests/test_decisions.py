"""Decisions without the clean image: stopping, refits, stacks; and the tables that judge them."""

import dataclasses
import pathlib
import re
import zlib

import jax
import numpy as np
import pandas as pd
import pytest

import isnas_jax as isnas
from experiments.decisions import (
    aggregation,
    curves,
    gather,
    methods,
    scores,
    stopping,
    tables,
)
from isnas_jax.fitting import Decision, FitJob, Start, cached_fit, refit
from isnas_jax.fitting.job import prepare
from isnas_jax.fitting.step import chunk_program
from isnas_jax.problems import classical, without_measurements
from isnas_jax.registries import CLASSICAL, COMBINATIONS, SELECTIONS, STOPPING
from isnas_jax.searching import plan_search
from isnas_jax.study import Case, key_of
from isnas_jax.study.intervals import over_images


def new_key():
    return jax.random.key(5)


@dataclasses.dataclass(frozen=True)
class KeepIteration11:
    """Keep iteration 11 and stop three iterations later, with validation only."""

    needs_validation = True

    def init(self, problem, iterations):
        return ()

    def update(self, state, step):
        known = step.has_validation
        stop = known & (step.iteration >= 14)
        return state, Decision(~known | (step.iteration == 11), stop, step.validation, known)


CONFIG = isnas.FitConfig(
    40, KeepIteration11(), split=isnas.HoldOut(0.2), learning_rate=0.1, debias=True, chunk=7
)


@pytest.fixture(scope="module")
def clean():
    return np.kron(np.eye(4), np.ones((8, 8)))[..., None].astype(np.float32) * 0.6 + 0.2


@pytest.fixture(scope="module")
def noisy(clean):
    return isnas.add_noise(jax.random.key(6), clean, sigma=25)


def test_refit_is_as_long_as_the_validated_fit(clean, noisy, small_network, tmp_path):
    net = small_network()

    def run(config=CONFIG, folder=None):
        job = FitJob(new_key(), net, noisy)
        part = cached_fit(job, config, folder)
        return refit(job._replace(clean=clean), config, [part], noisy, folder)

    result, part = run(folder=tmp_path), isnas.fit(new_key(), net, noisy, CONFIG)
    np.testing.assert_array_equal(result.fold_fits[0].validation, part.validation)
    assert result.restored_at == part.restored_at == 11
    assert (len(result.loss), len(part.loss)) == (12, 15)
    # Equals a fit of fixed iterations to all measurements from the same initialization.
    changes = {"stopping": isnas.FixedIterations(), "iterations": 1 + part.restored_at}
    alone = isnas.fit(new_key(), net, noisy, CONFIG, split=None, **changes)
    np.testing.assert_allclose(result.restored, alone.restored, atol=2e-5)
    np.testing.assert_allclose(result.loss, alone.loss, rtol=1e-3)
    assert result.validation is None
    np.testing.assert_array_equal(result.curves()["validation"], part.validation)
    assert result.loss[0] != part.loss[0]

    longer = dataclasses.replace(CONFIG, refit_factor=1.5)
    assert run(longer).restored_at == 17

    again = run(folder=tmp_path)
    np.testing.assert_array_equal(again.restored, result.restored)
    np.testing.assert_array_equal(again.fold_fits[0].restored, result.fold_fits[0].restored)


@pytest.mark.parametrize("fraction", [0.25, 0.75])
def test_refit_continues_from_a_fraction_of_the_validated_fit(
    clean, noisy, small_network, tmp_path, fraction
):
    """Fit the training problem for a fraction of its iterations, then all measurements."""
    net, (part, validation) = small_network(), isnas.HoldOut(0.2)(new_key(), noisy)
    config = dataclasses.replace(CONFIG, refit_from=fraction, refit_factor=1.25)

    def run(config=config, folder=None):
        fit = cached_fit(FitJob(new_key(), net, part, clean, validation), config.unsplit(), folder)
        return refit(FitJob(new_key(), net, noisy, clean), config, [fit], part, folder), fit

    result, fit = run()
    left_at = round(12 * fraction)
    fixed = {"split": None, "stopping": isnas.FixedIterations(), "debias": True}
    before = isnas.fit(new_key(), net, part, CONFIG, iterations=left_at, **fixed)
    start = Start(before.variables, before.optimizer_state)
    rest = dataclasses.replace(CONFIG, iterations=15 - left_at, **fixed)
    (after,) = isnas.fit_many([FitJob(new_key(), net, noisy, start=start)], rest)
    np.testing.assert_allclose(result.restored, after.restored, atol=2e-5)
    np.testing.assert_allclose(result.loss, np.append(before.loss, after.loss), rtol=1e-3)
    np.testing.assert_array_equal(result.psnr_ema[:left_at], fit.psnr_ema[:left_at])
    assert result.restored_at == 14
    assert result.psnr_ema[14] == pytest.approx(
        -10 * np.log10(np.square(result.restored - clean).mean()), abs=1e-3
    )
    # Neither the chunk length nor loading the validated fit from a file changes the result.
    other, _ = run(dataclasses.replace(config, chunk=5))
    np.testing.assert_array_equal(other.restored, result.restored)
    run(folder=tmp_path)
    for file in tmp_path.glob("*.npz"):
        with np.load(file) as arrays:
            if len(arrays["loss"]) == 15 - left_at:
                file.unlink()
    again, fit = run(folder=tmp_path)
    assert fit.start is None
    np.testing.assert_array_equal(again.restored, result.restored)


def test_validated_fit_and_refit_run_one_program(noisy, small_network):
    training, validation = isnas.HoldOut(0.2)(new_key(), noisy)
    pairs = ((training, validation, 40), (noisy, without_measurements(noisy), 12))
    programs = []
    for problem, other, iterations in pairs:
        config = dataclasses.replace(CONFIG, iterations=iterations)
        job = FitJob(new_key(), small_network(), problem, validation=other)
        structure, state, inputs = prepare(job, config)
        with chunk_program(structure, config.chunk, state, inputs) as program:
            programs.append(program)
    assert programs[0] is programs[1]


def test_a_rule_without_validation_needs_no_refit(noisy, small_network):
    config = stacking_config(small_network, noisy, ())
    search_config = dataclasses.replace(CONFIG, stopping=isnas.FixedIterations())
    stages = []
    result = isnas.restore(
        new_key(),
        noisy,
        1,
        dataclasses.replace(config, fit=search_config),
        progress=lambda event: stages.append(event.stage[0]),
    )
    assert set(stages) == {"restore", "preview"}
    assert result.fold_fits == ()
    key = key_of_member(new_key(), 1)
    alone = isnas.fit(key, small_network(in_channels=3), noisy, search_config, split=None)
    np.testing.assert_array_equal(result.restored, alone.restored)


def test_restore_equals_the_refit_of_a_search_member(clean, noisy, small_network, tmp_path):
    config = stacking_config(small_network, noisy, ())
    result = isnas.search(new_key(), noisy, config, clean=clean, folder=tmp_path)
    index, (_, fit) = next(iter(result.restorations.items()))
    stages = []
    alone = isnas.restore(
        new_key(),
        noisy,
        result.cohort.members[index],
        config,
        clean=clean,
        progress=lambda event: stages.append(event.stage[0]),
    )
    assert list(dict.fromkeys(stages)) == ["validate", "preview", "restore"]
    np.testing.assert_array_equal(alone.restored, fit.restored)
    np.testing.assert_array_equal(
        alone.fold_fits[0].validation, result.cohort.fits(index)[0].validation
    )


def key_of_member(key, member):
    """Return the key that a search derives for a member from its name."""
    fit_key = jax.random.split(jax.random.split(key, 3)[2], 4)[3]
    return jax.random.fold_in(fit_key, zlib.crc32(str(member).encode()))


@pytest.mark.parametrize("rule", STOPPING)
def test_no_rule_sees_the_clean_image(noisy, small_network, rule):
    wrong_image = np.asarray(jax.random.uniform(new_key(), noisy.shape))
    config = isnas.FitConfig(30, STOPPING[rule], split=isnas.HoldOut(0.2))
    no_clean, wrong_clean = (
        isnas.fit(new_key(), small_network(), noisy, config, clean=clean)
        for clean in (None, wrong_image)
    )
    assert wrong_clean.restored_at == no_clean.restored_at
    np.testing.assert_array_equal(wrong_clean.criterion, no_clean.criterion)
    np.testing.assert_allclose(wrong_clean.restored, no_clean.restored, atol=1e-6)


class SmallSpace:
    """A search space of small networks."""

    def __init__(self, small_network):
        self.small_network = small_network

    def sample(self, key, num, channels):
        return list(range(num))

    def build(self, genotype, *, out_channels, channels, in_channels=None):
        return self.small_network(in_channels=2 + genotype)


def stacking_config(small_network, problem, members):
    config = isnas.presets.quick(problem, iterations=40, learning_rate=0.1)
    search = dataclasses.replace(
        config.search,
        strategy=isnas.RandomSearch(3),
        cohort=2,
        space=SmallSpace(small_network),
        extra_members=members,
    )
    return isnas.Config(isnas.NetworkConfig(4), config.fit, search)


def test_stack_equals_a_manual_computation_for_any_clean_image(
    clean, noisy, small_network, tmp_path
):
    """Stack two networks and non-local means; the clean image changes only the evaluation."""
    config = stacking_config(small_network, noisy, (isnas.non_local_means,))
    wrong_image = np.asarray(jax.random.uniform(jax.random.key(9), clean.shape))
    result, wrong_clean, no_clean = (
        isnas.search(new_key(), noisy, config, clean=given, folder=tmp_path / name)
        for name, given in (("a", clean), ("b", wrong_image), ("c", None))
    )
    for other in (wrong_clean, no_clean):
        np.testing.assert_array_equal(other.restored, result.restored)
        np.testing.assert_array_equal(other.weights, result.weights)
        for select in SELECTIONS.values():
            assert select(other.cohort) == select(result.cohort)
        for combine in COMBINATIONS.values():
            np.testing.assert_array_equal(combine(other.cohort, 1), combine(result.cohort, 1))
    assert not np.array_equal(
        wrong_clean.cohort.fits(0)[0].psnr_ema, result.cohort.fits(0)[0].psnr_ema
    )

    cohort = result.cohort
    assert cohort.members[2] is isnas.non_local_means
    assert np.isnan(cohort.scores[2])
    # The noise of the validation problem is independent of that of the training problem.
    stages = jax.random.split(new_key(), 3)[2]
    fitted, validation = config.fit.split(jax.random.split(stages, 4)[2], noisy)
    np.testing.assert_array_equal(cohort.folds[0].problem.observed, fitted.observed)
    errors = [np.square(image - np.asarray(validation.observed)).mean() for image in cohort.images]
    np.testing.assert_allclose(cohort.errors, errors, rtol=1e-5)
    assert result.selected == np.argmin(errors)
    np.testing.assert_array_equal(
        cohort.images[2], classical.restore(isnas.non_local_means, fitted)
    )
    np.testing.assert_array_equal(result.weights, isnas.Stack()(cohort, result.selected))
    mean = 0
    for index, (image, fit) in result.restorations.items():
        mean += result.weights[index] * image
        if index < 2:
            stop = cohort.fits(index)[0].restored_at + 1
            assert fit.restored_at + 1 == round(config.fit.refit_factor * stop)
        else:
            np.testing.assert_array_equal(image, classical.restore(isnas.non_local_means, noisy))
    np.testing.assert_allclose(result.restored, mean, atol=1e-6)
    assert np.square(result.restored - clean).mean() < np.square(noisy.observed - clean).mean()

    again = isnas.search(new_key(), noisy, config, clean=clean, folder=tmp_path / "a")
    np.testing.assert_array_equal(again.restored, result.restored)
    with pytest.raises(
        ValueError,
        match=r"'biharmonic' restores inpainting, not denoising",
    ):
        isnas.search(new_key(), noisy, stacking_config(small_network, noisy, (isnas.biharmonic,)))
    with pytest.raises(ValueError, match="extra_members contain 'dip' more than once"):
        stacking_config(small_network, noisy, (isnas.dip, isnas.dip))


def test_a_cohort_of_classical_members_fits_nothing(noisy, small_network):
    """Stack two classical restorations without drawing, scoring or fitting."""
    methods = (isnas.non_local_means, isnas.total_variation)
    config = stacking_config(small_network, noisy, methods)
    config = dataclasses.replace(config, search=dataclasses.replace(config.search, cohort=0))
    stages = []
    result = isnas.search(
        new_key(), noisy, config, progress=lambda event: stages.append(event.stage)
    )
    assert not stages
    assert len(result.candidates.genotypes) == 0
    mean = sum(
        weight * classical.restore(method, noisy)
        for weight, method in zip(result.weights, methods, strict=True)
    )
    np.testing.assert_allclose(result.restored, mean, atol=1e-6)
    assert [member.name for member in result.member_curves()] == list(map(str, methods))
    without_members = dataclasses.replace(config.search, extra_members=())
    with pytest.raises(ValueError, match="a cohort of 0"):
        isnas.search(new_key(), noisy, dataclasses.replace(config, search=without_members))


def test_a_cohort_fitted_to_all_measurements_is_not_refitted(noisy, small_network):
    config = stacking_config(small_network, noisy, ())
    fit = isnas.FitConfig(10)
    search = dataclasses.replace(
        config.search, selection=isnas.closest_to_mean, combination=isnas.uniform_mean
    )
    result = isnas.search(new_key(), noisy, isnas.Config(config.network, fit, search))
    for index in (0, 1):
        assert result.restorations[index].fit is result.cohort.fits(index)[0]
    np.testing.assert_allclose(result.restored, result.cohort.images.mean(axis=0), atol=1e-6)


def fail_on_draw(key, context):
    pytest.fail("genotypes were drawn")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("LeastValidation", {"fit": isnas.FitConfig(1, isnas.LeastValidation())}),
        ("lowest_validation", {"selection": isnas.lowest_validation}),
        ("Stack", {"combination": isnas.Stack()}),
    ],
)
def test_validation_without_a_split_fails_before_any_computation(
    noisy, small_network, name, changes
):
    config = stacking_config(small_network, noisy, ())
    without = {"selection": isnas.closest_to_mean, "combination": isnas.uniform_mean}
    without |= {"fit": isnas.FitConfig(1), "strategy": fail_on_draw}
    search = dataclasses.replace(config.search, **(without | changes))
    with pytest.raises(ValueError, match=f"{name} needs a split"):
        isnas.search(new_key(), noisy, dataclasses.replace(config, search=search))


@pytest.mark.parametrize(
    "how", ["equal fits", "shorter cohort", "selected only", "without a split"]
)
def test_predicted_stages_bound_the_actual_ones(how, noisy, small_network):
    config = stacking_config(small_network, noisy, (isnas.non_local_means,))
    fit = dataclasses.replace(config.fit, folds=2, split=isnas.HoldOut(0.2), refit_factor=1.5)
    search = config.search
    if how == "shorter cohort":
        search = dataclasses.replace(search, fit=dataclasses.replace(fit, iterations=30))
    if how == "selected only":
        search = dataclasses.replace(search, combination=isnas.selected_only)
    if how == "without a split":
        fit = isnas.FitConfig(30)
        search = dataclasses.replace(
            search, selection=isnas.closest_to_mean, combination=isnas.uniform_mean
        )
    config = dataclasses.replace(config, fit=fit, search=search)
    longest = {}

    def note(event):
        if event.stage[0] not in ("score", "preview"):
            longest[event.stage] = max(event.total, longest.get(event.stage, 0))

    result = isnas.search(new_key(), noisy, config, progress=note)
    plan = plan_search(config)
    kinds = [kind for kind, *_ in longest]
    assert set(kinds) <= set(plan)
    assert kinds.count("cohort") == plan["cohort"].fits
    networks = sum(fit is not None for _, fit in result.restorations.values())
    if how == "without a split":
        assert list(plan) == ["cohort"]
    elif networks:
        assert kinds.count("restore") == networks <= plan["restore"].fits
        assert kinds.count("validate") == (2 * networks if "validate" in plan else 0)
    for (kind, number, count), iterations in longest.items():
        assert 1 <= number <= count <= plan[kind].fits
        assert iterations <= plan[kind].iterations


def test_folds_average_errors_and_stops(clean, noisy, small_network):
    config = stacking_config(small_network, noisy, (isnas.non_local_means,))
    fit = dataclasses.replace(config.fit, folds=2, split=isnas.HoldOut(0.2), refit_factor=1.5)
    stages = []
    result = isnas.search(
        new_key(),
        noisy,
        dataclasses.replace(config, fit=fit),
        progress=lambda event: stages.append(event.stage),
    )
    assert {("cohort", number, 4) for number in (1, 2, 3, 4)} < set(stages)
    errors = np.zeros(3)
    for fold in result.cohort.folds:
        out = np.asarray(fold.validation.weights) > 0
        assert (np.asarray(fold.problem.weights) == 0)[out].all()
        errors += [
            np.square(image - np.asarray(noisy.observed))[out].mean() for image in fold.images
        ]
    np.testing.assert_allclose(result.cohort.errors, errors / 2, rtol=1e-5)
    for index in set(result.restorations) & {0, 1}:
        fit, fold_fits = result.restorations[index].fit, result.cohort.fits(index)
        stops = [fold_fit.restored_at + 1 for fold_fit in fold_fits]
        assert len(stops) == 2
        assert len(fit.loss) == round(1.5 * np.mean(stops))
        assert fit.fold_fits == tuple(fold_fits)


@pytest.mark.parametrize("task", ["denoising", "inpainting", "super_resolution"])
def test_classical_restorations_ignore_held_out_values(task):
    rng = np.random.default_rng(0)
    smooth = np.linspace(0.2, 0.8, 32)[:, None, None] * np.ones((1, 32, 3), np.float32)
    observed = np.clip(smooth + rng.normal(0, 0.05, smooth.shape), 0, 1).astype(np.float32)
    problem = {
        "denoising": lambda: isnas.denoising(observed, 13),
        "inpainting": lambda: isnas.inpainting(observed, rng.uniform(size=(32, 32)) > 0.5),
        "super_resolution": lambda: isnas.super_resolution(observed, 2),
    }[task]()
    fitted, _ = isnas.HoldOut(0.2)(new_key(), problem)
    other = dataclasses.replace(
        fitted, observed=fitted.observed + 0.3 * (fitted.weights == 0).astype(np.float32)
    )
    for method in [method for method in CLASSICAL.values() if method.task == task]:
        restored = classical.restore(method, fitted)
        np.testing.assert_allclose(restored, classical.restore(method, other), atol=1e-5)
        if task != "super_resolution":
            assert np.square(restored - smooth).mean() < 0.05**2


def test_estimate_sigma_of_white_noise():
    noise = 20 * jax.random.normal(new_key(), (128, 128, 3)) / 255
    assert isnas.estimate_sigma(0.5 + noise) == pytest.approx(20, rel=0.05)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """One small architecture on one image, fitted by `curves` and loaded by `gather`."""
    clean = np.asarray(jax.random.uniform(jax.random.key(1), (32, 32, 1)))
    case = Case("noise", clean, isnas.add_noise(new_key(), clean, sigma=25))
    experiment = dataclasses.replace(
        curves.EXPERIMENTS["noise25"],
        iterations=41,
        num_top=0,
        num_random=1,
        folds=2,
        baselines=(),
        channels=4,
        num_genotypes=2,
    )
    folder = tmp_path_factory.mktemp("decisions")
    recording = curves.Recording("noise25", experiment, case, 0, folder)
    (network,) = recording.networks()
    return recording, network, recording.fits(network), gather.load(recording, network)


@pytest.mark.thorough
def test_gathered_curves_are_those_of_the_fits(recorded):
    recording, network, fits, loaded = recorded
    case, experiment = recording.case, recording.experiment
    for name, fit in fits.items():
        np.testing.assert_array_equal(loaded[name].fit.loss, fit.loss)
    # A fit with bias correction has the same snapshots.
    net = isnas.build_network(
        isnas.Genotype.parse(network.architecture), out_channels=1, channels=experiment.channels
    )
    key = key_of(0, "fit", case.image, experiment.task, network.architecture)
    config = dataclasses.replace(curves.fit_config(experiment), debias=True)
    _, validation = recording.problems()["held-out"]
    job = FitJob(key, net, case.problem, case.clean, validation)
    (fit,) = isnas.fit_many([job], config)
    for iteration, ema in gather.debiased(fits["all"]).items():
        np.testing.assert_allclose(ema, fit.snapshots[iteration], atol=2e-4)

    rows = pd.DataFrame(gather.curve_rows(recording, network, loaded))
    gaps = stopping.gaps(rows).set_index("rule")["gap"]
    peak = fits["all"].psnr_ema[::5].max()
    assert gaps["last iteration"] == pytest.approx(peak - fits["all"].psnr_ema[40], abs=2e-3)
    lowest = int(pd.Series(fits["bootstrap"].validation[::5]).argmin())
    rule = stopping.by_validation("bootstrap", 0.0, refit=False)
    assert rule(rows.set_index("fitted_to").T.to_dict()) == (lowest, "bootstrap", "psnr_ema")


@pytest.mark.thorough
def test_errors_of_folds_are_means_over_held_out_pixels(recorded):
    recording, network, _, loaded = recorded
    problems, observed = recording.problems(), recording.case.problem.observed
    assert list(problems) == ["held-out", "bootstrap", "held-out 2"]
    folds = {name: problems[name] for name in ("held-out", "held-out 2")}
    row = gather.member_row(recording, folds, {network: loaded})
    assert row["split"] == "held-out, 2 folds"
    members = gather.members_of(recording, folds, {network: loaded})
    weights = np.stack([np.asarray(validation.weights) for _, validation in folds.values()])
    assert weights.sum(axis=0).max() == 1
    errors = [
        np.mean(
            [
                np.square(image - observed)[held_out > 0].mean()
                for image, held_out in zip(member.by_split, weights, strict=True)
            ]
        )
        for member in members
    ]
    products = row["residual_products"].reshape(len(members), -1)
    np.testing.assert_allclose(np.diag(products), errors, rtol=1e-4)


@pytest.mark.thorough
def test_recorded_products_give_the_weights_and_psnr_of_the_images(recorded):
    recording, network, _, loaded = recorded
    case, fits, problems = recording.case, {network: loaded}, recording.problems()
    split = {"bootstrap": problems["bootstrap"]}
    members = gather.members_of(recording, split, fits)
    cohort = gather.cohort_of(case.problem, split, members)
    row = gather.member_row(recording, split, fits)
    recorded_cohort = aggregation.recorded_cohort(row, cohort.members)
    stack = aggregation.AGGREGATIONS["stack"]
    weights = stack.combine(recorded_cohort, 0)
    np.testing.assert_allclose(weights, isnas.Stack()(cohort, 0), atol=1e-4)
    image = np.tensordot(weights, np.stack([member.restored for member in members]), axes=1)
    expected = -10 * np.log10(np.square(image - case.clean).mean())
    assert recorded_cohort.psnr(weights) == pytest.approx(expected, abs=1e-3)
    assert stack.psnr(recorded_cohort) == recorded_cohort.psnr(weights)

    folds = {name: problems[name] for name in ("held-out", "held-out 2")}
    both = pd.DataFrame([row, gather.member_row(recording, folds, fits)])
    rows = pd.DataFrame(gather.curve_rows(recording, network, loaded))
    by_page = dict(tables.recorded_tables(rows, both))
    assert "bootstrap, refit, bias-corrected" in by_page["stopping"]["Median gap"].index
    # One genotype does not show what a score predicts.
    assert scores.score_table(rows).empty
    results = aggregation.aggregate(pd.DataFrame([row]))
    psnr = results[results["cohort"] == "non-local means"]["psnr"].item()
    restored = classical.restore(isnas.non_local_means, case.problem)
    assert psnr == pytest.approx(-10 * np.log10(np.square(restored - case.clean).mean()), abs=1e-3)


def test_thinned_curves_keep_every_fifth_value():
    values = np.arange(23) / 7
    np.testing.assert_allclose(gather.thin(values), values[::5], rtol=1e-3)


def test_a_replayed_rule_keeps_the_smallest_value_within_its_patience():
    rule = isnas.LeastValidation(patience=10, smoothing=0.0)
    assert stopping.replay(rule, np.array([5.0, 3, 4, 4, 2, 1]), 5) == 1
    assert stopping.replay(rule, np.array([5.0, 3, 4, 2, 1, 4]), 5) == 4
    assert stopping.replay(rule, np.array([np.nan, np.nan, 4, 5, 4, 1]), 5) == 2
    assert stopping.replay(dataclasses.replace(rule, start=10), np.array([1.0, 2, 4, 3, 5]), 5) == 3
    variances = np.array([4.0, 2, 1, 0.5]) * (25 / 255) ** 2
    assert stopping.replay(isnas.Discrepancy(), variances, 5, sigma=25.0) == 2
    assert stopping.replay(isnas.Discrepancy(), variances[:2], 5, sigma=25.0) == 1


DOCS = pathlib.Path(isnas.__file__).parent.parent / "docs"


def test_decisions_page_has_the_generated_table_of_methods():
    """Regenerate the tables that need no replay."""
    by_task = methods.method_tables(pd.read_csv(DOCS / "decisions" / "runs.csv"))
    page = (DOCS / "decisions.md").read_text()
    assert tables.fill(page, "methods", methods.overview(by_task)) == page
    generated = tables.page(*tables.PAGES["methods"], by_task)
    assert generated == (DOCS / "decisions" / "methods.md").read_text()
    with pytest.raises(ValueError, match="no lines '<!-- speed -->'"):
        tables.fill(page, "speed", pd.DataFrame())


def test_portfolio_table_agrees_with_the_recorded_results():
    recorded = pd.read_csv(DOCS / "decisions" / "portfolio.csv")
    page = (DOCS / "decisions.md").read_text()
    _, _, section = page.partition("## A portfolio instead of a search")
    default = recorded["portfolio_3"]
    assert f"| default: portfolio of three | {default.mean():.2f} |" in section
    for column, label in (
        ("portfolio_2", "portfolio of two (`--cohort=2`)"),
        ("two_light", "two of four light genotypes (`--num_genotypes=4 --cohort=2`)"),
        ("dip", "DIP"),
    ):
        gain = over_images(recorded.assign(gain=default - recorded[column]), "gain").shown()
        assert f"| {label} | {recorded[column].mean():.2f} | {gain} |" in section
    ahead = (default > recorded["two_light"]).sum()
    assert f"on {ahead} of {len(recorded)} images" in section


def test_fast_default_table_agrees_with_the_recorded_results():
    recorded = pd.read_csv(DOCS / "decisions" / "fast.csv").query("seed == 0")
    means = {f"{mean:.2f}" for mean in recorded.drop(columns=["image", "seed"]).mean()}
    page = (DOCS / "decisions.md").read_text()
    _, _, section = page.partition("## Light genotypes")
    table = re.search(r"\| networks \|.*?\n\n", section, re.DOTALL)[0]
    rows = [line.split("|") for line in table.strip().splitlines()[2:]]
    assert rows
    assert {row[3].strip() for row in rows} <= means


def test_table_of_the_other_tasks_agrees_with_the_recorded_results():
    recorded = pd.read_csv(DOCS / "decisions" / "fast_other_tasks.csv")
    page = (DOCS / "decisions.md").read_text()
    for task, runs in recorded.groupby("task"):
        difference = (runs["channels_16"] - runs["default"]).rename("difference")
        row = [
            f"{runs['default'].mean():.2f}",
            f"{runs['channels_16'].mean():.2f}",
            over_images(runs.assign(difference=difference), "difference").shown(2),
            f"{difference.median():.2f}",
        ]
        assert f"| {task.replace('_', '-')} | {' | '.join(row)} |" in page


@pytest.mark.thorough
def test_generated_pages_agree_with_the_recorded_fits():
    frames = [
        pd.read_parquet(DOCS / "decisions" / f"{name}.parquet") for name in ("curves", "members")
    ]
    frames = [frame[~frame["image"].isin(tables.TUNING_IMAGES)] for frame in frames]
    for name, by_heading in tables.recorded_tables(*frames):
        text = tables.page(*tables.PAGES[name], by_heading)
        assert text == (DOCS / "decisions" / f"{name}.md").read_text(), name
