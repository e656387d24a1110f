"""What is decided without the clean image: how long to fit, whom to weigh; and what measures it."""

import dataclasses
import re
import zlib

import jax
import numpy as np
import pandas as pd
import pytest

import isnas_jax as isnas
from experiments.decisions import curves, gather, tables
from isnas_jax.fitting import Decision, Part, Progress, cached_fit, loop, refit, unsplit
from isnas_jax.problems import TASKS, HoldOut, classical, nothing
from isnas_jax.searching import COMBINATIONS, SELECTIONS, stages
from isnas_jax.study import Case, key_of

KEY = jax.random.key(5)


@dataclasses.dataclass(frozen=True)
class Eleventh:
    """Validates at iteration 11 only, and looks on for three more."""

    needs_validation = True

    def init(self, problem):
        return ()

    def update(self, state, step):
        known = step.has_validation
        stop = known & (step.iteration >= 14)
        return state, Decision(~known | (step.iteration == 11), stop, step.validation, known)


SETTINGS = isnas.FitConfig(
    40, Eleventh(), split=HoldOut(0.2), learning_rate=0.1, debias=True, chunk=7
)


@pytest.fixture(scope="module")
def clean():
    return np.kron(np.eye(4), np.ones((8, 8)))[..., None].astype(np.float32) * 0.6 + 0.2


@pytest.fixture(scope="module")
def noisy(clean):
    return TASKS["denoising"].corrupt(jax.random.key(6), clean, sigma=25)


def test_a_part_decides_how_long_the_whole_is_fitted(clean, noisy, small_network, tmp_path):
    net = small_network()

    def run(config=SETTINGS, **given):
        part = cached_fit(KEY, net, noisy, config, **given)
        return refit(KEY, net, noisy, config, [Part(noisy, part)], clean=clean, **given)

    found, part = run(folder=tmp_path), isnas.fit(KEY, net, noisy, SETTINGS)
    np.testing.assert_array_equal(found.parts[0].validation, part.validation)
    assert found.restored_at == part.restored_at == 11
    assert (len(found.loss), len(part.loss)) == (12, 15)
    # As with fixed iterations from the same start, to all measurements.
    changes = {"stopping": isnas.STOPPING["fixed"](40), "iterations": 1 + part.restored_at}
    alone = isnas.fit(KEY, net, noisy, SETTINGS, split=None, **changes)
    np.testing.assert_allclose(found.restored, alone.restored, atol=2e-5)
    np.testing.assert_allclose(found.loss, alone.loss, rtol=1e-3)
    assert found.validation is None
    np.testing.assert_array_equal(found.curves()["validation"], part.validation)
    assert found.loss[0] != part.loss[0]

    longer = dataclasses.replace(SETTINGS, refit_factor=1.5)
    assert run(longer).restored_at == 17

    again = run(folder=tmp_path)
    np.testing.assert_array_equal(again.restored, found.restored)
    np.testing.assert_array_equal(again.parts[0].restored, found.parts[0].restored)


