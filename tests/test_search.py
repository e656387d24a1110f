"""Test the search from a corrupted image to a restored one, in Python and through the scripts."""

import csv
import dataclasses
import functools
import importlib
import importlib.util
import json
import os
import pathlib
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib

import jax
import numpy as np
import pytest
import scipy
import scripts
import tiny
from absl import flags
from conftest import SmallNetwork
from PIL import Image

import isnas_jax as isnas
from isnas_jax import benchmark
from isnas_jax.io import images
from isnas_jax.running import ignore
from isnas_jax.searching import (
    PORTFOLIO,
    check_config,
    oracle,
    plan_restoration,
    plan_search,
)
from isnas_jax.searching.pipeline import score_candidates
from isnas_jax.searching.run import begin

BITS = "0000011001001001100111101"
GENOTYPES = tuple(tiny.GENOTYPES[:2])
SEARCH = isnas.SearchConfig(
    strategy=isnas.GenotypeList(GENOTYPES), space=tiny.SPACE, cohort=2, fit=isnas.FitConfig(8)
)
CONFIG = isnas.Config(isnas.NetworkConfig(channels=4), isnas.FitConfig(9), SEARCH)


def new_key():
    return jax.random.key(0)


def change_search(config=CONFIG, **changes):
    return dataclasses.replace(config, search=dataclasses.replace(config.search, **changes))


@pytest.fixture(scope="module")
def clean():
    return jax.random.uniform(jax.random.key(1), (32, 32, 1))


@pytest.fixture(scope="module")
def problem(clean):
    return isnas.add_noise(jax.random.key(2), clean, sigma=25)


@pytest.fixture(scope="module")
def finished(clean, problem, tmp_path_factory):
    """Run a search; return its result, its folder and the stages of its events but previews."""
    folder, events = tmp_path_factory.mktemp("search"), []
    result = isnas.search(
        new_key(), problem, CONFIG, clean=clean, folder=folder, progress=events.append
    )
    return result, folder, [event.stage for event in events if event.image is None]


def test_search_never_sees_the_clean_image_and_resumes_to_the_same_result(clean, problem, finished):
    result, folder, stages = finished
    garbage = jax.random.uniform(jax.random.key(3), clean.shape)
    assert (stages[0], stages[-1]) == (("score",), ("restore", 1, 1))
    assert set(stages) == {("score",), ("cohort", 1, 2), ("cohort", 2, 2), ("restore", 1, 1)}
    assert result.candidates.scores.shape == (2, 1)
    assert result.restored.shape == clean.shape
    restoration = result.restorations[result.selected]
    np.testing.assert_array_equal(result.restored, restoration.image)
    np.testing.assert_array_equal(result.restored, restoration.fit.restored)

    other = isnas.search(new_key(), problem, CONFIG, clean=garbage, folder=folder)
    assert other.selected == result.selected
    np.testing.assert_array_equal(other.restored, result.restored)
    np.testing.assert_array_equal(other.candidates.scores, result.candidates.scores)
    assert not np.array_equal(
        other.restorations[other.selected].fit.psnr_ema, restoration.fit.psnr_ema
    )

    (selected,) = result.cohort.fits(result.selected)
    psnrs = oracle(result.cohort, problem, SEARCH.proxy, clean)
    expected = -10 * np.log10(np.square(selected.restored - np.asarray(clean)).mean())
    assert psnrs[result.selected] == pytest.approx(expected, abs=1e-3)


def test_search_equals_its_stages_with_their_keys(problem, finished):
    result, *_ = finished
    stages_key = jax.random.split(new_key(), 3)[2]
    score_key, _, _, fit_key = jax.random.split(stages_key, 4)
    nets = [tiny.SPACE.build(g, out_channels=1, channels=4) for g in GENOTYPES]
    scores = isnas.score(score_key, nets, problem, {"m": SEARCH.metric})["m"][:, 0]
    np.testing.assert_array_equal(result.candidates.scores[:, 0], scores)
    order = np.argsort(scores)
    assert result.cohort.members == [GENOTYPES[index] for index in order]
    # The key of a network depends on its name only, so its fit does not depend on other members.
    keys = [jax.random.fold_in(fit_key, zlib.crc32(str(g).encode())) for g in GENOTYPES]
    restored = [
        isnas.fit(keys[index], nets[index], problem, SEARCH.fit).restored for index in order
    ]
    weights = (scores.max() - scores[order] + np.ptp(scores)) / (3 * np.ptp(scores))
    mean = weights[0] * restored[0] + weights[1] * restored[1]
    distances = [np.square(image - mean).mean() for image in restored]
    assert result.selected == int(np.argmin(distances))
    selected = order[result.selected]
    key = jax.random.clone(keys[selected])
    expected = isnas.fit(key, nets[selected], problem, CONFIG.fit).restored
    np.testing.assert_array_equal(result.restored, expected)


