"""Every flag of every script accepts a valid value, and refuses an invalid one in one line.

A flag that --help shows and that has no entry in the tables fails, so that new flags are tested.
"""

import functools
import os
import re

import numpy as np
import pytest
import scripts
from test_commands import PAGES, SMALL, reason_not_to_run

from isnas_jax.io import images

NETWORK = ("--space=tiny", "--extensions=tiny_baselines", "--channels=4")
RUN = ("--seed=3", "--preset=quick", "--precision=highest", "--dtype=float32")
CLEAN = ("--image=image.png", "--size=32")
FIT = (
    "--iterations=4",
    "--stopping=validation",
    "--learning_rate=0.02",
    "--input_noise_std=0.05",
    "--ema_decay=0.9",
    "--optimizer=adam",
    "--regularizers=total variation:0.01",
    "--split=held-out:0.1",
    "--folds=2",
    "--refit_factor=1.5",
    "--refit_from=0.25",
    "--debias",
    "--remat",
)
LISTED = ("--genotypes=list.txt", "--skip_invalid", "--num_genotypes=2", "--num_inits=1")
SEARCH = (
    "--metric=psd_db_mse",
    "--cohort=1",
    "--cohort_iterations=4",
    "--proxy=crop",
    "--proxy_size=32",
    "--selection=ranks",
    "--combination=mean",
    "--extra_members=dip",
)
THREADS = ("--runner=threads", "--workers=1")
DRAWN = ("--strategy=random", "--num_genotypes=2", "--num_inits=1")
SHORT = (
    "--iterations=2",
    "--cohort_iterations=2",
    "--cohort=1",
    "--extra_members=",
    "--stopping=fixed",
)
SHORT += ("--split=held-out:0.1",)
HOLES = ("--task=inpainting", "--missing=40")
MASKED = ("--observed=holes.png", "--task=inpainting", "--mask=mask.png")
ENLARGED = ("--task=super_resolution", "--factor=2")
DENOISED = ("--task=denoising", "--sigma=20", "--gray", "--square")
IMPLEMENTED = ("--implementation=conv",)
ALL = (*NETWORK, *RUN, *IMPLEMENTED)

