"""Test the analysis of datasets: correlations, intervals, transfer, tables."""

import itertools
import math
import pathlib

import jax
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.stats

from isnas_jax import figures
from isnas_jax.report import tables
from isnas_jax.study import analysis, intervals, store

GENOTYPES = [f"{cell}:{'0' * 25}" for cell in range(60, 66)]


def new_key():
    return jax.random.key(3)


@pytest.fixture
def dataset():
    """Return six genotypes on two images with two seeds, with outcomes to check by hand."""
    best = {"moon": [20, 22, 24, 21, 23, 20.5], "coins": [30, 29, 28, 27, 26, 25]}
    fits = [
        {
            "architecture": genotype,
            "image": image,
            "task": "denoising",
            "seed": seed,
            "observed_psnr": {"moon": 19.0, "coins": 20.0}[image],
            "best_psnr_ema": best[image][number] + (-0.25, 0.25)[seed],
            "best_ema_at": 10 * number,
            "restored_psnr": best[image][number] - 1.0,
            "last_psnr_ema": 0.0,
        }
        for (number, genotype), image, seed in itertools.product(
            enumerate(GENOTYPES), best, range(2)
        )
    ]
    scores = [
        {
            "architecture": genotype,
            "image": image,
            "task": "denoising",
            "reference": reference,
            "sharpness": float((number * 7) % 5 + (reference == "clean")),
            "random": float((number * 5) % 6),
        }
        for (number, genotype), image, reference in itertools.product(
            enumerate(GENOTYPES), best, ("observed", "clean")
        )
    ]
    return analysis.Dataset(pathlib.Path(), pd.DataFrame(fits), pd.DataFrame(scores), 0)


def test_kendall_equals_scipy_in_every_resample():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 8, 30).astype(float)  # with ties
    y = x + rng.normal(scale=4, size=30)
    counts = analysis.resample(new_key(), 30, 50)
    assert (counts.sum(axis=1) == 30).all()
    assert (counts[0] == 1).all()
    assert len(np.unique(counts, axis=0)) == 51
    expected = [
        scipy.stats.kendalltau(*(np.repeat(values, row.astype(int)) for values in (x, y))).statistic
        for row in counts
    ]
    np.testing.assert_allclose(analysis.kendall(x, y, counts), expected, rtol=1e-10)
    assert np.isnan(analysis.kendall(np.zeros(30), y, counts)).all()


def test_interval_equals_quantiles_and_is_close_to_scipy_bootstrap():
    rng = np.random.default_rng(1)
    x = rng.normal(size=60)
    y = x + rng.normal(size=60)
    replicates = analysis.kendall(x, y, analysis.resample(new_key(), 60, 2000))
    estimate = analysis.estimate(replicates)
    assert estimate.value == pytest.approx(scipy.stats.kendalltau(x, y).statistic)
    assert estimate.low == pytest.approx(pd.Series(replicates[1:]).quantile(0.025))
    assert estimate.high == pytest.approx(pd.Series(replicates[1:]).quantile(0.975))
    expected = scipy.stats.bootstrap(
        (x, y),
        lambda a, b: scipy.stats.kendalltau(a, b).statistic,
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        rng=0,
    ).confidence_interval
    np.testing.assert_allclose((estimate.low, estimate.high), expected, atol=0.02)


def test_kendall_table_correlates_scores_and_outcomes(dataset):
    outcomes = ["optimal stopping iteration", "best PSNR", "PSNR increase"]
    table = analysis.kendall_table(dataset, outcomes, ["sharpness"], key=new_key(), resamples=40)
    assert len(table) == 3 * 2 * 3
    table = table.set_index(["outcome", "reference", "image"]).sort_index()
    score = [0, 2, 4, 1, 3, 0]
    moon, coins = [20, 22, 24, 21, 23, 20.5], [30, 29, 28, 27, 26, 25]
    taus = [scipy.stats.kendalltau(score, values).statistic for values in (moon, coins)]
    for outcome in ("best PSNR", "PSNR increase"):
        rows = table.loc[outcome, "observed"]
        assert rows.loc["moon", "tau"] == pytest.approx(taus[0])
        assert rows.loc["coins", "tau"] == pytest.approx(taus[1])
        assert rows.loc["mean", "tau"] == pytest.approx(np.mean(taus))
    stopping = table.loc["optimal stopping iteration", "observed"]
    assert stopping.loc["moon", "tau"] == pytest.approx(-taus[1])
    control = scipy.stats.kendalltau([0, 5, 4, 3, 2, 1], moon).statistic
    assert table.loc[("best PSNR", "observed", "moon"), "control"] == pytest.approx(control)
    assert (table["low"] <= table["tau"]).all()
    assert (table["tau"] <= table["high"]).all()