def test_searches_share_a_folder(clean, problem, finished, tmp_path):
    """A search loads what an earlier one computed from equal inputs, and computes the rest."""
    result, folder, _ = finished
    shared = tmp_path / "work"
    shutil.copytree(folder, shared)
    before = {file: file.read_bytes() for file in shared.iterdir()}
    config = change_search(combination=isnas.uniform_mean)
    mean = isnas.search(new_key(), problem, config, clean=clean, folder=shared)
    # The selected member's restoration is there; that of the other member is added.
    assert len(set(shared.iterdir()) - set(before)) == 1
    without_folder = isnas.search(new_key(), problem, config, clean=clean)
    np.testing.assert_array_equal(mean.restored, without_folder.restored)
    baseline, selected = (
        isnas.restore(new_key(), problem, architecture, CONFIG, clean=clean, folder=shared)
        for architecture in (tiny.TINY_SKIP, result.architecture)
    )
    np.testing.assert_array_equal(selected.restored, result.restored)
    assert len(set(shared.iterdir()) - set(before)) == 2
    assert not np.array_equal(baseline.restored, result.restored)
    other_problem = isnas.denoising(problem.observed.at[0, 0, 0].add(0.25), 25)
    other = isnas.restore(new_key(), other_problem, result.architecture, CONFIG, folder=shared)
    assert not np.array_equal(other.restored, selected.restored)
    for file, content in before.items():
        assert file.read_bytes() == content


def test_the_uniform_mean_restores_with_all_members(problem):
    events = []
    config = change_search(combination=isnas.uniform_mean)
    result = isnas.search(new_key(), problem, config, progress=events.append)
    stages = [event.stage for event in events if event.image is None]
    last_of_cohort = max(i for i, (kind, *_) in enumerate(stages) if kind == "cohort")
    assert set(stages[last_of_cohort + 1 :]) == {("restore", 1, 2), ("restore", 2, 2)}
    assert sorted(result.restorations) == [0, 1]
    assert result.weights.sum() == pytest.approx(1)
    mean = sum(result.weights[i] * member.image for i, member in result.restorations.items())
    np.testing.assert_allclose(result.restored, mean, atol=1e-6)


def test_the_cohort_is_fitted_as_the_restoration_by_default(problem):
    """Without a split, the cohort's fits are the restorations, and nothing is fitted again."""
    events = []
    config = dataclasses.replace(change_search(fit=None), fit=isnas.FitConfig(8))
    assert config.cohort_fit == config.fit
    assert config.cohort_is_restoration
    result = isnas.search(new_key(), problem, config, progress=events.append)
    assert {event.stage[0] for event in events} == {"score", "cohort", "preview"}
    np.testing.assert_array_equal(result.restored, result.cohort.images[result.selected])
    (fit,) = result.cohort.fits(result.selected)
    assert result.restorations[result.selected].fit is fit


@pytest.mark.parametrize(
    ("config", "validates_restoration", "is_restoration"),
    [
        (CONFIG, False, False),  # another fit
        (change_search(fit=None), True, True),
        (change_search(fit=CONFIG.fit), True, True),
        (change_search(fit=None, proxy=isnas.Crop(16)), False, False),
        (
            dataclasses.replace(
                change_search(fit=None),
                fit=isnas.FitConfig(9, isnas.LeastValidation(), split=isnas.HoldOut()),
            ),
            True,
            False,
        ),
    ],
)
def test_what_the_fits_of_a_cohort_serve_for(config, validates_restoration, is_restoration):
    assert config.cohort_validates_restoration == validates_restoration
    assert config.cohort_is_restoration == is_restoration


def test_plans_count_fits_and_iterations_of_each_stage(problem):
    config = change_search(isnas.presets.quick(problem, iterations=100, folds=3), cohort=2)
    assert plan_restoration(config, 2) == {"validate": (6, 100), "restore": (2, 40)}
    assert plan_search(config) == {"cohort": (6, 100), "restore": (2, 40)}
    members = (isnas.dip, isnas.observed)  # only the first has a network
    assert plan_search(change_search(config, extra_members=members))["cohort"] == (9, 100)
    fit = dataclasses.replace(config.fit, iterations=50)
    plan = {"cohort": (6, 50), "validate": (6, 100), "restore": (2, 40)}
    assert plan_search(change_search(config, fit=fit)) == plan
    assert plan_search(CONFIG) == {"cohort": (2, 8), "restore": (1, 9)}
    assert plan_search(change_search(fit=None)) == {"cohort": (2, 9)}