@pytest.mark.parametrize("fraction", [0.25, 0.75])
def test_a_refit_leaves_the_trajectory_of_the_part(clean, noisy, small_network, tmp_path, fraction):
    """The part for a fraction of its iterations, then everything, from the same parameters."""
    net, (part, validation) = small_network(), HoldOut(0.2)(KEY, noisy)
    config = dataclasses.replace(SETTINGS, refit_from=fraction, refit_factor=1.25)
    given = {"validation": validation, "clean": clean}

    def run(config=config, **folder):
        fit = cached_fit(KEY, net, part, unsplit(config), **given, **folder)
        return refit(KEY, net, noisy, config, [Part(part, fit)], clean=clean, **folder), fit

    found, fit = run()
    left_at = round(12 * fraction)
    fixed = {"split": None, "stopping": isnas.STOPPING["fixed"](40), "debias": True}
    before = isnas.fit(KEY, net, part, SETTINGS, iterations=left_at, **fixed)
    after = isnas.fit(
        KEY,
        net,
        noisy,
        SETTINGS,
        iterations=15 - left_at,
        variables=before.variables,
        optimizer_state=before.optimizer_state,
        **fixed,
    )
    np.testing.assert_allclose(found.restored, after.restored, atol=2e-5)
    np.testing.assert_allclose(found.loss, np.append(before.loss, after.loss), rtol=1e-3)
    np.testing.assert_array_equal(found.psnr_ema[:left_at], fit.psnr_ema[:left_at])
    assert found.restored_at == 14
    assert found.psnr_ema[14] == pytest.approx(
        -10 * np.log10(np.square(found.restored - clean).mean()), abs=1e-3
    )
    # Neither the length of a chunk nor a part that comes from a file makes a difference.
    other, _ = run(dataclasses.replace(config, chunk=5))
    np.testing.assert_array_equal(other.restored, found.restored)
    run(folder=tmp_path)
    for file in tmp_path.glob("*.npz"):
        with np.load(file) as kept:
            if len(kept["loss"]) == 15 - left_at:
                file.unlink()
    again, fit = run(folder=tmp_path)
    assert fit.start is None
    np.testing.assert_array_equal(again.restored, found.restored)


def test_both_are_fitted_by_one_program(noisy, small_network):
    fitted, validation = HoldOut(0.2)(KEY, noisy)
    programs = []
    for problem, other, iterations in ((fitted, validation, 40), (noisy, nothing(noisy), 12)):
        config = dataclasses.replace(SETTINGS, iterations=iterations)
        structure, state, given = loop.start(
            KEY, small_network(), problem, config, validation=other
        )
        with loop.chunk_program(structure, config.chunk, state, given) as program:
            programs.append(program)
    assert programs[0] is programs[1]


def test_a_rule_without_validation_decides_on_the_whole(noisy, small_network):
    config = stacked(small_network, noisy, ())
    search_config = dataclasses.replace(SETTINGS, stopping=isnas.STOPPING["fixed"](40))
    stages = []
    found = isnas.restore(
        KEY,
        noisy,
        1,
        dataclasses.replace(config, fit=search_config),
        progress=lambda stage, _: stages.append(stage),
    )
    assert set(stages) == {"restore"}
    assert found.parts == ()
    key = key_of_member(KEY, 1)
    alone = isnas.fit(key, small_network(in_channels=3), noisy, search_config, split=None)
    np.testing.assert_array_equal(found.restored, alone.restored)


def test_restoring_is_what_a_search_does_with_its_member(clean, noisy, small_network, tmp_path):
    config = stacked(small_network, noisy, ())
    found = isnas.search(KEY, noisy, config, clean=clean, folder=tmp_path)
    rank, fit = next(iter(found.fits.items()))
    stages = []
    alone = isnas.restore(
        KEY,
        noisy,
        found.cohort.members[rank],
        config,
        clean=clean,
        progress=lambda stage, _: stages.append(stage),
    )
    assert list(dict.fromkeys(stages)) == ["validate", "restore"]
    np.testing.assert_array_equal(alone.restored, fit.restored)
    np.testing.assert_array_equal(alone.parts[0].validation, found.cohort.fits(rank)[0].validation)


def key_of_member(key, member):
    """The key of a network by its name."""
    fit_key = jax.random.split(jax.random.split(key, 3)[2], 4)[3]
    return jax.random.fold_in(fit_key, zlib.crc32(str(member).encode()))


@pytest.mark.parametrize("rule", isnas.STOPPING)
def test_no_rule_sees_the_clean_image(noisy, small_network, rule):
    garbage = np.asarray(jax.random.uniform(KEY, noisy.shape))
    config = isnas.FitConfig(30, isnas.STOPPING[rule](30), split=HoldOut(0.2))
    blind, misled = (
        isnas.fit(KEY, small_network(), noisy, config, clean=clean) for clean in (None, garbage)
    )
    assert misled.restored_at == blind.restored_at
    np.testing.assert_array_equal(misled.criterion, blind.criterion)
    np.testing.assert_allclose(misled.restored, blind.restored, atol=1e-6)