def test_increase_is_standardized_for_each_image(dataset):
    increase = analysis.standardized_increase(dataset, "denoising")
    for image, values in (("moon", [1, 3, 5, 2, 4, 1.5]), ("coins", [10, 9, 8, 7, 6, 5])):
        np.testing.assert_allclose(increase[image], scipy.stats.zscore(values), rtol=1e-6)


def test_figure_1_sorts_the_reference_and_shows_it_in_every_panel():
    increases = {"a": np.array([0.5, -1.0, 2.0]), "b": np.array([3.0, 1.0, 2.0])}
    panels = figures.transfer(increases, "a").axes
    lines = [[line.get_ydata().tolist() for line in panel.lines] for panel in panels]
    assert lines == [[[2.0, 0.5, -1.0]], [[2.0, 3.0, 1.0], [2.0, 0.5, -1.0]]]


def test_transfer_gaps_are_losses_against_the_best_genotype(dataset):
    gaps = analysis.transfer_gaps(dataset, "denoising")
    assert gaps.loc["moon"].to_dict() == {"moon": 0, "coins": 2}
    assert gaps.loc["coins"].to_dict() == {"moon": 4, "coins": 0}
    assert gaps.loc["all others"].to_dict() == {"moon": 4, "coins": 2}


def test_top_returns_the_lowest_scores_against_the_observation(dataset):
    best = analysis.top(dataset, "sharpness", "denoising", "moon", 3)
    assert best == [GENOTYPES[0], GENOTYPES[5], GENOTYPES[3]]
    assert len(analysis.top(dataset, "sharpness", "denoising", "moon", 15)) == 6


def test_random_cohorts_have_the_expected_best_value():
    values = np.arange(20.0)
    mean, spread = analysis.random_cohorts(new_key(), values, 5, 400)
    expected = sum(best * math.comb(int(best), 4) for best in values) / math.comb(20, 5)
    assert mean == pytest.approx(expected, abs=3 * spread / np.sqrt(400))
    assert analysis.random_cohorts(new_key(), values, 30, 10) == (19.0, 0.0)


def test_tables_are_written_in_every_format(tmp_path):
    table = pd.DataFrame({"a": [1 / 3, 2.0], "b_c": ["x", "y"]}, index=["one", "two"])
    text = tables.write(tmp_path / "t", table.rename_axis("name"))
    assert "0.33" in text
    assert (tmp_path / "t.md").read_text().splitlines()[2].split("|")[2].strip() == "0.33"
    assert r"b\_c" in (tmp_path / "t.tex").read_text()
    read = pd.read_csv(tmp_path / "t.csv", index_col="name")
    pd.testing.assert_frame_equal(read, table.rename_axis("name"))


def test_incomplete_architectures_are_left_out(tmp_path):
    def write(part, rows):
        (tmp_path / part).mkdir(exist_ok=True)
        frame = pd.DataFrame(rows)
        if part == "fits":
            frame = frame.reindex(columns=store.FITS.names)
        table = pa.Table.from_pandas(frame, preserve_index=False)
        store.write(tmp_path / part / "all.parquet", table, "study")

    def score(name):
        row = {"architecture": name, "task": "denoising", "image": "moon"}
        return row | {"reference": "observed", "output": 0, "m": 1.0}

    def fit(name, image):
        return {"architecture": name, "task": "denoising", "image": image, "seed": 0}

    write("images", [{"image": "moon"}])
    write("scores", [score(name) for name in GENOTYPES[:3]])
    with pytest.raises(ValueError, match="holds no fits"):
        analysis.load(tmp_path)
    rows = [fit(name, image) for name in (GENOTYPES[0], "dip") for image in ("moon", "coins")]
    write("fits", [*rows, fit(GENOTYPES[1], "moon")])
    dataset = analysis.load(tmp_path)
    assert dataset.genotypes == GENOTYPES[:1]
    assert set(dataset.fits["architecture"]) == {GENOTYPES[0], "dip"}
    assert dataset.incomplete == 2


def test_estimates_are_formatted_for_tables():
    assert intervals.Estimate(1.234, 1.0, 1.5).shown() == "1.23 (1.00 to 1.50)"
    assert intervals.Estimate(1.234, math.nan, math.nan).shown(1) == "1.2"
    assert intervals.Estimate(*(math.nan,) * 3).shown() == ""


def test_bootstrap_over_images_keeps_the_rows_of_an_image_together():
    rows = [("a", 0.0), ("a", 2.0), ("b", 4.0), ("b", 6.0), ("b", 5.0)]
    table = pd.DataFrame(rows, columns=["image", "gap"])
    estimate = intervals.over_images(table, "gap", resamples=200)
    # Resamples hold a twice, b twice, or both.
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((17 / 5, 1.0, 5.0))
    single = intervals.over_images(table[table["image"] == "a"], "gap")
    assert single.value == 1.0
    assert math.isnan(single.low)
    assert math.isnan(single.high)