# Commands that take each flag, in addition to the documented ones of test_commands.
VALID = {
    "search": [
        (
            *CLEAN,
            *DENOISED,
            *ALL,
            *FIT,
            *LISTED,
            *SEARCH,
            *THREADS,
            "--cohort_selection=top-k",
            "--json",
        ),
        (*CLEAN, *HOLES, *NETWORK, *DRAWN, *SHORT),
        (*CLEAN, *ENLARGED, *NETWORK, *DRAWN, *SHORT),
        (*MASKED, *NETWORK, *DRAWN, *SHORT),
    ],
    "restore": [
        (*CLEAN, *DENOISED, *ALL, *FIT, *THREADS, "--architecture=nearest:1", "--json"),
        (*CLEAN, *HOLES, *NETWORK, "--iterations=2"),
        (*MASKED, *NETWORK, "--iterations=2"),
        (*CLEAN, *ENLARGED, *NETWORK, "--iterations=2"),
    ],
    "score": [
        (
            *CLEAN,
            *DENOISED,
            *ALL,
            *LISTED[:3],
            "--num_inits=2",
            "--metrics=psd_db_mse",
            "--shared_weights",
        ),
        (*CLEAN, *HOLES, *NETWORK, "--num_genotypes=1", "--metrics=psd_db_mse"),
        (*MASKED, *NETWORK, "--num_genotypes=1", "--metrics=psd_db_mse"),
        (*CLEAN, *ENLARGED, *NETWORK, "--num_genotypes=1", "--metrics=psd_db_mse"),
    ],
    "compare": [
        (
            *("--images=image.png", "--size=32", "--num_seeds=1", "--methods=ISNAS-DIP"),
            *(*DENOISED, *ALL, *FIT, *LISTED, *SEARCH, *THREADS),
        ),
        (
            *("--images=image.png", "--size=32", "--num_seeds=1", "--methods=random-1"),
            *(*HOLES, *NETWORK, *DRAWN, *SHORT),
        ),
        ("--images=image.png", "--size=32", "--num_seeds=1", "--methods=bicubic", *ENLARGED),
    ],
    "make_dataset": [
        (
            *("--images=image.png", "--size=32", "--num_seeds=1", "--first_seed=1"),
            "--baselines=dip",
            *("--tasks=denoising,inpainting:3,super_resolution:3:4", "--metrics=psd_db_mse"),
            *("--sigma=20", "--missing=40", "--factor=2", "--gray", "--square"),
            *(*ALL, *FIT[:1], *FIT[2:8], *FIT[11:], *LISTED[:3], *THREADS, "--stopping=fixed"),
            "--benchmark=bench",
            *("--shared_weights", "--num_inits=2", "--retry_failed", "--job_fits=2", "--shard=0/1"),
        ),
        (
            *("--images=image.png", "--size=32", "--metrics=psd_db_mse", "--baselines=dip"),
            *("--split=held-out:0.1", "--stopping=validation", "--iterations=3"),
            *(*NETWORK, *DRAWN[1:]),
        ),
    ],
    "analyze": [
        (
            *("--dataset=dataset", "--items=table1,figure1", "--metrics=psd_db_mse"),
            *("--metric=psd_db_mse", "--outcome=restored PSNR", "--reference=image"),
            *("--seed=1", "--resamples=20"),
        )
    ],
    "compact": [("--dataset=dataset",)],
    "evaluate_metric": [
        (
            *("--benchmark=bench", "--metrics=psd_db_mse", "--channels=4", "--space=tiny"),
            *("--extensions=tiny", "--num_inits=1", "--resamples=20", "--seed=1", "--models="),
            *("--store", "--transfer_from=bench"),
        )
    ],
    "evaluate_strategy": [
        (
            *("--benchmark=bench", "--strategies=random,successive halving", "--budgets=1,2"),
            *("--repeats=2", "--seed=1"),
        )
    ],
    "report": [("--folder=out",)],
    "classical": [
        (*CLEAN, *DENOISED, *RUN[:1]),
        (*CLEAN, *HOLES),
        MASKED,
        (*CLEAN, *ENLARGED),
    ],
}

RAY = "needs a Ray cluster; see test_ray"
NO_NETWORK = "changes a network, and this script has none"
# Flags that no command above can take.
UNTRIED = {
    "ray_address": RAY,
    "job_cpus": RAY,
    "job_gpus": RAY,
    **{("classical", name): NO_NETWORK for name in ("preset", "channels", "implementation")},
    **{("classical", name): NO_NETWORK for name in ("precision", "dtype", "space", "extensions")},
}