class Plain:
    """A space of small networks."""

    def __init__(self, small_network):
        self.small_network = small_network

    def sample(self, key, num, channels):
        return list(range(num))

    def build(self, genotype, *, out_channels, channels, in_channels=None):
        return self.small_network(in_channels=2 + genotype)


def stacked(small_network, problem, members):
    config = isnas.presets.quick(problem, iterations=40)
    fit = dataclasses.replace(config.fit, learning_rate=0.1)
    search = dataclasses.replace(
        config.search,
        strategy=isnas.RandomSearch(3),
        space=Plain(small_network),
        fit=fit,
        extra_members=members,
    )
    return isnas.Config(isnas.NetworkConfig(4), fit, search)


def test_the_stack_by_hand_and_without_the_clean_image(clean, noisy, small_network, tmp_path):
    """Of two networks and non-local means; a wrong clean image changes only the evaluation."""
    config = stacked(small_network, noisy, ("non-local means",))
    garbage = np.asarray(jax.random.uniform(jax.random.key(9), clean.shape))
    found, misled, blind = (
        isnas.search(KEY, noisy, config, clean=given, folder=tmp_path / name)
        for name, given in (("a", clean), ("b", garbage), ("c", None))
    )
    for other in (misled, blind):
        np.testing.assert_array_equal(other.restored, found.restored)
        np.testing.assert_array_equal(other.weights, found.weights)
        for select in SELECTIONS.values():
            assert select(other.cohort) == select(found.cohort)
        for combine in COMBINATIONS.values():
            np.testing.assert_array_equal(combine(other.cohort, 1), combine(found.cohort, 1))
    assert not np.array_equal(misled.cohort.fits(0)[0].psnr_ema, found.cohort.fits(0)[0].psnr_ema)

    cohort = found.cohort
    assert cohort.members[2] == "non-local means"
    assert np.isnan(cohort.scores[2])
    # Nobody saw the validation's noise: independent images, one of which was fitted.
    stages = jax.random.split(KEY, 3)[2]
    fitted, validation = config.fit.split(jax.random.split(stages, 4)[2], noisy)
    np.testing.assert_array_equal(cohort.folds[0].problem.observed, fitted.observed)
    errors = [np.square(image - np.asarray(validation.observed)).mean() for image in cohort.images]
    np.testing.assert_allclose(cohort.errors, errors, rtol=1e-5)
    assert found.selected == np.argmin(errors)
    np.testing.assert_array_equal(cohort.images[2], classical.restore("non-local means", fitted))
    np.testing.assert_array_equal(found.weights, COMBINATIONS["stack"](cohort, found.selected))
    mean = 0
    for rank, image in found.images.items():
        mean += found.weights[rank] * image
        if rank < 2:
            stop = cohort.fits(rank)[0].restored_at + 1
            assert found.fits[rank].restored_at + 1 == round(config.fit.refit_factor * stop)
        else:
            np.testing.assert_array_equal(image, classical.restore("non-local means", noisy))
    np.testing.assert_allclose(found.restored, mean, atol=1e-6)
    assert np.square(found.restored - clean).mean() < np.square(noisy.observed - clean).mean()

    again = isnas.search(KEY, noisy, config, clean=clean, folder=tmp_path / "a")
    np.testing.assert_array_equal(again.restored, found.restored)
    with pytest.raises(
        ValueError,
        match=r"'biharmonic' is none of denoising; choose from dip, nas-dip, .*observed, ",
    ):
        isnas.search(KEY, noisy, stacked(small_network, noisy, ("biharmonic",)))
    with pytest.raises(ValueError, match="members name 'dip' more than once"):
        stacked(small_network, noisy, ("dip", "dip"))


