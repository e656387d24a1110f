"""Documented commands run, from their own text, with small settings added.

They are in the README, docs, the docstrings of the scripts (their --help) and the flag files.
"""

import importlib.util
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import scripts

import isnas_jax as isnas
from isnas_jax.io import images

ROOT = pathlib.Path(isnas.__file__).parent.parent
SCRIPTS = ROOT / "experiments"
COMMAND = re.compile(r"python -m experiments\.([\w.]+)([^`\n]*)")

# Placeholders that a reader replaces.
PLACEHOLDERS = {
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
    PLACEHOLDERS[",BM3D"] = ""  # the package may not be installed

# Commands, or flags of commands, that are not run; only their flags are checked.
NOT_RUN = {
    "proofs.interruptions": "stops scripts for hours",
    "proofs.faults": "mounts file systems",
    "benchmarks.accelerator": "needs the compiler of a TPU",
    "decisions.curves": "fits for hours whatever its flags",
    "decisions.gather": "reads what decisions.curves takes hours to make",
    "--pytorch": "needs PyTorch",
    "--ray_address": "needs a Ray cluster",
    "--methods=DIP,portfolio": "has networks of five levels",
}

# Benchmarks have networks of five levels; compare runs in test_compare.py, and evaluate_metric with
# a smaller benchmark in test_flags.py.
SLOW = ("benchmarks", "decisions", "compare", "evaluate_metric", "--runner=processes")

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
    "evaluate_metric": ("--num_inits=1", "--resamples=20"),
    "evaluate_strategy": ("--repeats=1", "--budgets=30"),
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
}

# Files that a run leaves.
RUN = {"report.html", "restored.png", "restored.npy", "observed.png", "comparison.png"}
RUN |= {"spectra.png", "curves.png", "config.json", "curves.csv", "result.json", "timings.json"}
OUTPUTS = {
    "search": RUN | {"decisions.png", "scores.csv", "cohort.csv", "cohort"},
    "restore": RUN,
    "score": {"scores.csv", "config.json"},
    "compare": {"runs.csv", "psnr.csv", "ssim.csv", "comparison.png", "comparison.pdf"},
    "make_dataset": {"fits", "scores", "images", "config.json"},
    "analyze": {"table1.csv", "analysis.json", "report.html"},
    "evaluate_metric": {"leaderboard.csv", "denoising_25.md"},
    "evaluate_strategy": {"runs.csv", "denoising_25.md"},
    "classical": {"result.json", "non-local_means.png"},
}


def commands_in(path):
    """The commands of a page: pairs of a script and its arguments."""
    text = re.sub(r"\\\n[ #]*", " ", path.read_text())
    for placeholder, value in PLACEHOLDERS.items():
        text = text.replace(placeholder, value)
    for script, rest in COMMAND.findall(text):
        words = shlex.split(rest.split("&&")[0], comments=True)
        yield script, words


PAGES = {
    str(path.relative_to(ROOT)): list(commands_in(path))
    for path in [
        ROOT / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "experiments").rglob("*.py")),
        *sorted((ROOT / "experiments").rglob("*.flags")),
    ]
}
PAGES = {page: commands for page, commands in PAGES.items() if commands}


def reason_not_to_run(script, words):
    """Why a command is not run here, or None."""
    for part, reason in NOT_RUN.items():
        if part == script or any(word.startswith(part) for word in words):
            return reason
    return None


def slow(script, words):
    return script.startswith(SLOW) or any(word.startswith(SLOW) for word in words)


def value_of(flag, words):
    values = [word.partition("=")[2] for word in words if word.startswith(f"--{flag}=")]
    return values[-1] if values else None


def small(script, words):
    """The arguments of a command, with small settings added."""
    words = [
        re.sub(r"(:\d+)+", lambda match: ":3:5" if match[0].count(":") > 1 else ":3", word)
        if word.startswith("--tasks=")
        else word
        for word in words
    ]
    words = [
        ",".join(word.split(",")[:2]) if word.startswith("--images=") else word
        for word in words
        if word != "--compilation_cache="  # all commands share the programs
    ]
    added = [*SMALL.get(script, ())]
    if value_of("flagfile", words):
        added += ["--tasks=denoising:3:5", "--images=photographs"]
    if script in ("search", "restore", "score", "classical", "compare") and (
        value_of("image", words) or value_of("images", words)
    ):
        added.append("--size=32")
    return [*words, *added]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with the inputs of commands: images, a mask, lists, results of other commands."""
    folder = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    for name in ("noisy.png", "photographs/one.png"):
        images.save(folder / name, rng.random((32, 32, 3)))
    mask = rng.random((32, 32, 1)) < 0.5
    images.save(folder / "mask.png", mask.astype(np.float32))
    images.save(folder / "holes.png", mask * rng.random((32, 32, 3)))
    (folder / "list.txt").write_text("nearest:0\nbicubic:1\n")
    (folder / "cells.txt").write_text(f"60:{'0' * 25}\n60:{'1' * 25}\n")
    (folder / "docs").mkdir()
    shutil.copytree(ROOT / "docs" / "decisions", folder / "docs" / "decisions")
    shutil.copy(ROOT / "docs" / "decisions.md", folder / "docs")
    scripts.succeed("search", "--image=photographs/one.png", *SEARCHED, "--size=32", cwd=folder)
    tasks = ("--tasks=denoising:3", "--output_dir=dataset")
    scripts.succeed(
        "make_dataset", "--images=photographs", *tasks, *SMALL["make_dataset"], cwd=folder
    )
    return folder


def prepare(prepared, folder, words):
    """Delete a command's results in a folder, and copy those that it reads."""
    name = value_of("output_dir", words) or "out"
    assert (folder / name).resolve().is_relative_to(folder)
    if not name.startswith("docs/"):  # these hold inputs too
        shutil.rmtree(folder / name, ignore_errors=True)
    for flag, source in (("dataset", "dataset"), ("folder", "out")):
        if (name := value_of(flag, words)) and not (folder / name).exists():
            shutil.copytree(prepared / source, folder / name)


