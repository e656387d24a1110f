"""The pipeline from a corrupted image to a restored one, and through the scripts."""

import csv
import dataclasses
import functools
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
from PIL import Image

import isnas_jax as isnas
from experiments import streams
from isnas_jax.io import images
from isnas_jax.problems import TASKS
from isnas_jax.searching import oracle

BITS = "0000011001001001100111101"
GENOTYPES = tuple(tiny.GENOTYPES[:2])
SEARCH = isnas.SearchConfig(
    strategy=isnas.GenotypeList(GENOTYPES),
    space=tiny.SPACE,
    cohort=2,
    proxy=isnas.PROXIES["full"](64),
    fit=isnas.FitConfig(8),
)
RECIPE = isnas.Config(isnas.NetworkConfig(channels=4), isnas.FitConfig(9), SEARCH)
KEY = jax.random.key(0)


def changed(**changes):
    return dataclasses.replace(RECIPE, search=dataclasses.replace(SEARCH, **changes))


@pytest.fixture(scope="module")
def clean():
    return jax.random.uniform(jax.random.key(1), (32, 32, 1))


@pytest.fixture(scope="module")
def problem(clean):
    return TASKS["denoising"].corrupt(jax.random.key(2), clean, sigma=25)


@pytest.fixture(scope="module")
def finished(clean, problem, tmp_path_factory):
    """A search, its folder, and what it said of its progress."""
    folder, stages = tmp_path_factory.mktemp("search"), []
    found = isnas.search(
        KEY,
        problem,
        RECIPE,
        clean=clean,
        folder=folder,
        progress=lambda stage, _: stages.append(stage),
    )
    return found, folder, stages


def test_search_never_sees_the_clean_image_and_resumes_to_the_same_result(clean, problem, finished):
    found, folder, stages = finished
    garbage = jax.random.uniform(jax.random.key(3), clean.shape)
    assert (stages[0], stages[-1]) == ("score", "restore")
    assert set(stages) == {"score", "cohort 1/2", "cohort 2/2", "restore"}
    assert found.candidates.scores.shape == (2, 1)
    assert found.restored.shape == clean.shape
    np.testing.assert_array_equal(found.restored, found.fits[found.selected].restored)

    other = isnas.search(KEY, problem, RECIPE, clean=garbage, folder=folder)
    assert other.selected == found.selected
    np.testing.assert_array_equal(other.restored, found.restored)
    np.testing.assert_array_equal(other.candidates.scores, found.candidates.scores)
    assert not np.array_equal(
        other.fits[other.selected].psnr_ema, found.fits[found.selected].psnr_ema
    )

    (chosen,) = found.cohort.fits(found.selected)
    psnrs = oracle(found.cohort, problem, SEARCH.proxy, clean)
    expected = -10 * np.log10(np.square(chosen.restored - np.asarray(clean)).mean())
    assert psnrs[found.selected] == pytest.approx(expected, abs=1e-3)


def test_the_search_as_a_function_of_its_parts(problem, finished):
    """Each stage by hand, with the keys that the pipeline gives it."""
    found, *_ = finished
    stages_key = jax.random.split(KEY, 3)[2]
    score_key, _, _, fit_key = jax.random.split(stages_key, 4)
    nets = [tiny.SPACE.build(g, out_channels=1, channels=4) for g in GENOTYPES]
    scores = isnas.score(score_key, nets, problem, {"m": SEARCH.metric})["m"][:, 0]
    np.testing.assert_array_equal(found.candidates.scores[:, 0], scores)
    order = np.argsort(scores)
    assert found.cohort.members == [GENOTYPES[index] for index in order]
    # A network's key is that of its name: what is drawn does not depend on the others.
    keys = [jax.random.fold_in(fit_key, zlib.crc32(str(g).encode())) for g in GENOTYPES]
    images = [isnas.fit(keys[index], nets[index], problem, SEARCH.fit).restored for index in order]
    weights = (scores.max() - scores[order] + np.ptp(scores)) / (3 * np.ptp(scores))
    mean = weights[0] * images[0] + weights[1] * images[1]
    distances = [np.square(image - mean).mean() for image in images]
    assert found.selected == int(np.argmin(distances))
    chosen = order[found.selected]
    restored = isnas.fit(keys[chosen], nets[chosen], problem, RECIPE.fit).restored
    np.testing.assert_array_equal(found.restored, restored)