def test_a_cohort_of_named_members_only(noisy, small_network):
    """Nothing is drawn, scored or fitted: the stack of two classical restorations."""
    names = ("non-local means", "total variation")
    config = stacked(small_network, noisy, names)
    config = dataclasses.replace(config, search=dataclasses.replace(config.search, cohort=0))
    stages = []
    found = isnas.search(KEY, noisy, config, progress=lambda stage, _: stages.append(stage))
    assert not stages
    assert len(found.candidates.genotypes) == 0
    mean = sum(
        weight * classical.restore(name, noisy)
        for weight, name in zip(found.weights, names, strict=True)
    )
    np.testing.assert_allclose(found.restored, mean, atol=1e-6)
    assert [track.name for track in found.tracks()] == list(names)
    nobody = dataclasses.replace(config.search, extra_members=())
    with pytest.raises(ValueError, match="a cohort of 0"):
        isnas.search(KEY, noisy, dataclasses.replace(config, search=nobody))


def test_a_cohort_fitted_to_the_whole_is_not_fitted_again(noisy, small_network):
    config = stacked(small_network, noisy, ())
    fit = isnas.FitConfig(10)
    search = dataclasses.replace(
        config.search, fit=fit, selection=SELECTIONS["closest"], combination=COMBINATIONS["mean"]
    )
    found = isnas.search(KEY, noisy, isnas.Config(config.network, fit, search))
    for rank in (0, 1):
        assert found.fits[rank] is found.cohort.fits(rank)[0]
    np.testing.assert_allclose(found.restored, found.cohort.images.mean(axis=0), atol=1e-6)


def unwanted(key, scope):
    pytest.fail("genotypes were drawn")


def test_a_rule_that_validates_needs_a_split_before_anything_is_computed(noisy, small_network):
    config = stacked(small_network, noisy, ())
    search = dataclasses.replace(
        config.search, fit=dataclasses.replace(config.fit, split=None), strategy=unwanted
    )
    with pytest.raises(ValueError, match="LeastValidation needs a split"):
        isnas.search(KEY, noisy, dataclasses.replace(config, search=search))


@pytest.mark.parametrize(
    "decisions", [{"selection": SELECTIONS["validation"]}, {"combination": COMBINATIONS["stack"]}]
)
def test_decisions_that_validate_need_a_split_before_anything_is_computed(
    noisy, small_network, decisions
):
    config = stacked(small_network, noisy, ())
    without = {"selection": SELECTIONS["closest"], "combination": COMBINATIONS["mean"]}
    search = dataclasses.replace(
        config.search, fit=isnas.FitConfig(1), strategy=unwanted, **(without | decisions)
    )
    with pytest.raises(ValueError, match=r"(least_validation|Stack) needs a split"):
        isnas.search(KEY, noisy, dataclasses.replace(config, search=search))


@pytest.mark.parametrize("how", ["alike", "shorter cohort", "one of them", "without a split"])
def test_stages_are_known_before(how, noisy, small_network):
    config = stacked(small_network, noisy, ("non-local means",))
    fit = dataclasses.replace(config.fit, folds=2, split=HoldOut(0.2), refit_factor=1.5)
    search = dataclasses.replace(config.search, fit=fit)
    if how == "shorter cohort":
        search = dataclasses.replace(search, fit=dataclasses.replace(fit, iterations=30))
    if how == "one of them":
        search = dataclasses.replace(search, combination=COMBINATIONS["selected"])
    if how == "without a split":
        fit = isnas.FitConfig(30)
        search = dataclasses.replace(
            search, fit=fit, selection=SELECTIONS["closest"], combination=COMBINATIONS["mean"]
        )
    config = dataclasses.replace(config, fit=fit, search=search)
    longest = {}

    def note(stage, news):
        if isinstance(news, Progress):
            longest[stage] = max(news.iterations, longest.get(stage, 0))

    found = isnas.search(KEY, noisy, config, progress=note)
    expected = stages.of_search(noisy, config)
    kinds = [re.match(r"\w+", stage)[0] for stage in longest]
    assert set(kinds) <= set(expected)
    assert kinds.count("cohort") == expected["cohort"][0]
    networks = sum(fit is not None for fit in found.fits.values())
    if how == "without a split":
        assert list(expected) == ["cohort"]
    elif networks:
        assert kinds.count("restore") == networks <= expected["restore"][0]
        assert kinds.count("validate") == (2 * networks if "validate" in expected else 0)
    for stage, kind in zip(longest, kinds, strict=True):
        assert longest[stage] <= expected[kind][1]