# An invalid value, a part of the error message, and flags that the value needs.
INVALID = {
    "extensions": ("nowhere", "nowhere"),
    "image": ("nowhere.png", "nowhere.png"),
    "images": ("nowhere.png", "nowhere.png"),
    "observed": ("nowhere.png", "nowhere.png", "--noimage"),
    "task": ("deblurring", "choose from denoising, inpainting, super_resolution"),
    "mask": ("nowhere.png", "nowhere.png", "--task=inpainting"),
    "sigma": ("-1", "sigma -1"),
    "missing": ("100", "missing 100", "--task=inpainting"),
    "factor": ("3", "factor 3", "--task=super_resolution"),
    "gray": ("perhaps", "gray"),
    "square": ("perhaps", "square"),
    "seed": ("one", "seed"),
    "output_dir": ("note.txt", "note.txt"),
    "preset": ("slow", "quick, published"),
    "size": ("large", "size"),
    "channels": ("0", "channels 0"),
    "implementation": ("lax", "matmul, conv"),
    "precision": ("low", "low"),
    "dtype": ("float16", "float32, bfloat16"),
    "space": ("large", "free, toeplitz"),
    "iterations": ("0", "iterations 0"),
    "stopping": ("never", "es-wmv"),
    "learning_rate": ("nan", "learning_rate nan"),
    "input_noise_std": ("-1", "input_noise_std -1"),
    "ema_decay": ("1", "ema_decay 1"),
    "optimizer": ("sgd", "adam"),
    "regularizers": ("tv", "regularizer 'tv' does not exist; choose from total variation"),
    "split": ("held-out", "NAME:NUMBER"),
    "folds": ("0", "folds 0"),
    "refit_factor": ("0", "refit_factor 0"),
    "refit_from": ("1", "refit_from 1.0"),
    "debias": ("perhaps", "debias"),
    "remat": ("perhaps", "remat"),
    "genotypes": ("note.txt", "no usable genotype"),
    "skip_invalid": ("perhaps", "skip_invalid"),
    "num_genotypes": ("0", "0"),
    "num_inits": ("0", "0"),
    "strategy": ("evolution", "random"),
    "metric": ("psnr", "psd_db_strip_mse"),
    "metrics": ("psnr", "psd_db_strip_mse"),
    "cohort": ("-1", "cohort"),
    "cohort_iterations": ("0", "iterations 0"),
    "proxy": ("half", "full, crop"),
    "proxy_size": ("small", "proxy_size"),
    "selection": ("first", "closest"),
    "combination": ("sum", "mean"),
    "extra_members": ("dop", "dip"),
    "shared_weights": ("perhaps", "shared_weights"),
    "cohort_selection": ("age", "top-k, top-half, random"),
    "runner": ("friends", "threads, processes, ray"),
    "workers": ("0", "workers 0"),
    "ray_address": ("auto", "runner 'threads' has no ray_address"),
    "job_cpus": ("1", "runner 'threads' has no job_cpus"),
    "job_gpus": ("1", "runner 'threads' has no job_gpus"),
    "benchmark": ("note.txt", "benchmark"),
    "transfer_from": ("note.txt", "benchmark"),
    "models": ("forest", "linear, boosted trees"),
    "store": ("perhaps", "store"),
    "strategies": ("annealing", "random, successive halving"),
    "budgets": ("soon", "budget 'soon'"),
    "repeats": ("0", "repeats"),
    "json": ("perhaps", "json"),
    "architecture": ("dop", "dip, nas-dip"),
    "tasks": ("denoising:soon", "NAME:ITERATIONS"),
    "baselines": ("unet", "choose from dip"),
    "num_seeds": ("0", "0"),
    "first_seed": ("-1", "first_seed"),
    "methods": ("BM5D", "choose from DIP"),
    "retry_failed": ("perhaps", "retry_failed"),
    "dry_run": ("perhaps", "dry_run"),
    "job_fits": ("0", "job_fits"),
    "shard": ("2", "I/N"),
    "dataset": ("nowhere", "nowhere"),
    "folder": ("nowhere", "nowhere"),
    "items": ("table9", "table1"),
    "outcome": ("beauty", "restored PSNR"),
    "reference": ("sample:unknown", "image"),
    "resamples": ("-1", "resamples"),
}
ANY_VALUE = {"compilation_cache": "is any folder, or none"}

# The rest of the command that gets an invalid value.
PLAIN = {
    "search": (*CLEAN, *NETWORK, *DRAWN[1:], *SHORT),
    "restore": (*CLEAN, *NETWORK, "--architecture=dip", "--iterations=2"),
    "score": (*CLEAN, *NETWORK, "--num_genotypes=1", "--metrics=psd_db_mse"),
    "compare": ("--images=image.png", "--size=32", *NETWORK, *DRAWN[1:], *SHORT),
    "make_dataset": (
        *("--images=image.png", "--size=32", *NETWORK, "--num_genotypes=1", "--iterations=2"),
        *("--metrics=psd_db_mse", "--baselines="),
    ),
    "analyze": (
        *("--dataset=dataset", "--output_dir=report", "--resamples=20", "--metric=psd_db_mse"),
    ),
    "compact": (),
    "evaluate_metric": (),
    "evaluate_strategy": (),
    "report": (),
    "classical": CLEAN,
}


