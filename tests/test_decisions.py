"""What is decided without the clean image: how long to fit, whom to weigh; and what measures it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import isnas_jax as isnas
from experiments.decisions import curves, gather, tables
from isnas_jax.fitting import Decision, fit_whole, loop
from isnas_jax.problems import TASKS, HoldOut, classical, nothing
from isnas_jax.searching import COMBINATIONS, Cohort
from isnas_jax.study import Case, key_of

KEY = jax.random.key(5)


@dataclasses.dataclass(frozen=True)
class Eleventh:
    """Validates at iteration 11 only, and looks on for three more."""

    needs_validation = True

    def init(self, problem):
        return ()

    def update(self, state, step):
        unknown = jnp.isnan(step.validation)
        stop = ~unknown & (step.iteration >= 14)
        return state, Decision(unknown | (step.iteration == 11), stop, step.validation)


SETTINGS = isnas.FitSettings(
    40, Eleventh(), split=HoldOut(0.2), learning_rate=0.1, debias=True, chunk=7
)


@pytest.fixture(scope="module")
def truth():
    return np.kron(np.eye(4), np.ones((8, 8)))[..., None].astype(np.float32) * 0.6 + 0.2


@pytest.fixture(scope="module")
def noisy(truth):
    return TASKS["denoising"].corrupt(jax.random.key(6), truth, sigma=25)


def test_a_part_decides_how_long_the_whole_is_fitted(truth, noisy, small_network, tmp_path):
    net, stages = small_network(), []

    def run(**given):
        return fit_whole(KEY, net, noisy, SETTINGS, truth=truth, **given)

    found = run(file=tmp_path / "fit.npz", progress=lambda stage, _: stages.append(stage))
    part = isnas.fit(KEY, net, noisy, SETTINGS)
    np.testing.assert_array_equal(found.part.validation, part.validation)
    assert found.restored_at == part.restored_at == 11
    assert (len(found.loss), len(part.loss)) == (12, 15)
    assert list(dict.fromkeys(stages)) == ["validate", "restore"]
    # As with fixed iterations from the same start, to all measurements.
    changes = {"stopping": isnas.STOPPING["fixed"](40), "iterations": 1 + part.restored_at}
    alone = isnas.fit(KEY, net, noisy, SETTINGS, split=None, **changes)
    np.testing.assert_allclose(found.restored, alone.restored, atol=2e-5)
    np.testing.assert_allclose(found.loss, alone.loss, rtol=1e-3)
    assert found.validation is None
    np.testing.assert_array_equal(found.curves()["validation"], part.validation)
    assert found.loss[0] != part.loss[0]

    longer = dataclasses.replace(SETTINGS, refit_factor=1.5)
    assert fit_whole(KEY, net, noisy, longer).restored_at == 17

    again = run(file=tmp_path / "fit.npz")
    np.testing.assert_array_equal(again.restored, found.restored)
    np.testing.assert_array_equal(again.part.restored, found.part.restored)
    given = run(part=part)
    np.testing.assert_array_equal(given.restored, found.restored)


def test_both_are_fitted_by_one_program(noisy, small_network):
    fitted, validation = HoldOut(0.2)(KEY, noisy)
    programs = []
    for problem, other, iterations in ((fitted, validation, 40), (noisy, nothing(noisy), 12)):
        settings = dataclasses.replace(SETTINGS, iterations=iterations)
        structure, state, given = loop.start(
            KEY, small_network(), problem, settings, validation=other
        )
        programs.append(loop.chunk_program(structure, settings.chunk, state, given))
    assert programs[0] is programs[1]


def test_a_rule_without_validation_decides_on_the_whole(noisy, small_network):
    settings = dataclasses.replace(SETTINGS, stopping=isnas.STOPPING["fixed"](40))
    found = fit_whole(KEY, small_network(), noisy, settings)
    alone = isnas.fit(KEY, small_network(), noisy, dataclasses.replace(settings, split=None))
    assert found.part is None
    np.testing.assert_array_equal(found.restored, alone.restored)


class Plain:
    """A space of small networks."""

    def __init__(self, small_network):
        self.small_network = small_network

    def sample(self, key, num, channels):
        return list(range(num))

    def build(self, genotype, *, out_channels, channels, in_channels=None, remat=False):
        return self.small_network(in_channels=2 + genotype)


def stacked(small_network, problem, members):
    recipe = isnas.presets.quick(problem, iterations=40)
    fit = dataclasses.replace(recipe.fit, learning_rate=0.1)
    search = dataclasses.replace(
        recipe.search,
        strategy=isnas.RandomSearch(3),
        space=Plain(small_network),
        fit=fit,
        members=members,
    )
    return isnas.Recipe(isnas.NetworkSettings(4), fit, search)


def test_the_stack_by_hand_and_without_the_truth(truth, noisy, small_network, tmp_path):
    """Of two networks and non-local means; a false truth changes nothing but the evaluation."""
    recipe = stacked(small_network, noisy, ("non-local means",))
    garbage = np.asarray(jax.random.uniform(jax.random.key(9), truth.shape))
    found, misled, blind = (
        isnas.search(KEY, noisy, recipe, truth=given, folder=tmp_path / name)
        for name, given in (("a", truth), ("b", garbage), ("c", None))
    )
    for other in (misled, blind):
        np.testing.assert_array_equal(other.restored, found.restored)
        np.testing.assert_array_equal(other.weights, found.weights)
        assert other.selected == found.selected
    assert not np.array_equal(misled.cohort.fits[0].psnr_mean, found.cohort.fits[0].psnr_mean)

    cohort = found.cohort
    assert cohort.members[2] == "non-local means"
    assert np.isnan(cohort.scores[2])
    # Nobody saw the validation's noise: independent images, one of which was fitted.
    stages = jax.random.split(KEY, 3)[2]
    fitted, validation = recipe.fit.split(jax.random.fold_in(stages, 4), noisy)
    np.testing.assert_array_equal(cohort.problem.observed, fitted.observed)
    errors = [np.square(image - np.asarray(validation.observed)).mean() for image in cohort.images]
    np.testing.assert_allclose(cohort.errors(), errors, rtol=1e-5)
    assert found.selected == np.argmin(errors)
    np.testing.assert_array_equal(
        cohort.images[2], classical.restore("non-local means", cohort.problem)
    )
    np.testing.assert_array_equal(found.weights, COMBINATIONS["stack"](cohort, found.selected))
    mean = 0
    for rank, image in found.images.items():
        mean += found.weights[rank] * image
        if rank < 2:
            assert found.fits[rank].restored_at == cohort.fits[rank].restored_at
        else:
            np.testing.assert_array_equal(image, classical.restore("non-local means", noisy))
    np.testing.assert_allclose(found.restored, mean, atol=1e-6)
    assert np.square(found.restored - truth).mean() < np.square(noisy.observed - truth).mean()

    again = isnas.search(KEY, noisy, recipe, truth=truth, folder=tmp_path / "a")
    np.testing.assert_array_equal(again.restored, found.restored)
    with pytest.raises(ValueError, match="restores inpainting, not denoising"):
        isnas.search(KEY, noisy, stacked(small_network, noisy, ("biharmonic",)))
    with pytest.raises(ValueError, match="non-local means"):
        isnas.search(KEY, noisy, stacked(small_network, noisy, ("nobody",)))


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
    truth = np.asarray(jax.random.uniform(jax.random.key(1), (32, 32, 1)))
    case = Case("noise", truth, TASKS["denoising"].corrupt(KEY, truth, sigma=25))
    part = dataclasses.replace(
        curves.PARTS["noise25"], iterations=41, best=1, drawn=0, baselines=(), channels=4, pool=2
    )
    folder = tmp_path_factory.mktemp("decisions")
    found = list(curves.units(part, case, 0))
    fits = {unit: curves.fits(part, case, unit, 0, folder) for unit in found}
    kept = {unit: gather.load(folder, part, unit, 0) for unit in found}
    return part, case, fits, kept


def test_what_is_recorded_is_what_was_fitted(recorded):
    part, case, fits, kept = recorded
    ((unit, found),) = fits.items()
    for name, fit in found.items():
        np.testing.assert_array_equal(kept[unit][name].loss, fit.loss)
    # The means without bias are those of a fit that takes them.
    net = isnas.build_network(
        isnas.Genotype.parse(unit.architecture), out_channels=1, channels=part.channels
    )
    key = key_of(0, "fit", case.image, part.task, unit.architecture)
    settings = dataclasses.replace(curves.settings_of(part), debias=True)
    _, validation = curves.split_of(part, case, 0, "held-out")
    without = isnas.fit(key, net, case.problem, settings, validation=validation, truth=case.truth)
    for at, mean in gather.debiased(found["whole"]).items():
        np.testing.assert_allclose(mean, without.snapshots[at], atol=2e-4)

    rows = pd.DataFrame(gather.rows_of(part, "noise25", case, 0, unit, found))
    gaps = tables.gaps(rows).set_index("rule")["gap"]
    peak = found["whole"].psnr_mean[::5].max()
    assert gaps["last iteration"] == pytest.approx(peak - found["whole"].psnr_mean[40], abs=2e-3)
    at = int(pd.Series(found["bootstrap"].validation[::5]).argmin())
    assert tables.by_validation("bootstrap", 0.0, own=True)(
        rows.set_index("fitted").T.to_dict()
    ) == (at, "bootstrap", "psnr_mean")


def test_combinations_from_products_are_those_of_images(recorded):
    part, case, _, kept = recorded
    row = gather.pairs(part, "noise25", case, 0, "bootstrap", kept)
    _, validation = curves.split_of(part, case, 0, "bootstrap")
    there = gather.members_of(part, case, 0, "bootstrap", kept)
    images = np.stack([member.of_part for member in there])
    scores = np.array([member.score for member in there])
    cohort = Cohort([member.name for member in there], scores, case.problem, validation, images, ())
    members = tables.members_of(row, cohort.members)
    weights = tables.stack(members)
    np.testing.assert_allclose(weights, COMBINATIONS["stack"](cohort, 0), atol=1e-4)
    whole = np.tensordot(weights, np.stack([member.of_whole for member in there]), axes=1)
    expected = -10 * np.log10(np.square(whole - case.truth).mean())
    assert tables.psnr(weights, members.of_whole) == pytest.approx(expected, abs=1e-3)
    found = tables.choices(pd.DataFrame([row]))
    alone = found[found["cohort"] == "non-local means"]["psnr"].item()
    restored = classical.restore("non-local means", case.problem)
    assert alone == pytest.approx(-10 * np.log10(np.square(restored - case.truth).mean()), abs=1e-3)


def test_thinned_curves_keep_every_fifth_value():
    values = np.arange(23) / 7
    np.testing.assert_allclose(gather.thinned(values), values[::5], rtol=1e-3)
    assert tables.first_least(np.array([5.0, 3, 4, 4, 2, 1]), patience=10) == 1
    assert tables.first_least(np.array([5.0, 3, 4, 2, 1, 4]), patience=10) == 4