def test_folds_decide_together(clean, noisy, small_network):
    config = stacked(small_network, noisy, ("non-local means",))
    fit = dataclasses.replace(config.fit, folds=2, split=HoldOut(0.2), refit_factor=1.5)
    search = dataclasses.replace(config.search, fit=fit)
    stages = []
    found = isnas.search(
        KEY,
        noisy,
        dataclasses.replace(config, fit=fit, search=search),
        progress=lambda stage, _: stages.append(stage),
    )
    assert {"cohort 2/2, fold 1/2", "cohort 2/2, fold 2/2"} < set(stages)
    errors = np.zeros(3)
    for fold in found.cohort.folds:
        out = np.asarray(fold.validation.weights) > 0
        assert (np.asarray(fold.problem.weights) == 0)[out].all()
        errors += [
            np.square(image - np.asarray(noisy.observed))[out].mean() for image in fold.images
        ]
    np.testing.assert_allclose(found.cohort.errors, errors / 2, rtol=1e-5)
    for rank in set(found.fits) & {0, 1}:
        stops = [part.restored_at + 1 for part in found.cohort.fits(rank)]
        assert len(stops) == 2
        assert len(found.fits[rank].loss) == round(1.5 * np.mean(stops))
        assert found.fits[rank].parts == tuple(found.cohort.fits(rank))


@pytest.mark.parametrize("task", ["denoising", "inpainting", "super_resolution"])
def test_classical_restorations_see_nothing_of_what_is_held_out(task):
    rng = np.random.default_rng(0)
    smooth = np.linspace(0.2, 0.8, 32)[:, None, None] * np.ones((1, 32, 3), np.float32)
    observed = np.clip(smooth + rng.normal(0, 0.05, smooth.shape), 0, 1).astype(np.float32)
    problem = {
        "denoising": lambda: isnas.denoising(observed, 13),
        "inpainting": lambda: isnas.inpainting(observed, rng.uniform(size=(32, 32)) > 0.5),
        "super_resolution": lambda: isnas.super_resolution(observed, 2),
    }[task]()
    fitted, _ = isnas.hold_out(KEY, problem, 0.2)
    other = dataclasses.replace(
        fitted, observed=fitted.observed + 0.3 * (fitted.weights == 0).astype(np.float32)
    )
    for name in classical.names_of(task):
        restored = classical.restore(name, fitted)
        np.testing.assert_allclose(restored, classical.restore(name, other), atol=1e-5)
        if task != "super_resolution":
            assert np.square(restored - smooth).mean() < 0.05**2


def test_sigma_is_estimated():
    noise = 20 * jax.random.normal(KEY, (128, 128, 3)) / 255
    assert isnas.estimate_sigma(0.5 + noise) == pytest.approx(20, rel=0.05)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """An architecture on an image, followed and gathered as the scripts do."""
    clean = np.asarray(jax.random.uniform(jax.random.key(1), (32, 32, 1)))
    case = Case("noise", clean, TASKS["denoising"].corrupt(KEY, clean, sigma=25))
    part = dataclasses.replace(
        curves.PARTS["noise25"],
        iterations=41,
        best=0,
        drawn=1,
        folds=2,
        baselines=(),
        channels=4,
        pool=2,
    )
    folder = tmp_path_factory.mktemp("decisions")
    found = list(curves.units(part, case, 0))
    fits = {unit: curves.fits(part, case, unit, 0, folder) for unit in found}
    kept = {unit: gather.load(folder, part, case, unit, 0) for unit in found}
    return part, case, fits, kept