def test_a_network_of_ones_own_is_a_baseline(problem):
    small = isnas.Baseline("small", lambda task, **_: SmallNetwork())
    config = change_search(cohort=0, extra_members=(small,), fit=None, selection=lambda cohort: 0)
    result = isnas.search(new_key(), problem, config)
    assert result.architecture is small
    restored = isnas.restore(new_key(), problem, small, config).restored
    np.testing.assert_array_equal(result.restored, restored)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra_members": ("dip",)}, "extra member 'dip' is neither a baseline nor a classical"),
        ({"extra_members": "dip"}, "extra_members 'dip' must be a sequence"),
        ({"extra_members": (isnas.dip, isnas.dip)}, "extra_members contain 'dip' more than once"),
        ({"metric": "psd_db_mse"}, "metric 'psd_db_mse' is a name; look up the strategy"),
        ({"selection": "closest"}, "selection 'closest' is a name"),
        ({"space": "free"}, "space 'free' is a name"),
        ({"proxy": "full"}, "proxy 'full' is a name"),
        ({"combination": 1}, "combination 1 must be a function"),
    ],
)
def test_search_config_refuses_names_and_values_of_wrong_types(changes, message):
    with pytest.raises(ValueError, match=message):
        change_search(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cohort": 3}, "a cohort of 3 from 2 candidates is impossible"),
        ({"cohort": 0}, "a cohort of 0 from 2 candidates is impossible"),
        ({"selection": isnas.lowest_validation}, "lowest_validation needs a split"),
        ({"combination": isnas.Stack()}, "Stack needs a split"),
        ({"fit": isnas.FitConfig(8, isnas.LeastValidation())}, "LeastValidation needs a split"),
        ({"extra_members": (isnas.biharmonic,)}, "'biharmonic' restores inpainting, not"),
        (
            {"strategy": isnas.Portfolio(), "cohort": 9},
            "a cohort of 9 from 8 candidates is impossible",
        ),
        ({"strategy": isnas.Portfolio()}, "closest_to_mean needs members with scores"),
        (
            {"cohort": 0, "extra_members": (isnas.dip,)},
            "closest_to_mean needs members with scores",
        ),
    ],
)
def test_impossible_searches_are_refused_before_anything_is_computed(problem, changes, message):
    with pytest.raises(ValueError, match=message):
        check_config(problem, change_search(**changes))


def test_a_portfolio_is_proposed_in_its_order(problem):
    config = change_search(strategy=isnas.Portfolio(), space=isnas.free_space)
    candidates = score_candidates(begin(new_key(), problem, config, None, None, ignore))
    expected = [isnas.free_space.parse(name) for name in PORTFOLIO[:2]]
    assert list(candidates.genotypes) == expected
    assert not candidates.scored


def test_genotypes_without_scores_are_fitted_in_their_order(problem):
    def unscored(key, context):
        return isnas.Candidates(tiny.GENOTYPES[3:0:-1], np.zeros((3, 0)))

    config = change_search(
        dataclasses.replace(CONFIG, fit=isnas.FitConfig(9, split=isnas.CoupledBootstrap())),
        strategy=unscored, fit=None, selection=isnas.lowest_validation,
    )  # fmt: skip
    result = isnas.search(new_key(), problem, config)
    assert list(result.cohort.members) == tiny.GENOTYPES[3:1:-1]
    assert np.isnan(result.cohort.scores).all()
    scored = change_search(config, strategy=isnas.GenotypeList(tiny.GENOTYPES[2:4]))
    np.testing.assert_array_equal(
        result.restored, isnas.search(new_key(), problem, scored).restored
    )
    with pytest.raises(ValueError, match="closest_to_mean needs members with scores"):
        isnas.search(new_key(), problem, change_search(config, selection=isnas.closest_to_mean))


def test_portfolios_are_those_of_the_benchmark():
    bench = benchmark.load()
    images = bench.images("denoising_25")
    chosen = benchmark.portfolio(bench, "denoising_25", images, 8, max_seconds=5)
    assert tuple(chosen) == PORTFOLIO


