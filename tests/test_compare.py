"""Test the comparison of methods: its decisions, its events and its table."""

import dataclasses
import statistics

import jax
import numpy as np
import pandas as pd
import pytest
import scripts
from skimage.metrics import peak_signal_noise_ratio

import isnas_jax as isnas
from isnas_jax import study
from isnas_jax.io import images
from isnas_jax.searching import check_config

FLAGS = (
    "--images=sample:moon,sample:camera",
    "--methods=random-1,non-local means",
    "--num_seeds=2",
    "--genotypes=list.txt",
    "--size=32",
    "--square",
    "--channels=4",
    "--space=tiny",
    "--extensions=tiny",
    "--cohort=1",
    "--extra_members=",
    "--cohort_iterations=4",
    "--iterations=4",
    "--stopping=fixed",
    "--proxy=full",
    "--output_dir=out",
)


def run(folder, *flags):
    return scripts.run("compare", *FLAGS, *flags, cwd=folder)


def test_differences_are_paired():
    rows = [
        {"image": image, "seed": seed, "method": method, "psnr": base + gain}
        for image, base in (("a", 20.0), ("b", 30.0))
        for seed in (0, 1)
        for method, gain in (("ours", 1.0), ("other", {"a": 0.5, "b": 0.0}[image]))
    ]
    table = study.differences(pd.DataFrame(rows), "psnr", "ours")
    assert list(table["psnr"]) == ["26.00", "25.25"]
    # Two images: the bootstrap draws one of them twice, or both.
    assert list(table["ours less this"]) == ["0.00 (0.00 to 0.00)", "0.75 (0.50 to 1.00)"]
    alone = study.differences(pd.DataFrame(rows[:4]), "psnr", "ours")
    assert list(alone["ours less this"]) == ["0.00", "0.50"]


@pytest.fixture
def problem():
    return isnas.denoising(np.full((32, 32, 1), 0.5), 25)


@pytest.mark.parametrize("preset", [isnas.presets.quick, isnas.presets.published])
def test_as_published_takes_the_decisions_of_the_paper(problem, preset):
    config, published = preset(problem), isnas.presets.published(problem).search
    changed = study.methods("denoising", config)["as published"].change(config)
    assert changed.search.cohort == config.search.cohort
    assert changed.search.extra_members == ()
    for fit in (changed.fit, changed.cohort_fit):
        assert fit.stopping == isnas.WindowedVariance()
        assert (fit.split, fit.debias) == (None, False)
    assert changed.cohort_fit.iterations == config.cohort_fit.iterations
    for name in ("selection", "combination", "cohort_selection", "metric"):
        assert getattr(changed.search, name) == getattr(published, name)


def test_as_published_fits_genotypes_instead_of_baselines():
    holes = isnas.inpainting(np.full((32, 32, 1), 0.5), np.eye(32))
    config = isnas.presets.quick(holes)
    assert config.search.extra_members == (isnas.dip, isnas.nas_dip)
    changed = study.methods("inpainting", config)["as published"].change(config)
    assert changed.search.cohort == config.search.cohort + 2


def test_methods_that_need_scores_replace_a_portfolio(problem):
    config = isnas.presets.quick(problem)
    methods = study.methods("denoising", config)
    assert methods["portfolio"].change(config) == config
    for name in ("ISNAS-DIP", "ISNAS-DIP+", "as published", "metric-3", "random-3"):
        changed = methods[name].change(config)
        assert changed.search.strategy == isnas.RandomSearch(8)
        check_config(problem, changed)
    search = dataclasses.replace(config.search, strategy=isnas.RandomSearch(5))
    listed = dataclasses.replace(config, search=search)
    assert methods["random-3"].change(listed).search.strategy == isnas.RandomSearch(5)
    assert "portfolio" not in study.methods("denoising", listed)


def test_search_with_classical_members_names_each_member_once(problem):
    config = isnas.presets.quick(problem)
    assert config.search.extra_members == (isnas.observed,)
    members = study.methods("denoising", config)["ISNAS-DIP+"].change(config).search.extra_members
    assert {isnas.observed, isnas.non_local_means} <= set(members)
    assert len(set(members)) == len(members)


def test_events_name_the_method_and_count_restorations(problem):
    def keep_observed(key, problem, config, *, folder, progress):
        progress(isnas.Event(("restore", 1, 1), 5, 10, loss=0.25))
        progress(isnas.Event(("preview",), 0, 0, image=problem.observed))
        return problem.observed

    clean, events = jax.numpy.full((32, 32, 1), 0.5), []
    cases = [(seed, study.Case("gray", clean, problem)) for seed in (0, 1)]
    runs, restored = study.compare({"none": keep_observed}, cases, progress=events.append)
    assert list(runs["seed"]) == [0, 1]
    assert set(restored) == {("none", "gray", 0), ("none", "gray", 1)}
    counts = [event for event in events if event.stage == ("compared",)]
    assert [(event.done, event.total) for event in counts] == [(0, 2), (1, 2), (2, 2)]
    others = sorted(event for event in events if event not in counts)
    assert others == [
        isnas.Event(("method", "gray", seed, "none", "restore", 1, 1), 5, 10, loss=0.25)
        for seed in (0, 1)
    ]


def test_table_holds_means_and_standard_errors_over_seeds(tmp_path):
    (tmp_path / "list.txt").write_text("nearest:0")
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
            error = statistics.stdev(values[column]) / np.sqrt(2)
            expected = f"{values[column].mean():.2f} ± {error:.2f}"
            assert table.loc[method, column] == expected
    for row in runs.itertuples():
        clean = images.resize(images.crop_to_square(images.load(f"sample:{row.image}")), 32)
        name = f"{row.image}+{row.seed}+{row.method.replace(' ', '%20')}"
        picture = images.load(tmp_path / "out" / "restored" / f"{name}.png")
        expected = peak_signal_noise_ratio(clean, picture, data_range=1)
        assert row.psnr == pytest.approx(expected, abs=0.02)
    assert (tmp_path / "out" / "comparison.pdf").exists()

    before = (tmp_path / "out" / "runs.csv").read_bytes()
    assert run(tmp_path).returncode == 0
    assert (tmp_path / "out" / "runs.csv").read_bytes() == before

    for flag, message in (("--methods=BM5D", "choose from DIP"), ("--sigma=30", "sigma was 25.0")):
        done = run(tmp_path, flag)
        assert done.returncode == 2
        assert message in done.stderr


def test_only_methods_that_search_need_a_valid_search_config(tmp_path):
    flags = ("--images=sample:moon", "--size=32", "--num_seeds=1", "--num_genotypes=1")
    scripts.succeed("compare", *flags, "--methods=total variation", cwd=tmp_path)