REPEATED: set[str] = set()  # scripts with a recorded command that has run
DONE = set()  # commands that have run, without their output folders


@pytest.mark.parametrize("page", PAGES)
def test_documented_commands_run(page, prepared, tmp_path, request):
    for path in prepared.iterdir():
        if path.name not in ("out", "dataset"):
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, tmp_path / path.name)
    for script, words in PAGES[page]:
        command = shlex.join([script, *words])
        reason = reason_not_to_run(script, words)
        brief = not request.config.getoption("--thorough")
        if not reason and brief and (page.startswith("docs/") or slow(script, words)):
            reason = "takes minutes; runs with --thorough"
        if reason:
            print(f"{command}: not run, {reason}")
            scripts.succeed(script, *words, "--only_check_args", cwd=tmp_path)
            continue
        flags = small(script, words)
        last = dict(word.partition("=")[::2] for word in flags)
        same = script, frozenset(last.items() - {("--output_dir", last.get("--output_dir"))})
        if same in DONE:
            continue
        DONE.add(same)
        prepare(prepared, tmp_path, words)
        scripts.succeed(script, *flags, cwd=tmp_path)
        if "--dry_run" in words:
            continue
        default = {"analyze": "report"}.get(script, "out")
        folder = tmp_path / (value_of("output_dir", flags) or default)
        missing = [name for name in OUTPUTS.get(script, ()) if not (folder / name).exists()]
        assert not missing, f"{command} left no {', '.join(missing)}"
        record = folder / "command.txt"
        own = page == f"experiments/{script}.py" and script in OUTPUTS
        if own and record.exists() and script not in REPEATED:
            # The recorded command repeats the run.
            REPEATED.add(script)
            _, *again = shlex.split(record.read_text())
            again.append(f"--output_dir={folder}")
            if brief and script != "search":
                again.append("--only_check_args")
            done = scripts.run(script, *again, cwd=tmp_path)
            assert done.returncode == 0, f"{record.read_text()}{done.stderr}"


def test_pages_have_commands_of_every_script():
    commands = [command for page in PAGES.values() for command in page]
    assert len(commands) > 50
    for part in (*NOT_RUN, *SMALL):
        assert any(
            part == script or any(w.startswith(part) for w in words) for script, words in commands
        ), part
    runnable = {p.stem for p in SCRIPTS.glob("*.py") if "\n    run_script(main" in p.read_text()}
    assert set(OUTPUTS) | {"compact", "report"} == runnable
    for script in runnable:  # so that each of them runs without --thorough
        assert script in dict(PAGES[f"experiments/{script}.py"])
        assert f"| `{script}` |" in (ROOT / "README.md").read_text()


def test_scripts_run_by_both_import_names(tmp_path):
    """In a clone as `experiments`, and as `isnas_jax.experiments` where installed."""
    starts = {
        "experiments.classical": "python -m experiments.classical ",
        "isnas_jax.experiments.classical": "isnas-classical ",
    }
    for module, start in starts.items():
        folder = tmp_path / module
        flags = ["--image=sample:camera", "--size=16", "--seed=3", f"--output_dir={folder}"]
        done = subprocess.run(
            [sys.executable, "-m", module, *flags],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        record = (folder / "command.txt").read_text()
        assert record.startswith(start)
        assert set(flags[:3]) == set(shlex.split(record)[-3:])
    first, second = (tmp_path / module / "result.json" for module in starts)
    assert first.read_bytes() == second.read_bytes()


def test_installed_commands_import_extensions_from_the_current_folder(tmp_path):
    (tmp_path / "mine.py").write_text("raise ValueError('imported')")
    command = pathlib.Path(sys.executable).with_name("isnas-score")
    messages = {
        "mine": "imported",
        "other.py": "extension 'other.py' is not a module in the current",
    }
    for name, message in messages.items():
        words = [command, "--image=sample:camera", f"--extensions={name}"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {message}"), done.stderr