def test_a_folder_serves_several_searches(clean, problem, finished, tmp_path):
    """What they have in common is found there, what differs is computed."""
    found, folder, _ = finished
    shared = tmp_path / "work"
    shutil.copytree(folder, shared)
    kept = {file: file.read_bytes() for file in shared.iterdir()}
    config = changed(combination=isnas.COMBINATIONS["mean"])
    both = isnas.search(KEY, problem, config, clean=clean, folder=shared)
    # Whom the first search chose is there; the other is fitted to the whole.
    assert len(set(shared.iterdir()) - set(kept)) == 1
    alone = isnas.search(KEY, problem, config, clean=clean)
    np.testing.assert_array_equal(both.restored, alone.restored)
    named, other = (
        isnas.restore(KEY, problem, architecture, RECIPE, clean=clean, folder=shared)
        for architecture in ("tiny-skip", found.architecture)
    )
    np.testing.assert_array_equal(other.restored, found.restored)
    assert len(set(shared.iterdir()) - set(kept)) == 2
    assert not np.array_equal(named.restored, found.restored)
    posed = isnas.denoising(problem.observed.at[0, 0, 0].add(0.25), 25)
    another = isnas.restore(KEY, posed, found.architecture, RECIPE, folder=shared)
    assert not np.array_equal(another.restored, other.restored)
    for file, content in kept.items():
        assert file.read_bytes() == content


def test_the_mean_of_the_cohort_is_that_of_its_restorations(problem):
    config = changed(combination=isnas.COMBINATIONS["mean"])
    stages = []
    found = isnas.search(KEY, problem, config, progress=lambda stage, _: stages.append(stage))
    after = stages[1 + max(i for i, stage in enumerate(stages) if stage.startswith("cohort")) :]
    assert set(after) == {"restore 1/2", "restore 2/2"}
    assert sorted(found.fits) == [0, 1]
    assert found.weights.sum() == pytest.approx(1)
    mean = sum(found.weights[rank] * fit.restored for rank, fit in found.fits.items())
    np.testing.assert_allclose(found.restored, mean, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"combination": lambda cohort, selected: np.zeros(2)}, r"weights are \[0\.0, 0\.0\]"),
        ({"combination": lambda cohort, selected: np.full(2, np.nan)}, "not negative and add up"),
        ({"selection": lambda cohort: 2}, "2 was selected, where 0 to 1 can be"),
        ({"cohort_selection": lambda key, candidates, size: [1, 1]}, r"cohort is \[1, 1\]"),
    ],
)
def test_what_strategies_return_is_checked(clean, problem, finished, changes, message):
    with pytest.raises(ValueError, match=message):
        isnas.search(KEY, problem, changed(**changes), clean=clean, folder=finished[1])


def test_restoring_twice_in_a_folder_is_once(problem, tmp_path):
    iterations = []
    first, again = (
        isnas.restore(
            KEY,
            problem,
            GENOTYPES[0],
            RECIPE,
            folder=tmp_path,
            progress=lambda _, news: iterations.append(news.iteration),
        )
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.restored, again.restored)
    assert iterations == [9]


def test_what_is_no_problem_or_recipe_is_said(problem):
    for arguments, message in (
        ((problem, "quick"), r"'quick' is no recipe; isnas_jax\.presets\.quick"),
        ((problem.observed,), r"is no problem; isnas_jax\.denoising"),
    ):
        with pytest.raises(ValueError, match=message):
            isnas.search(KEY, *arguments)


def test_presets_follow_the_problem(problem):
    published = isnas.presets.published(problem)
    assert (published.network.channels, published.fit.iterations) == (128, 1200)
    assert published.search.strategy == isnas.RandomSearch(5000)
    assert published.search.proxy == isnas.PROXIES["resize"](64)
    enlarged = isnas.presets.published(isnas.super_resolution(problem.observed, 2))
    assert enlarged.fit.iterations == enlarged.search.fit.iterations == 4500
    assert enlarged.search.proxy == isnas.PROXIES["full"](64)
    for sigma, most in ((50, 800), (25, 800), (15, 1333), (1, 2400), (None, 800)):
        noisy = isnas.denoising(problem.observed, sigma)
        assert isnas.presets.quick(noisy).fit.iterations == most
    quick = isnas.presets.quick(problem, iterations=1200)
    assert quick.fit.stopping == isnas.STOPPING["validation"](1200)
    assert quick.fit.split == isnas.SPLITS["bootstrap"](0.15)
    for unknown in (isnas.denoising(problem.observed), isnas.inpainting(*np.ones((2, 32, 32, 1)))):
        assert isnas.presets.quick(unknown).fit.split == isnas.SPLITS["held-out"](0.1)


PRESETS = pathlib.Path(__file__).parent.parent / "experiments" / "presets"

