"""Documented commands run, from their own text, with small settings put over them.

README, docs, the scripts' docstrings (which are their --help) and the files of flags.
"""

import importlib.util
import pathlib
import re
import shlex
import shutil

import numpy as np
import pytest
import scripts

import isnas_jax as isnas
from isnas_jax.io import images

ROOT = pathlib.Path(isnas.__file__).parent.parent
COMMAND = re.compile(r"python -m experiments\.([\w.]+)([^`\n]*)")

# What a reader fills in.
FILLED = {
    "IMAGES": "photographs",
    "LIST": "list.txt",
    "TASK OPTION": "denoising --sigma=25",
    "CLASSICAL": "non-local means",
    "--output_dir=...": "--output_dir=out_table",
    "--genotypes=...": f"--genotypes=60:{'0' * 25}",
    "[--remat]": "--remat",
    "$SLURM_ARRAY_TASK_ID/32": "1/2",
    "=/shared/": "=shared/",
    "=experiments/presets/": f"={ROOT}/experiments/presets/",
}
if not importlib.util.find_spec("bm3d"):
    FILLED[",BM3D"] = ""  # the package may not be installed

# Commands, or flags of commands, that are not run; their flags are checked nevertheless.
NOT_HERE = {
    "interruptions": "stops scripts for hours",
    "ray_interruptions": "starts a Ray cluster and kills its nodes for minutes",
    "faults": "mounts file systems",
    "screenshots": "needs a browser",
    "benchmarks.accelerator": "needs the compiler of a TPU",
    "decisions.curves": "fits for hours whatever its flags",
    "decisions.gather": "reads what decisions.curves takes hours to make",
    "--pytorch": "needs PyTorch",
    "--ray_address": "needs a Ray cluster",
}

# The benchmarks have networks of five levels.
SLOW = ("benchmarks", "decisions", "--runner=processes")

NETWORK = ("--space=tiny", "--extensions=tiny_baselines", "--channels=4")
SCORED = ("--num_genotypes=2", "--num_inits=1")
SEARCHED = (*NETWORK, *SCORED, "--iterations=4", "--cohort_iterations=4", "--cohort=1")
SMALL = {
    "search": SEARCHED,
    "restore": (*NETWORK, "--iterations=4"),
    "score": (*NETWORK, *SCORED),
    "compare": (*SEARCHED, "--num_seeds=1", "--num_genotypes=4", "--cohort=2"),
    "make_dataset": (*NETWORK, *SCORED, "--size=32", "--metrics=psd_db_strip_mse"),
    "analyze": ("--resamples=20",),
    "benchmarks.scoring": (
        "--genotypes=cells.txt",
        "--channels=4",
        *SCORED,
        "--size=64",
        "--repeats=1",
    ),
    "benchmarks.fit": (
        "--size=32",
        "--channels=4",
        "--steps=1",
        "--chunks=1",
        f"--genotypes=60:{'0' * 25}",
    ),
    "benchmarks.cells": ("--size=64", "--first=60", "--num_cells=1", "--num_genotypes=2"),
    "benchmarks.memory": ("--size=32", "--channels=4"),
    "benchmarks.ops": ("--sizes=16", "--channels=4"),
    "benchmarks.precision": (
        "--size=32",
        "--channels=4",
        "--networks=dip",
        "--extensions=tiny_baselines",
        "--images=camera",
        "--num_seeds=2",
        "--num_iterations=4",
    ),
    "benchmarks.throughput": (
        "--size=32",
        "--channels=4",
        "--num_genotypes=1",
        "--num_images=1",
        "--num_iterations=2",
    ),
}

RUN = {"report.html", "restored.png", "restored.npy", "observed.png", "comparison.png"}
RUN |= {"spectra.png", "curves.png", "config.json", "curves.csv", "result.json", "timings.json"}
PROMISED = {
    "search": RUN | {"decisions.png", "scores.csv", "cohort.csv", "cohort"},
    "restore": RUN,
    "score": {"scores.csv", "config.json"},
    "compare": {"runs.csv", "psnr.csv", "ssim.csv", "comparison.png", "comparison.pdf"},
    "make_dataset": {"fits", "scores", "images", "timings", "config.json"},
    "analyze": {"table1.csv", "analysis.json", "report.html"},
    "classical": {"result.json", "non-local_means.png"},
}


def written_in(path):
    """The commands of a page: pairs of a script and its arguments."""
    text = re.sub(r"\\\n[ #]*", " ", path.read_text())
    for placeholder, value in FILLED.items():
        text = text.replace(placeholder, value)
    for script, rest in COMMAND.findall(text):
        words = shlex.split(rest.split("&&")[0], comments=True)
        yield script, words


PAGES = {
    str(path.relative_to(ROOT)): list(written_in(path))
    for path in [
        ROOT / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "experiments").rglob("*.py")),
        *sorted((ROOT / "experiments").rglob("*.flags")),
    ]
}
PAGES = {page: commands for page, commands in PAGES.items() if commands}