def test_a_restoration_without_a_split_is_refused_before_the_cohort_is_fitted(problem):
    config = dataclasses.replace(CONFIG, fit=isnas.FitConfig(9, isnas.LeastValidation()))
    with pytest.raises(ValueError, match="LeastValidation needs a split"):
        check_config(problem, config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"combination": lambda cohort, selected: np.zeros(2)}, r"the weights \[0\.0, 0\.0\]"),
        ({"combination": lambda cohort, selected: np.full(2, np.nan)}, "not negative and add up"),
        ({"selection": lambda cohort: 2}, "the selection returned 2; it must be 0 to 1"),
        ({"cohort_selection": lambda key, candidates, size: [1, 1]}, r"the cohort \[1, 1\] must"),
    ],
)
def test_what_strategies_return_is_checked(clean, problem, finished, changes, message):
    with pytest.raises(ValueError, match=message):
        isnas.search(new_key(), problem, change_search(**changes), clean=clean, folder=finished[1])


def test_a_second_restoration_in_a_folder_loads_the_first(problem, tmp_path):
    events = []
    first, second = (
        isnas.restore(
            new_key(), problem, GENOTYPES[0], CONFIG, folder=tmp_path, progress=events.append
        )
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.restored, second.restored)
    fitted = [event for event in events if event.image is None]
    assert [(event.stage, event.done) for event in fitted] == [(("restore", 1, 1), 9)]
    previews = [event.image for event in events if event.image is not None]
    assert len(previews) == 2
    np.testing.assert_array_equal(previews[0], first.restored)


def test_arguments_that_are_no_problem_or_config_are_refused(problem):
    for arguments, message in (
        ((problem, "quick"), r"'quick' is not a Config; isnas_jax\.presets\.quick"),
        ((problem.observed,), r"is not a problem; isnas_jax\.denoising"),
    ):
        with pytest.raises(ValueError, match=message):
            isnas.search(new_key(), *arguments)


def test_presets_follow_the_problem(problem):
    published = isnas.presets.published(problem)
    assert (published.network.channels, published.fit.iterations) == (128, 1200)
    longer = dataclasses.replace(published.fit, iterations=5000)
    assert dataclasses.replace(published, fit=longer).cohort_fit.iterations == 1200
    assert published.search.strategy == isnas.RandomSearch(5000)
    assert published.search.proxy == isnas.Resize(64)
    enlarged = isnas.presets.published(isnas.super_resolution(problem.observed, 2))
    assert enlarged.fit.iterations == enlarged.cohort_fit.iterations == 4500
    assert enlarged.search.proxy is None
    holes = isnas.inpainting(*np.ones((2, 32, 32, 1)))
    inpainting = isnas.presets.published(holes, learning_rate=0.02)
    assert (inpainting.fit.iterations, inpainting.cohort_fit.iterations) == (9500, 1200)
    assert inpainting.fit.learning_rate == inpainting.cohort_fit.learning_rate == 0.02
    for sigma, longest in ((50, 800), (25, 800), (15, 1333), (1, 2400), (None, 800)):
        noisy = isnas.denoising(problem.observed, sigma)
        assert isnas.presets.quick(noisy).fit.iterations == longest
    quick = isnas.presets.quick(problem, iterations=1200)
    assert quick.fit.iterations == quick.cohort_fit.iterations == 1200
    assert quick.fit.stopping == isnas.LeastValidation()
    assert quick.fit.split == isnas.CoupledBootstrap(0.15)
    assert quick.search.strategy == isnas.Portfolio()
    for task, number in (("inpainting", 8), ("deblurring", 4)):  # without a portfolio
        other = isnas.presets.quick(dataclasses.replace(holes, task=task))
        assert other.search.strategy == isnas.RandomSearch(number)
    for unknown in (isnas.denoising(problem.observed), holes):
        assert isnas.presets.quick(unknown).fit.split == isnas.HoldOut(0.1)


TIMEOUT = 300  # seconds
SCRIPTS = ("search", "restore", "score", "compare", "make_dataset", "analyze")
PRESETS = pathlib.Path(__file__).parent.parent / "experiments" / "presets"

TINY = ("--space=tiny", "--extensions=tiny", "--channels=4")
FAST = ("--image=sample:moon", "--size=32", "--iterations=4", "--architecture=tiny", *TINY)