@pytest.mark.thorough
def test_what_is_recorded_is_what_was_fitted(recorded):
    part, case, fits, kept = recorded
    ((unit, found),) = fits.items()
    for name, fit in found.items():
        np.testing.assert_array_equal(kept[unit][name].fit.loss, fit.loss)
    # The means without bias are those of a fit that takes them.
    net = isnas.build_network(
        isnas.Genotype.parse(unit.architecture), out_channels=1, channels=part.channels
    )
    key = key_of(0, "fit", case.image, part.task, unit.architecture)
    config = dataclasses.replace(curves.settings_of(part), debias=True)
    _, validation = curves.splits_of(part, case, 0)["held-out"]
    without = isnas.fit(key, net, case.problem, config, validation=validation, clean=case.clean)
    for at, mean in gather.debiased(found["whole"]).items():
        np.testing.assert_allclose(mean, without.snapshots[at], atol=2e-4)

    rows = pd.DataFrame(gather.rows_of("noise25", case, 0, unit, kept[unit]))
    gaps = tables.gaps(rows).set_index("rule")["gap"]
    peak = found["whole"].psnr_ema[::5].max()
    assert gaps["last iteration"] == pytest.approx(peak - found["whole"].psnr_ema[40], abs=2e-3)
    at = int(pd.Series(found["bootstrap"].validation[::5]).argmin())
    assert tables.uses_validation("bootstrap", 0.0, own=True)(
        rows.set_index("fitted").T.to_dict()
    ) == (at, "bootstrap", "psnr_ema")


@pytest.mark.thorough
def test_combinations_from_products_are_those_of_images(recorded):
    part, case, _, kept = recorded
    splits = curves.splits_of(part, case, 0)
    assert list(splits) == ["held-out", "bootstrap", "held-out 2"]
    folds = {name: splits[name] for name in ("held-out", "held-out 2")}
    row = gather.pairs("noise25", case, 0, folds, kept)
    assert row["split"] == "held-out, 2 folds"
    there = gather.members_of(part, case, folds, kept)
    out = np.stack([np.asarray(validation.weights) for _, validation in folds.values()])
    assert out.sum(axis=0).max() == 1
    errors = [
        np.mean(
            [
                np.square(image - case.problem.observed)[held > 0].mean()
                for image, held in zip(member.of_parts, out, strict=True)
            ]
        )
        for member in there
    ]
    own = np.diag(row["validation"].reshape(len(there), -1))
    np.testing.assert_allclose(own, errors, rtol=1e-4)

    split = {"bootstrap": splits["bootstrap"]}
    there = gather.members_of(part, case, split, kept)
    cohort = gather.cohort_of(case, split, there)
    row = gather.pairs("noise25", case, 0, split, kept)
    members = tables.members_of(row, cohort.members)
    weights = tables.CHOICES["stack"](members)
    np.testing.assert_allclose(weights, COMBINATIONS["stack"](cohort, 0), atol=1e-4)
    whole = np.tensordot(weights, np.stack([member.of_whole for member in there]), axes=1)
    expected = -10 * np.log10(np.square(whole - case.clean).mean())
    assert tables.psnr(weights, members.of_whole) == pytest.approx(expected, abs=1e-3)
    both = pd.DataFrame([row, gather.pairs("noise25", case, 0, folds, kept)])
    ((unit, fits),) = kept.items()
    rows = pd.DataFrame(gather.rows_of("noise25", case, 0, unit, fits))
    made = dict(tables.all_tables(rows, both))
    assert "bootstrap, refitted, debiased" in made["stopping"].index
    assert made["score"].empty  # there is but one genotype
    assert made["economy"].empty
    found = tables.choices(pd.DataFrame([row]))
    alone = found[found["cohort"] == "non-local means"]["psnr"].item()
    restored = classical.restore("non-local means", case.problem)
    assert alone == pytest.approx(-10 * np.log10(np.square(restored - case.clean).mean()), abs=1e-3)


def test_thinned_curves_keep_every_fifth_value():
    values = np.arange(23) / 7
    np.testing.assert_allclose(gather.thinned(values), values[::5], rtol=1e-3)
    assert tables.first_least(np.array([5.0, 3, 4, 4, 2, 1]), patience=10) == 1
    assert tables.first_least(np.array([5.0, 3, 4, 2, 1, 4]), patience=10) == 4