def flag_names(words):
    """The names of the flags among words; for --noNAME also NAME."""
    used = {word.removeprefix("--").partition("=")[0] for word in words if word.startswith("--")}
    return used | {name.removeprefix("no") for name in used}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the images and lists that the commands name."""
    folder = tmp_path_factory.mktemp("flags")
    rng = np.random.default_rng(0)
    images.save(folder / "image.png", rng.random((32, 32, 3)))
    mask = rng.random((32, 32, 1)) < 0.5
    images.save(folder / "mask.png", mask.astype(np.float32))
    images.save(folder / "holes.png", mask * rng.random((32, 32, 3)))
    (folder / "list.txt").write_text("nearest:0\nsmallest:0\nbicubic:1\n")
    (folder / "note.txt").write_text("# nothing\n")
    return folder


@pytest.fixture(scope="module")
def flags_of(folder):
    """The flags that a script's --help shows."""

    @functools.cache
    def help_flags(script):
        text = scripts.succeed(script, "--help", cwd=folder).stdout
        flags = set(re.findall(r"^  --(?:\[no\])?(\w+)(?: |$)", text, re.MULTILINE))
        assert flags
        return flags - {"flagfile"}

    return help_flags


@pytest.mark.parametrize(
    "script",
    [pytest.param(name, marks=[pytest.mark.thorough] * (name == "compare")) for name in VALID],
)
def test_every_flag_accepts_a_valid_value(script, folder, flags_of, request):
    """Without --thorough only the first command of a script runs."""
    count = None if request.config.getoption("--thorough") else 1
    cache = f"--compilation_cache={os.environ['JAX_COMPILATION_CACHE_DIR']}"
    used = {"compilation_cache", "extensions", *flag_names(SMALL.get(script, ()))}
    for commands in PAGES.values():
        for other, words in commands:
            if other == script and not reason_not_to_run(script, words):
                used |= flag_names(words)
    used |= {name for words in VALID[script] for name in flag_names(words)}
    for number, words in enumerate(VALID[script][:count]):
        words = [cache, "--extensions=tiny", *words]
        if "output_dir" in flags_of(script):
            default = {"make_dataset": "dataset", "search": "out"}.get(script, script)
            words.append(f"--output_dir={default}{number or ''}")
        scripts.succeed(script, *words, cwd=folder)
    untried = {name for name in flags_of(script) if name in UNTRIED or (script, name) in UNTRIED}
    assert flags_of(script) - used == untried - used


def test_dry_run_accepts_a_split(folder):
    scripts.succeed(
        "make_dataset", *PLAIN["make_dataset"], "--split=held-out:0.1", "--dry_run", cwd=folder
    )


def test_search_warns_when_it_selects_the_observation(folder):
    words = (*CLEAN, *NETWORK, *DRAWN, "--iterations=2", "--cohort=1", "--output_dir=selected")
    done = scripts.succeed("search", *words, cwd=folder)
    assert "warning: the selection is the observation" in done.stderr


@pytest.mark.parametrize("script", VALID)
def test_every_flag_refuses_an_invalid_value_in_one_line(script, folder, flags_of):
    """Values that do not parse are tried in all scripts, others in the first that has the flag."""
    wrong, earlier = [], list(VALID)[: list(VALID).index(script)]
    for flag in sorted(flags_of(script) - set(ANY_VALUE)):
        assert flag in INVALID, f"--{flag} of {script} has no invalid value here"
        value, message, *needed = INVALID[flag]
        if message != flag and any(flag in flags_of(other) for other in earlier):
            continue
        if needed and script in ("compare", "make_dataset") and flag in ("missing", "factor"):
            task = needed[0].removeprefix("--task=")
            needed = [f"--tasks={task}"] if script == "make_dataset" else needed
        plain = [word for word in PLAIN[script] if "--noimage" not in needed or word not in CLEAN]
        needed = [word for word in needed if word != "--noimage"]
        command = [*plain, *needed, f"--{flag}={value}"]
        if flag != "output_dir" and "output_dir" in flags_of(script):
            command.append(f"--output_dir=refused_{script}_{flag}")
        done = scripts.run(script, *command, cwd=folder)
        lines = done.stderr.strip().splitlines()
        if done.returncode != 2 or len(lines) != 1 or message not in done.stderr:
            wrong.append(f"{script} --{flag}={value}: {done.returncode}, {done.stderr[-300:]}")
    assert not wrong, "\n".join(wrong)