def test_restore_script_writes_equal_records_for_equal_commands(tmp_path):
    done = scripts.run("restore", *FAST, "--sigma=20", "--output_dir=a", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    name, *arguments = shlex.split((tmp_path / "a" / "command.txt").read_text())
    assert name == "isnas-restore"
    done = scripts.run("restore", *arguments, "--output_dir=b", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "refresh" not in (tmp_path / "a" / "report.html").read_text()
    names = sorted(p.name for p in (tmp_path / "a").iterdir() if p.is_file())
    assert names == [
        "clean.png",
        "command.txt",
        "comparison.png",
        "config.json",
        "curves.csv",
        "curves.png",
        "observed.png",
        "report.html",
        "restored.npy",
        "restored.png",
        "result.json",
        "spectra.png",
        "timings.json",
    ]
    for name in set(names) - {"timings.json", "report.html"}:
        first, second = ((tmp_path / folder / name).read_bytes() for folder in "ab")
        assert first == second, name
    restored = images.load(tmp_path / "a" / "restored.png")
    np.testing.assert_allclose(restored, np.load(tmp_path / "a" / "restored.npy"), atol=0.5 / 255)
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert result["observed"]["psnr"] == pytest.approx(22.2, abs=0.5)

    clash = scripts.run("restore", *FAST, "--sigma=20", "--seed=5", "--output_dir=a", cwd=tmp_path)
    assert clash.returncode == 2
    assert "seed was 0 and is now 5" in clash.stderr
    images.save(tmp_path / "mine.png", np.zeros((32, 32, 1)), bits=16)
    mine = ("--image=mine.png", *FAST[1:], "--output_dir=mine")
    assert scripts.run("restore", *mine, cwd=tmp_path).returncode == 0
    assert images.bit_depth(tmp_path / "mine" / "restored.png") == 16
    images.save(tmp_path / "mine.png", np.ones((32, 32, 1)))
    clash = scripts.run("restore", *mine, cwd=tmp_path)
    assert clash.returncode == 2
    assert "problem.observed was" in clash.stderr


def test_flags_are_written_as_they_are_read(tmp_path):
    code = """
from isnas_jax.experiments import help, {0} as script
from isnas_jax.experiments.flags import define
define("common")
script.define_flags()
assert len(help.own_flags()) > 3
for flag in help.own_flags():
    if flag.value is None:
        flag.parse("1")
    value, text = flag.value, flag.serialize()
    flag.parse(text.partition("=")[2] if "=" in text else not text.startswith("--no"))
    assert flag.value == value or str(flag.value) == str(value), flag.name
"""
    for name in SCRIPTS:
        scripts.succeed("-c", code.format(name), cwd=tmp_path)


def test_scripts_define_flags_only_when_they_run():
    """So both of their names, of a clone and of the package, can be imported in one process."""
    for package in ("experiments", "isnas_jax.experiments"):
        for name in SCRIPTS:
            assert importlib.import_module(f"{package}.{name}").define_flags
    assert not [module for module in flags.FLAGS.flags_by_module_dict() if "experiments" in module]


def test_scripts_run_by_their_name_in_a_clone(tmp_path):
    """They have the same flags as those of the package."""
    command = [sys.executable, "-m", "experiments.restore", "--help"]
    root = str(scripts.TESTS.parent)
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == scripts.run("restore", "--help", cwd=tmp_path).stdout


def test_a_perfect_restoration_is_valid_json(tmp_path):
    done = scripts.run("restore", *FAST, "--sigma=0", "--json", "--output_dir=out", cwd=tmp_path)
    for text in (done.stdout, *(path.read_text() for path in (tmp_path / "out").glob("*.json"))):
        json.loads(text, parse_constant=pytest.fail)
    assert float(json.loads(done.stdout)["observed"]["psnr"]) == np.inf
    assert "inf dB" in (tmp_path / "out" / "report.html").read_text()


def test_correlated_noise_and_jpeg_artifacts_get_a_note(tmp_path):
    clean = images.resize(images.gray(images.load("sample:moon")), 64)
    noise = np.random.default_rng(0).normal(size=clean.shape)
    blurred = scipy.ndimage.gaussian_filter(noise, (0.8, 0.8, 0))
    photos = {
        "white.png": (clean + 0.1 * noise, ""),
        "blurred.png": (clean + 0.1 * blurred / blurred.std(), "note: the noise looks correlated"),
        "clean.jpg": (clean + 0.01 * noise, "note: artifacts of JPEG"),
        "clean.png": (clean + 0.01 * noise, ""),
    }
    for name, (image, note) in photos.items():
        levels = np.round(255 * image[..., 0].clip(0, 1)).astype(np.uint8)
        Image.fromarray(levels).save(tmp_path / name)
        flags_of_run = (f"--observed={name}", f"--output_dir=out_{name}")
        done = scripts.run("classical", *flags_of_run, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith(note)
        assert len(done.stderr.splitlines()) == bool(note)


@pytest.mark.skipif(bool(importlib.util.find_spec("bm3d")), reason="bm3d is installed")
def test_the_error_for_a_missing_package_names_it(tmp_path):
    done = scripts.run("search", *FAST[:2], "--extra_members=dip,BM3D", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "error: BM3D needs bm3d: pip install bm3d\n")


def test_a_platform_without_a_device_is_one_line(tmp_path):
    command = [sys.executable, "-m", "isnas_jax.experiments.score", *FAST[:2]]
    environment = {**os.environ, "JAX_PLATFORMS": "cuda"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    if done.returncode:  # no GPU here
        assert done.stderr.startswith("error: JAX finds no device for JAX_PLATFORMS=cuda")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_a_closed_pipe_is_one_line_and_unknown_characters_are_replaced(tmp_path):
    command = [sys.executable, "-m", "isnas_jax.experiments.restore"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(scripts.TESTS)}
    reader, writer = os.pipe()
    os.close(reader)
    options = {"cwd": tmp_path, "env": environment, "stderr": subprocess.PIPE, "text": True}
    done = subprocess.run([*command, "--help"], stdout=writer, check=False, **options)
    os.close(writer)
    assert (done.returncode, done.stderr) == (2, "error: [Errno 32] Broken pipe\n")
    arguments = ["--image=σ.png"]
    done = subprocess.run([*command, *arguments], stdout=subprocess.PIPE, check=False, **options)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")


def test_previews_get_better_and_end_with_the_result(problem):
    fit = isnas.FitConfig(8, isnas.LeastValidation(), split=isnas.HoldOut(0.2))
    search = dataclasses.replace(
        SEARCH,
        strategy=isnas.GenotypeList(tiny.GENOTYPES[:3]),
        cohort=3,
        fit=None,
        selection=isnas.lowest_validation,
    )
    config = dataclasses.replace(CONFIG, fit=fit, search=search)
    previews, threads = [], set()

    def take(event):
        if event.image is not None:
            assert event.stage == ("preview",)
            previews.append(event.image)
            threads.add(threading.current_thread())

    result = isnas.search(new_key(), problem, config, progress=take)
    assert threads == {threading.main_thread()}
    *_, best, last = previews
    np.testing.assert_array_equal(last, result.restored)
    cohort = result.cohort
    np.testing.assert_array_equal(best, cohort.images[np.argmin(cohort.errors)])
    distances = [np.abs(cohort.images - image).max(axis=(1, 2, 3)) for image in previews[:-1]]
    assert max(map(np.min, distances)) == 0
    errors = [cohort.errors[np.argmin(distance)] for distance in distances]
    assert errors == sorted(errors, reverse=True)


def test_there_are_no_previews_of_a_proxy(problem):
    previews = []

    def take(event):
        if event.image is not None:
            previews.append(event.image)

    result = isnas.search(new_key(), problem, change_search(proxy=isnas.Crop(16)), progress=take)
    assert result.cohort.images.shape == (2, 16, 16, 1)
    (preview,) = previews
    np.testing.assert_array_equal(preview, result.restored)


def test_search_script_writes_what_was_decided(tmp_path):
    (tmp_path / "list.txt").write_text("\n".join(map(str, GENOTYPES)))
    arguments = (*FAST[:2], *TINY, "--square", "--genotypes=list.txt", "--cohort=1")
    arguments += ("--extra_members=tiny-skip,non-local means", "--iterations=4")
    arguments += ("--split=held-out:0.2", "--folds=2", "--cohort_selection=top-half")
    arguments += ("--combination=stack",)
    done = scripts.run("search", *arguments, "--output_dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "out" / "cohort.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["member"] for row in rows[1:]] == ["tiny-skip", "non-local means"]
    assert sum(float(row["weight"]) for row in rows) == pytest.approx(1)
    errors = [float(row["validation"]) for row in rows]
    assert rows[int(np.argmin(errors))]["selected"] == "True"
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    weights = {row["member"]: row["weight"] for row in result["members"]}
    assert weights == {row["member"]: float(row["weight"]) for row in rows if float(row["weight"])}
    assert images.load(tmp_path / "out" / "decisions.png").shape[1] > 500
    assert len(list((tmp_path / "out" / "cohort").iterdir())) == 3


BAD = {
    "seed of more than 32 bits": ("restore", [*FAST, "--seed=4294967296"], "[0, 4294967295]"),
    "seed of more than 64 bits": ("score", [f"--seed={2**64}"], "[0, 4294967295]"),
    "negative seed": ("compare", ["--images=sample:moon", "--seed=-1"], "[0, 4294967295]"),
    "last seed": (
        "compare",
        ["--images=sample:moon", "--seed=4294967295", "--num_seeds=2"],
        "num_seeds 2 must be 1 to 1 with seed 4294967295",
    ),
    "sigma": ("restore", ["--sigma=loud"], "'loud' is neither a number nor auto"),
    "no folder": ("restore", [*FAST, "--output_dir="], "the folder's name is empty"),
    "a member twice": (
        "search",
        ["--image=sample:moon", "--size=32", "--extra_members=dip,non-local means,dip"],
        "extra_members contain 'dip' more than once",
    ),
    "missing file": ("restore", ["--image=nowhere.png"], "nowhere.png"),
    "not an image": ("restore", ["--image=note.txt"], "cannot be read as an image"),
    "wrong mask size": (
        "restore",
        ["--image=Sample:Moon", "--task=inpainting", "--mask=mask.png"],
        "mask of shape",
    ),
    "unknown metric": ("search", ["--image=sample:moon", "--metric=psnr"], "psd_db_strip_mse"),
    "negative sigma": ("restore", ["--image=sample:moon", "--sigma=-1"], "sigma -1"),
    "missing 100": (
        "restore",
        ["--image=sample:moon", "--task=inpainting", "--missing=100"],
        "missing 100",
    ),
    "factor 3": (
        "restore",
        ["--image=sample:moon", "--task=super_resolution", "--factor=3"],
        "factor 3",
    ),
    "24 bits": ("restore", ["--image=sample:moon", f"--architecture=1:{BITS[1:]}"], "24 char"),
    "impossible cell": ("restore", ["--image=sample:moon", f"--architecture=240:{BITS}"], "240"),
    "empty list": ("score", ["--image=sample:moon", "--genotypes=note.txt"], "no usable"),
    "unwritable": ("score", ["--image=sample:moon", "--output_dir=note.txt"], "cannot be written"),
    "unknown task": ("score", ["--image=sample:moon", "--task=deblurring"], "inpainting"),
    "learning rate nan": (
        "restore",
        ["--image=sample:moon", "--learning_rate=nan"],
        "learning_rate nan must be positive",
    ),
    "unknown loss term": (
        "restore",
        ["--image=sample:moon", "--regularizers=tv:0.1"],
        "choose from total variation",
    ),
    "bomb": ("restore", ["--image=bomb.png"], "bomb.png"),
    "unknown flag": ("score", ["--imag=sample:moon"], "imag"),
    "unknown preset": ("score", ["--image=sample:moon", "--preset=slow"], "quick, published"),
    "no image": ("restore", [], "--image"),
    "unknown baseline": ("restore", ["--image=sample:moon", "--architecture=dop"], "dip, nas-dip"),
    "no genotypes": (
        "score",
        ["--image=sample:moon", "--genotypes=one.txt", "--num_genotypes=0"],
        "num_genotypes 0",
    ),
    "negative cohort": ("search", ["--image=sample:moon", "--cohort=-1"], "cohort of -1"),
    "unknown member": (
        "search",
        ["--image=sample:moon", "--extra_members=dop"],
        "member 'dop' does not exist; choose from dip, nas-dip",
    ),
    "cohort too large for one method": (
        "compare",
        ["--images=sample:moon", "--size=32", "--methods=ISNAS-DIP", "--num_genotypes=1"],
        "cohort of 3",
    ),
    "no workers": ("search", ["--image=sample:moon", "--workers=0"], "workers 0"),
    "unknown runner": (
        "restore",
        ["--image=sample:moon", "--runner=threadz"],
        "threads, processes",
    ),
    "size of no proxy": (
        "search",
        ["--image=sample:moon", "--task=super_resolution", "--preset=published", "--proxy_size=64"],
        "--proxy_size has no effect on this proxy",
    ),
    "cohort too large": (
        "search",
        ["--image=sample:moon", "--size=64", "--num_genotypes=2", "--cohort=3"],
        "cohort of 3",
    ),
}


def png_header(width, height):
    content = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    check = struct.pack(">I", zlib.crc32(content))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + content + check


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, name):
    (tmp_path / "note.txt").write_text("# nothing\n")
    (tmp_path / "one.txt").write_text(f"60:{BITS}\n")
    images.save(tmp_path / "mask.png", np.eye(20, 30)[..., None])
    (tmp_path / "bomb.png").write_bytes(png_header(60000, 60000))
    module, arguments, message = BAD[name]
    done = scripts.run(module, *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "out").exists()


def test_help_shows_the_flags_of_a_script(tmp_path):
    text = scripts.run("search", "--help", cwd=tmp_path).stdout
    titles = ["This script", "Image", "Corruption and run", "Networks", "Fit"]
    titles += ["Candidates and scores", "Search", "Runner", "All scripts", "Exit codes"]
    positions = [text.index(f"\n{title}\n") for title in titles]
    assert positions == sorted(positions)
    groups = {"cohort_selection": "This script", "sigma": "Corruption and run"}
    groups |= {"channels": "Networks", "iterations": "Fit", "folds": "Fit"}
    groups |= {"num_inits": "Candidates and scores", "metric": "Search"}
    groups |= {"extensions": "All scripts"}
    for flag, title in groups.items():
        number = titles.index(title)
        assert positions[number] < text.index(f"--{flag} ") < positions[number + 1], flag


@pytest.mark.parametrize("preset", sorted(PRESETS.glob("*.flags")), ids=lambda path: path.stem)
def test_flags_of_files_are_known(tmp_path, preset):
    done = scripts.run("make_dataset", f"--flagfile={preset}", "--images=none.png", cwd=tmp_path)
    assert done.returncode == 2
    assert "none.png" in done.stderr


UNUSED = {
    "mask": ("restore", ["--image=sample:moon", "--mask=mask.png"]),
    "gray": ("restore", ["--observed=mask.png", "--gray"]),
    "square": ("search", ["--observed=mask.png", "--square"]),
    "size": ("score", ["--observed=mask.png", "--size=32"]),
    "missing": (
        "classical",
        ["--observed=mask.png", "--mask=mask.png", "--task=inpainting", "--missing=90"],
    ),
    "missing with a mask": (
        "score",
        ["--image=sample:moon", "--mask=mask.png", "--task=inpainting", "--missing=90"],
    ),
    "sigma": ("score", ["--image=sample:moon", "--task=inpainting", "--sigma=20"]),
    "factor": ("compare", ["--images=sample:moon", "--factor=2"]),
    "sigma of no task": (
        "make_dataset",
        ["--images=sample:moon", "--tasks=inpainting,super_resolution", "--sigma=20"],
    ),
    "shared_weights": ("score", ["--image=sample:moon", "--shared_weights"]),
    "shared_weights of a dataset": ("make_dataset", ["--images=sample:moon", "--shared_weights"]),
    "skip_invalid": ("search", ["--image=sample:moon", "--skip_invalid"]),
    "metric": ("search", ["--image=sample:moon", "--cohort=0", "--metric=psd_db_mse"]),
    "metric of a portfolio": (
        "search",
        ["--image=sample:moon", "--strategy=portfolio", "--metric=psd_db_mse"],
    ),
    "folds": ("restore", ["--image=sample:moon", "--stopping=fixed", "--folds=2"]),
    "iterations": (
        "make_dataset",
        ["--images=sample:moon", "--tasks=denoising:4", "--iterations=5"],
    ),
    "precision": (
        "restore",
        ["--image=sample:moon", "--implementation=matmul", "--precision=high"],
    ),
    "proxy_size": ("search", ["--image=sample:moon", "--proxy=full", "--proxy_size=64"]),
}


@pytest.mark.parametrize("case", UNUSED)
def test_a_flag_without_effect_is_refused_before_anything_is_written(tmp_path, case):
    images.save(tmp_path / "mask.png", np.ones((32, 32, 1)))
    name, arguments = UNUSED[case]
    done = scripts.run(name, *arguments, cwd=tmp_path)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith(f"error: --{case.split()[0]} has no effect ")
    assert not (tmp_path / "out").exists()


def test_ctrl_c_prints_one_line_on_how_to_resume(tmp_path):
    arguments = (*FAST, "--iterations=10000000", "--stopping=fixed", "--output_dir=out")
    command = [sys.executable, "-m", "isnas_jax.experiments.restore", *arguments]
    # A process that a shell starts in the background inherits that SIGINT is ignored.
    default_sigint = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(scripts.TESTS)),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_sigint,
    )
    while not (tmp_path / "out" / "work").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "stopped; the same command resumes the run"
    assert "Traceback" not in errors