TINY = ("--space=tiny", "--extensions=tiny", "--channels=4")
FAST = ("--image=sample:moon", "--size=32", "--iterations=4", "--architecture=tiny", *TINY)


def test_restore_script_writes_equal_records_for_equal_commands(tmp_path):
    done = scripts.run("restore", *FAST, "--sigma=20", "--output_dir=a", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    name, *written = shlex.split((tmp_path / "a" / "command.txt").read_text())
    assert name == "isnas-restore"
    done = scripts.run("restore", *written, "--output_dir=b", cwd=tmp_path)
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
        a, b = ((tmp_path / f / name).read_bytes() for f in "ab")
        assert a == b, name
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
    assert images.bits(tmp_path / "mine" / "restored.png") == 16
    images.save(tmp_path / "mine.png", np.ones((32, 32, 1)))
    clash = scripts.run("restore", *mine, cwd=tmp_path)
    assert clash.returncode == 2
    assert "problem.observed was" in clash.stderr


def test_flags_are_written_as_they_are_read(tmp_path):
    code = """
import sys
from absl import flags
from isnas_jax.experiments import {0}
for flag in flags.FLAGS.get_flags_for_module(sys.modules["isnas_jax.experiments.{0}"]) + [
    flag for flag in flags.FLAGS.get_flags_for_module("isnas_jax.experiments.cli")
]:
    if flag.value is None:
        flag.parse("1")
    value, text = flag.value, flag.serialize()
    flag.parse(text.partition("=")[2] if "=" in text else not text.startswith("--no"))
    assert flag.value == value or str(flag.value) == str(value), flag.name
"""
    for name in ("search", "restore", "score", "compare", "make_dataset", "analyze"):
        scripts.succeed("-c", code.format(name), cwd=tmp_path)


def test_a_perfect_restoration_is_valid_json(tmp_path):
    done = scripts.run("restore", *FAST, "--sigma=0", "--json", "--output_dir=out", cwd=tmp_path)
    for text in (done.stdout, *(path.read_text() for path in (tmp_path / "out").glob("*.json"))):
        json.loads(text, parse_constant=pytest.fail)
    assert float(json.loads(done.stdout)["observed"]["psnr"]) == np.inf
    assert "inf dB" in (tmp_path / "out" / "report.html").read_text()


def test_notes_on_what_is_hardly_reduced(tmp_path):
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
        done = scripts.run(
            "classical", f"--observed={name}", f"--output_dir=of_{name}", cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith(note)
        assert len(done.stderr.splitlines()) == bool(note)


@pytest.mark.skipif(bool(importlib.util.find_spec("bm3d")), reason="bm3d is installed")
def test_a_member_without_its_package_says_which(tmp_path):
    done = scripts.run("search", *FAST[:2], "--extra_members=dip,BM3D", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "error: BM3D needs bm3d: pip install bm3d\n")


def test_a_platform_without_a_device_is_one_line(tmp_path):
    command = [sys.executable, "-m", "isnas_jax.experiments.score", *FAST[:2]]
    found = {**os.environ, "JAX_PLATFORMS": "cuda"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=found)
    if done.returncode:  # no GPU here
        assert done.stderr.startswith("error: JAX finds no device for JAX_PLATFORMS=cuda")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_streams_cost_no_results(monkeypatch):
    reader, writer = os.pipe()
    with open(writer, "w", encoding="ascii") as stream, open(reader, "rb", 0) as read:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", None)
        with streams.lenient():
            print("28.1 ± 0.1", flush=True)
            assert read.read(100) == b"28.1 ? 0.1\n"
            read.close()
            for _ in range(3):
                print("nothing reads this", flush=True)
                print("nor this", file=sys.stderr)
        assert sys.stdout is stream


def test_previews_get_better_and_end_with_the_result(tmp_path):
    clean = jax.random.uniform(jax.random.key(1), (32, 32, 1))
    noisy = TASKS["denoising"].corrupt(jax.random.key(2), clean, sigma=25)
    fit = isnas.FitConfig(8, isnas.STOPPING["validation"](8), split=isnas.SPLITS["held-out"](0.2))
    search_config = dataclasses.replace(
        SEARCH,
        strategy=isnas.GenotypeList(tiny.GENOTYPES[:3]),
        cohort=3,
        fit=fit,
        space=isnas.SPACES["tiny"],
        selection=isnas.SELECTIONS["validation"],
    )
    config = isnas.Config(isnas.NetworkConfig(channels=4), fit, search_config)
    previews, threads = [], set()

    def preview(image):
        previews.append(image)
        threads.add(threading.current_thread())

    found = isnas.search(KEY, noisy, config, preview=preview)
    assert threads == {threading.main_thread()}
    *_, best, last = previews
    np.testing.assert_array_equal(last, found.restored)
    np.testing.assert_array_equal(best, found.cohort.images[np.argmin(found.cohort.errors)])
    members = [np.abs(found.cohort.images - image).max(axis=(1, 2, 3)) for image in previews[:-1]]
    errors = [found.cohort.errors[np.argmin(distances)] for distances in members]
    assert max(map(np.min, members)) == 0
    assert errors == sorted(errors, reverse=True)


def test_search_script_writes_what_was_decided(tmp_path):
    (tmp_path / "list.txt").write_text("\n".join(map(str, GENOTYPES)))
    flags = (*FAST[:2], *TINY, "--square", "--genotypes=list.txt", "--cohort=1")
    flags += (
        "--extra_members=tiny-skip,non-local means",
        "--iterations=4",
        "--split=held-out:0.2",
        "--folds=2",
    )
    done = scripts.run("search", *flags, "--output_dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "out" / "cohort.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["member"] for row in rows[1:]] == ["tiny-skip", "non-local means"]
    assert sum(float(row["weight"]) for row in rows) == pytest.approx(1)
    errors = [float(row["validation"]) for row in rows]
    assert rows[int(np.argmin(errors))]["selected"] == "True"
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    weighed = {row["member"]: row["weight"] for row in result["members"]}
    assert weighed == {row["member"]: float(row["weight"]) for row in rows if float(row["weight"])}
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
    "no folder": ("restore", [*FAST, "--output_dir="], "the name of the folder is empty"),
    "a member twice": (
        "search",
        ["--image=sample:moon", "--size=32", "--extra_members=dip,non-local means,dip"],
        "members name 'dip' more than once",
    ),
    "missing file": ("restore", ["--image=nowhere.png"], "nowhere.png"),
    "not an image": ("restore", ["--image=note.txt"], "cannot be read as an image"),
    "wrong mask size": (
        "restore",
        ["--image=Sample:Moon", "--task=inpainting", "--mask= 'mask.png' "],
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
        "'dop' is none of",
    ),
    "cohort too large for one method": (
        "compare",
        ["--images=sample:moon", "--size=32", "--methods=ISNAS-DIP", "--num_genotypes=1"],
        "cohort of 2",
    ),
    "no workers": ("search", ["--image=sample:moon", "--workers=0"], "workers 0"),
    "unknown runner": (
        "restore",
        ["--image=sample:moon", "--runner=friends"],
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
    module, flags, message = BAD[name]
    done = scripts.run(module, *flags, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "out").exists()


def test_help_shows_the_flags_of_a_script(tmp_path):
    told = scripts.run("search", "--help", cwd=tmp_path).stdout
    titles = ["This script", "Corruption and run", "Fit", "Search", "Exit codes"]
    places = [told.index(f"\n{title}\n") for title in titles]
    assert places == sorted(places)
    of = {"cohort_selection": 0, "sigma": 1, "iterations": 2, "metric": 3}
    for flag, number in of.items():
        assert places[number] < told.index(f"--{flag} ") < places[number + 1], flag


@pytest.mark.parametrize("preset", sorted(PRESETS.glob("*.flags")), ids=lambda path: path.stem)
def test_flags_of_files_are_known(tmp_path, preset):
    done = scripts.run("make_dataset", f"--flagfile={preset}", "--images=none.png", cwd=tmp_path)
    assert done.returncode == 2
    assert "none.png" in done.stderr


IDLE = {
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


@pytest.mark.parametrize("case", IDLE)
def test_a_flag_without_effect_is_refused_before_anything_is_written(tmp_path, case):
    images.save(tmp_path / "mask.png", np.ones((32, 32, 1)))
    name, flags = IDLE[case]
    done = scripts.run(name, *flags, cwd=tmp_path)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith(f"error: --{case.split()[0]} has no effect ")
    assert not (tmp_path / "out").exists()


def test_ctrl_c_is_one_line_that_says_how_to_go_on(tmp_path):
    flags = (*FAST, "--iterations=10000000", "--stopping=fixed")
    command = [sys.executable, "-m", "isnas_jax.experiments.restore", *flags, "--output_dir=out"]
    # What a shell starts in the background inherits that SIGINT is ignored.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(scripts.TESTS)),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed,
    )
    while not (tmp_path / "out" / "work").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "stopped; the same command goes on where it was"
    assert "Traceback" not in errors