def why_not(script, words):
    """Why a command is not run here, or None."""
    for part, reason in NOT_HERE.items():
        if part == script or any(word.startswith(part) for word in words):
            return reason
    return None


def slow(script, words):
    return script.startswith(SLOW) or any(word.startswith(SLOW) for word in words)


def value_of(flag, words):
    values = [word.partition("=")[2] for word in words if word.startswith(f"--{flag}=")]
    return values[-1] if values else None


def small(script, words):
    """A command's arguments with small settings put over them."""
    words = [
        re.sub(r"(:\d+)+", lambda found: ":3:5" if found[0].count(":") > 1 else ":3", word)
        if word.startswith("--tasks=")
        else re.sub(r"=[1-9]\d*$", "=2", word)
        if word.startswith(("--fits=", "--num_genotypes=")) and script == "benchmarks.memory"
        else word
        for word in words
    ]
    words = [
        ",".join(word.split(",")[:2]) if word.startswith("--images=") else word for word in words
    ]
    put = [*SMALL.get(script, ())]
    if value_of("flagfile", words):
        put += ["--tasks=denoising:3:5", "--images=photographs"]
    if script in ("search", "restore", "score", "classical", "compare") and (
        value_of("image", words) or value_of("images", words)
    ):
        put.append("--size=32")
    return [*words, *put]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """What pages take for granted: images, masks, a list; and what earlier commands left."""
    place = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    for name in ("noisy.png", "photographs/one.png"):
        images.save(place / name, rng.random((32, 32, 3)))
    mask = rng.random((32, 32, 1)) < 0.5
    images.save(place / "mask.png", mask.astype(np.float32))
    images.save(place / "holes.png", mask * rng.random((32, 32, 3)))
    (place / "list.txt").write_text("nearest:0\nbicubic:1\n")
    (place / "cells.txt").write_text(f"60:{'0' * 25}\n60:{'1' * 25}\n")
    (place / "docs").mkdir()
    shutil.copytree(ROOT / "docs" / "decisions", place / "docs" / "decisions")
    shutil.copy(ROOT / "docs" / "decisions.md", place / "docs")
    scripts.succeed("search", "--image=photographs/one.png", *SEARCHED, "--size=32", cwd=place)
    tasks = ("--tasks=denoising:3", "--output_dir=dataset")
    scripts.succeed(
        "make_dataset", "--images=photographs", *tasks, *SMALL["make_dataset"], cwd=place
    )
    return place


def make_ready(prepared, place, words):
    """Puts what a command reads into its place, and clears its output's."""
    for flag, source in (("dataset", "dataset"), ("folder", "out")):
        if (name := value_of(flag, words)) and not (place / name).exists():
            shutil.copytree(prepared / source, place / name)
    if name := value_of("output_dir", words):
        assert (place / name).resolve().is_relative_to(place)
        shutil.rmtree(place / name, ignore_errors=True)


DONE = set()


@pytest.mark.parametrize("page", PAGES)
def test_documented_commands_run(page, prepared, tmp_path, request):
    for path in prepared.iterdir():
        if path.name not in ("out", "dataset"):
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, tmp_path / path.name)
    repeated: set[str] = set()
    for script, words in PAGES[page]:
        told = shlex.join([script, *words])
        reason = why_not(script, words)
        brief = not request.config.getoption("--thorough")
        if not reason and brief and (page.startswith("docs/") or slow(script, words)):
            reason = "takes minutes; runs with --thorough"
        if reason:
            print(f"{told}: not run, {reason}")
            scripts.succeed(script, *words, "--only_check_args", cwd=tmp_path)
            continue
        flags = small(script, words)
        same = script, *(word for word in flags if not word.startswith("--output_dir"))
        if same in DONE:
            continue
        DONE.add(same)
        make_ready(prepared, tmp_path, words)
        scripts.succeed(script, *flags, cwd=tmp_path)
        if "--dry_run" in words:
            continue
        default = {"analyze": "report"}.get(script, "out")
        folder = tmp_path / (value_of("output_dir", flags) or default)
        missing = [name for name in PROMISED.get(script, ()) if not (folder / name).exists()]
        assert not missing, f"{told} left no {', '.join(missing)}"
        written = folder / "command.txt"
        enough = brief and script in repeated
        if page == "README.md" and script in PROMISED and written.exists() and not enough:
            # The command that is written down is the one that was given.
            repeated.add(script)
            _, *again = shlex.split(written.read_text())
            again.append(f"--output_dir={folder}")
            if brief and script != "search":
                again.append("--only_check_args")
            done = scripts.run(script, *again, cwd=tmp_path)
            assert done.returncode == 0, f"{written.read_text()}{done.stderr}"


def test_commands_are_found_and_reasons_are_needed():
    commands = [command for page in PAGES.values() for command in page]
    assert len(commands) > 60
    for part in (*NOT_HERE, *SMALL):
        assert any(
            part == script or any(w.startswith(part) for w in words) for script, words in commands
        ), part
    scripts_in_readme = {script for script, _ in PAGES["README.md"]}
    assert set(PROMISED) - {"classical"} <= scripts_in_readme
