"""The pipeline from a corrupted image to a restored one, and through the scripts."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import isnas_jax as isnas
from isnas_jax import images
from isnas_jax.observations import TASKS
from isnas_jax.search import oracle

BITS = "0000011001001001100111101"
GENOTYPES = [isnas.Genotype(60, "0" * 25), isnas.Genotype(126 + 60, "0" * 25)]
SEARCH = isnas.SearchSettings(
    metric="psd_db_strip_mse",
    num_inits=1,
    cohort=2,
    cohort_by="metric",
    cohort_iterations=8,
    proxy="full",
    proxy_size=64,
)
FIT = isnas.FitSettings(channels=8, iterations=8, stopping="fixed")


def test_search_never_sees_the_truth_and_resumes_to_the_same_result(tmp_path):
    truth = jax.random.uniform(jax.random.key(1), (64, 64, 1))
    problem = TASKS["denoising"].corrupt(jax.random.key(2), truth, sigma=25)
    garbage = jax.random.normal(jax.random.key(3), truth.shape)

    def run(**options):
        key = jax.random.key(0)
        return isnas.search(key, problem, "denoising", GENOTYPES, SEARCH, FIT, **options)

    stages = []
    found = run(truth=truth, folder=tmp_path, progress=lambda stage, _: stages.append(stage))
    assert list(dict.fromkeys(stages)) == ["score", "cohort 1/2", "cohort 2/2", "restore"]
    assert found.scores.shape == (2, 1)
    assert found.fit.restored.shape == truth.shape

    # The restoration is a fresh fit of the chosen genotype, not a cohort member.
    chosen = found.cohort_fits[found.selected]
    assert found.fit.loss[0] != chosen.loss[0]

    (tmp_path / "restore.npz").unlink()
    other = run(truth=garbage, folder=tmp_path)
    assert other.selected == found.selected
    np.testing.assert_array_equal(other.fit.restored, found.fit.restored)
    np.testing.assert_array_equal(other.scores, found.scores)
    assert not np.array_equal(other.fit.psnr_mean, found.fit.psnr_mean)

    psnrs = oracle(found, problem, SEARCH, truth)
    expected = -10 * np.log10(np.square(chosen.restored - np.asarray(truth)).mean())
    assert psnrs[found.selected] == pytest.approx(expected, abs=1e-3)


def script(name, *flags, cwd):
    command = [sys.executable, "-m", f"experiments.{name}", *flags]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cwd / "compiled")}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


FAST = (
    "--image=sample:moon",
    "--size=32",
    "--channels=4",
    "--iterations=4",
    f"--architecture=60:{'0' * 25}",
)


def test_restore_script_writes_equal_records_for_equal_commands(tmp_path):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        done = script("restore", *FAST, f"--seed={seed}", f"--output_dir={folder}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    names = sorted(p.name for p in (tmp_path / "a").iterdir() if p.is_file())
    assert names == [
        "comparison.png",
        "curves.csv",
        "curves.png",
        "observed.png",
        "restored.npy",
        "restored.png",
        "result.json",
        "settings.json",
        "spectra.png",
        "timings.json",
        "truth.png",
    ]
    for name in set(names) - {"timings.json"}:
        a, b = ((tmp_path / f / name).read_bytes() for f in "ab")
        assert a == b, name
    for name in ("result.json", "restored.npy", "observed.png"):
        a, c = ((tmp_path / f / name).read_bytes() for f in "ac")
        assert a != c, name
    restored = images.load(tmp_path / "a" / "restored.png")
    np.testing.assert_allclose(restored, np.load(tmp_path / "a" / "restored.npy"), atol=0.5 / 255)
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert result["observed"]["psnr"] == pytest.approx(20.2, abs=0.5)

    clash = script("restore", *FAST, "--seed=5", "--output_dir=a", cwd=tmp_path)
    assert clash.returncode == 2
    assert "seed was 0 and is now 5" in clash.stderr


BAD = {
    "missing file": ("restore", ["--image=nowhere.png"], "nowhere.png"),
    "not an image": ("restore", ["--image=note.txt"], "cannot be read as an image"),
    "wrong mask size": (
        "restore",
        ["--image=sample:moon", "--task=inpainting", "--mask=mask.png"],
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
    "unknown flag": ("score", ["--imag=sample:moon"], "imag"),
    "unknown preset": ("score", ["--image=sample:moon", "--preset=slow"], "quick, published"),
    "no image": ("restore", [], "--image"),
    "cohort too large": (
        "search",
        ["--image=sample:moon", "--size=64", "--num_genotypes=2", "--cohort=3"],
        "cohort of 3",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, name):
    (tmp_path / "note.txt").write_text("# nothing\n")
    images.save(tmp_path / "mask.png", np.ones((20, 30, 1)))
    module, flags, message = BAD[name]
    done = script(module, *flags, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
