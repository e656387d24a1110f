"""The comparison table, through the script."""

import os
import statistics
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from skimage.metrics import peak_signal_noise_ratio

from isnas_jax.io import images

FLAGS = (
    "--images=sample:moon,sample:camera",
    "--methods=random-1,non-local means",
    "--num_seeds=2",
    "--genotypes=list.txt",
    "--size=32",
    "--square",
    "--channels=4",
    "--cohort=1",
    "--members=",
    "--cohort_iterations=4",
    "--iterations=4",
    "--stopping=fixed",
    "--proxy=full",
    "--output_dir=out",
)


def run(place, *flags):
    return subprocess.run(
        [sys.executable, "-m", "experiments.compare", *FLAGS, *flags],
        cwd=place,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(place / "compiled")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_table_holds_means_and_standard_errors_over_seeds(tmp_path):
    (tmp_path / "list.txt").write_text(f"60:{'0' * 25}")
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    runs = pd.read_csv(tmp_path / "out" / "runs.csv")
    assert len(runs) == 2 * 2 * 2
    table = pd.read_csv(tmp_path / "out" / "psnr.csv", index_col="method")
    assert list(table.index) == ["random-1", "non-local means"]
    assert list(table) == ["moon", "camera", "all"]
    for method in table.index:
        values = runs[runs["method"] == method].pivot(index="seed", columns="image", values="psnr")
        values["all"] = (values["moon"] + values["camera"]) / 2
        for column in table:
            one, two = values[column]
            error = statistics.stdev((one, two)) / np.sqrt(2)
            expected = f"{(one + two) / 2:.2f} ± {error:.2f}"
            assert table.loc[method, column] == expected
    for row in runs.itertuples():
        truth = images.resize(images.crop_to_square(images.load(f"sample:{row.image}")), 32)
        name = f"{row.image}+{row.seed}+{row.method.replace(' ', '%20')}"
        image = np.load(tmp_path / "out" / "work" / name / "restored.npz")["restored"]
        picture = images.load(tmp_path / "out" / "restored" / f"{name}.png")
        np.testing.assert_allclose(picture, image, atol=0.51 / 255)
        expected = peak_signal_noise_ratio(truth, image, data_range=1)
        assert row.psnr == pytest.approx(expected, abs=1e-3)
    assert (tmp_path / "out" / "comparison.pdf").exists()

    before = (tmp_path / "out" / "runs.csv").read_bytes()
    assert run(tmp_path).returncode == 0
    assert (tmp_path / "out" / "runs.csv").read_bytes() == before

    for flag, message in (("--methods=BM5D", "choose from DIP"), ("--sigma=30", "sigma was 25.0")):
        done = run(tmp_path, flag)
        assert done.returncode == 2
        assert message in done.stderr
