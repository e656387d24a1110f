"""Test studies: a small dataset that the scripts make, kill, resume and analyze, and its parts."""

import concurrent.futures
import dataclasses
import os
import pathlib
import pickle
import re
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.stats
import scripts
import tiny

import isnas_jax as isnas
from isnas_jax import registries, study
from isnas_jax.fitting import Decision
from isnas_jax.io import cache, images, records
from isnas_jax.running import ignore
from isnas_jax.study import analysis, compaction, store
from isnas_jax.study.plan import run_trial
from isnas_jax.study.work import Work

INPAINTING = registries.TASKS["inpainting"]
DENOISING = registries.TASKS["denoising"]

GENOTYPES = [str(genotype) for genotype in tiny.GENOTYPES[:2]]
METRICS = (
    "psd_db_mse,psd_db_strip_mse,psd_strip_hist_emd,psd_99_bw,"
    "psd db mse,psd db strip mse,psd strip hist emd,psd 99_per_bw"
)
FLAGS = (
    "--genotypes=list.txt",
    "--images=sample:camera,sample:retina",
    "--tasks=denoising:4:6,inpainting:5,super_resolution:4",
    "--factor=2",
    "--baselines=",
    f"--metrics={METRICS}",
    "--stopping=fixed",
    "--size=32",
    "--gray",
    "--square",
    "--channels=4",
    "--num_inits=2",
    "--space=tiny",
    "--extensions=tiny",
)
# For datasets without super-resolution.
FLAGS_WITHOUT_FACTOR = [flag for flag in FLAGS if not flag.startswith("--factor")]


def start(script, *flags, cwd):
    command = [sys.executable, "-m", f"isnas_jax.experiments.{script}", *flags]
    environment = dict(os.environ, PYTHONPATH=str(scripts.TESTS))
    return subprocess.Popen(command, cwd=cwd, env=environment, stderr=subprocess.PIPE, text=True)


def run(script, *flags, cwd):
    done = scripts.run(script, *flags, cwd=cwd)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a list of genotypes and, in "whole", a dataset."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "list.txt").write_text("\n".join(GENOTYPES))
    code, errors = run("make_dataset", *FLAGS, "--output_dir=whole", cwd=folder)
    assert code == 0, errors
    return folder


@pytest.fixture
def small_baselines(small_network):
    """Return a function that gives names to networks that compile quickly."""
    return lambda *names: [
        isnas.Baseline(name, lambda task, **_: small_network()) for name in names
    ]


def is_last_event(event):
    """Return whether a unit has ended; the events of its fit have a larger total."""
    return event.done == event.total == 1


def files(folder):
    return sorted(
        str(path.relative_to(folder))
        for part in ("fits", "scores", "images")
        for path in (folder / part).glob("[!.]*")  # a kill may leave a partial file
    )


def test_dataset_has_a_row_for_each_fit_score_and_image(folder):
    fits = pd.read_parquet(folder / "whole" / "fits")
    assert len(fits) == 2 * 2 * 3
    scores = pd.read_parquet(folder / "whole" / "scores")
    references = {"denoising": 2, "inpainting": 3, "super_resolution": 2}
    assert (scores.groupby("task").size() == pd.Series(references) * 2 * 2 * 2).all()
    assert set(scores["architecture"]) == set(GENOTYPES)
    clean = {
        name: images.resize(images.crop_to_square(images.gray(images.load(f"sample:{name}"))), 32)
        for name in ("camera", "retina")
    }
    for row in fits.itertuples():
        length = {"denoising": 6, "inpainting": 5, "super_resolution": 4}[row.task]
        assert row.iterations == len(row.loss) == len(row.psnr) == length
        assert row.restored_at == (4 if row.task == "inpainting" else 3)
        assert row.best_psnr == max(row.psnr) == row.psnr[row.best_at]
        assert row.best_psnr_ema == max(row.psnr_ema) == row.psnr_ema[row.best_ema_at]
        assert row.restored_psnr == pytest.approx(row.psnr_ema[row.restored_at], abs=1e-4)
        restored = np.frombuffer(row.restored, np.uint8).reshape(32, 32, 1) / 255
        mse = np.square(restored - clean[row.image]).mean()
        assert row.restored_psnr == pytest.approx(-10 * np.log10(mse), abs=0.02)
    stored = pd.read_parquet(folder / "whole" / "images").set_index(["image", "task"])
    for (image, task), row in stored.iterrows():
        case_fits = fits[(fits["image"] == image) & (fits["task"] == task)]
        if task == "super_resolution":
            assert (row["observed_height"], row["observed_width"]) == (16, 16)
            assert case_fits["observed_psnr"].isna().all()
            continue
        pixels = np.frombuffer(row["observed"], np.uint8).reshape(32, 32) / 255
        mse = np.square(pixels - clean[image][..., 0]).mean()
        np.testing.assert_allclose(case_fits["observed_psnr"], -10 * np.log10(mse), atol=0.02)
        if task == "inpainting":
            assert (pixels == 0).mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.thorough
def test_a_dataset_after_three_kills_equals_that_of_one_run(folder):
    delays = np.random.default_rng(5)
    killed, before = folder / "killed", 0
    for _ in range(3):
        process = start("make_dataset", *FLAGS, "--output_dir=killed", cwd=folder)
        while len(files(killed)) <= before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(delays.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        before = len(files(killed))
        assert before < len(files(folder / "whole"))
    code, errors = run("make_dataset", *FLAGS, "--output_dir=killed", cwd=folder)
    assert code == 0, errors
    assert files(killed) == files(folder / "whole")
    for name in files(killed):
        assert (killed / name).read_bytes() == (folder / "whole" / name).read_bytes(), name
    left = [path.name for path in (killed / "work").iterdir()]
    assert all(name.endswith(".lock") for name in left)  # of units that a kill found finished


def test_a_dataset_of_other_flags_is_refused(folder):
    code, errors = run("make_dataset", *FLAGS, "--sigma=30", "--output_dir=whole", cwd=folder)
    assert code == 2
    assert "sigma was 25.0 and is now 30.0" in errors
    (folder / "other.txt").write_text(GENOTYPES[1])
    flags = (*FLAGS, "--genotypes=other.txt", "--output_dir=whole")
    code, errors = run("make_dataset", *flags, cwd=folder)
    assert code == 2
    assert "genotypes" in errors
    assert len(errors.strip().splitlines()) == 1


def test_a_folder_of_another_study_is_refused(tmp_path):
    first = small_study(genotypes=[], baselines=[tiny.TINY], metrics={})
    study.run(first, tmp_path, [])
    clean = np.asarray(first.cases[0].clean)
    for changes, difference in (
        ({"seed": 1}, "seed was 0 and is now 1"),
        ({"genotypes": [tiny.GENOTYPES[0]]}, "genotypes had 0 entries and now has 1"),
        ({"baselines": [tiny.TINY_SKIP]}, r"baselines\.0\.name was 'tiny' and is now 'tiny-skip'"),
        ({"metrics": {"m": registries.METRICS["random"]}}, "metrics.m was None"),
        ({"fit": {"inpainting": isnas.FitConfig(4)}}, r"fit\.inpainting\.iterations was 5"),
        (
            {"cases": [study.pose(0, "camera", 1 - clean, INPAINTING, missing=50)]},
            r"cases\.0\.clean was",
        ),
    ):
        other = dataclasses.replace(first, **changes)
        with pytest.raises(ValueError, match=difference):
            study.run(other, tmp_path, [])
    # A file of another study is refused even in the right folder.
    unit = study.FitUnit("tiny", first.cases[0], 0)
    empty = store.table([], pa.schema([]))
    store.write(tmp_path / store.unit_path(*unit.name), empty, "0123456789abcdef")
    with pytest.raises(ValueError, match="study was '0123456789abcdef'"):
        study.run(first, tmp_path, [unit])


def test_a_worker_computes_the_digest_of_its_own_code(tmp_path):
    work = Work(small_study(), tmp_path)
    assert len(work.digest) == 16
    assert set(vars(pickle.loads(pickle.dumps(work)))) == {"study", "folder"}


def test_different_units_have_different_files():
    case = study.pose(0, "x", np.zeros((32, 32, 1)), INPAINTING, missing=50)
    names = [
        ("x-nas", "dip"),
        ("x", "nas-dip"),
        ("x+dip", "y"),
        ("x", "dip+y"),
        ("x/y", "dip"),
        ("60:01", "60_01"),
        ("60_01", "60:01"),
    ]
    files = {
        store.unit_path(*study.FitUnit(name, dataclasses.replace(case, image=image), 0).name)
        for image, name in names
    }
    assert len(files) == len(names)
    assert all(len(file.parts) == 2 for file in files)


def test_a_unit_that_another_process_computes_comes_last(tmp_path):
    whole = small_study(genotypes=[], baselines=[tiny.TINY], seeds=range(3))
    todo, ended = study.units(whole), []
    name = str(store.unit_path(*todo[0].name)).replace("/", "-").removesuffix(".parquet")

    def report(event):
        if is_last_event(event):
            ended.append(int(event.stage[-1]))

    with records.file_lock(tmp_path / "work" / f"{name}.unit"):
        pool = concurrent.futures.ThreadPoolExecutor(1)
        running = pool.submit(study.run, whole, tmp_path, todo, progress=report, job_fits=3)
        while not ended:
            time.sleep(0.05)
            assert not running.done() or running.result()
    running.result()
    assert ended == [1, 2, 0]


def small_study(**changes):
    clean = images.resize(images.crop_to_square(images.load("sample:camera")), 32)
    fields = {
        "seed": 0,
        "cases": [study.pose(0, "camera", clean, INPAINTING, missing=50)],
        "genotypes": [tiny.GENOTYPES[1]],
        "baselines": [],
        "seeds": [0],
        "network": isnas.NetworkConfig(4),
        "fit": {"inpainting": isnas.FitConfig(5)},
        "follow": {"inpainting": 5},
        "metrics": {"psd_db_mse": isnas.psd_db_mse},
        "space": tiny.SPACE,
    }
    return study.Study(**fields | changes)


def test_a_study_builds_genotypes_and_baselines_by_their_names():
    whole = small_study(baselines=[tiny.TINY])
    (case,) = whole.cases
    for name, genotype in (("tiny", tiny.GENOTYPES[0]), (GENOTYPES[1], tiny.GENOTYPES[1])):
        net = whole.build(name, case.problem)
        assert (net.genotype, net.channels, net.out_channels) == (genotype, 4, 1)


def test_fits_record_validation_errors_and_the_average_of_equation_4(tmp_path):
    config = isnas.FitConfig(45, isnas.LeastValidation(), split=isnas.HoldOut(0.2), debias=True)
    rows = []
    for debias in (True, False):
        fit = {"inpainting": dataclasses.replace(config, debias=debias)}
        whole = small_study(fit=fit, follow={"inpainting": 45})
        assert study.run(whole, tmp_path / str(debias), study.units(whole)) == {}
        rows.append(pd.read_parquet(tmp_path / str(debias) / "fits").iloc[0])
    debiased, biased = rows
    np.testing.assert_allclose(debiased.psnr_biased_ema, biased.psnr_ema[::20], atol=1e-4)
    assert abs(debiased.psnr_ema[40] - biased.psnr_ema[40]) > 0.01
    assert biased.psnr_biased_ema is None
    assert len(debiased.validation) == 45
    assert debiased.restored_at == np.argmin(debiased.criterion)


def test_a_study_runs_from_python_as_documented(tmp_path, monkeypatch):
    page = pathlib.Path(isnas.__file__).parents[1] / "docs" / "study" / "README.md"
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    clean = images.resize(images.load("sample:chelsea"), 32)
    names = {"clean": clean, "genotypes": tiny.GENOTYPES[:2], "space": tiny.SPACE}
    monkeypatch.chdir(tmp_path)
    exec(compile(block.replace("seeds=[0],", "seeds=[0], space=space,"), str(page), "exec"), names)
    assert names["failures"] == {}
    fits = pd.read_parquet(tmp_path / "dataset" / "fits")
    assert list(map(len, fits["loss"])) == [12, 12]
    assert list(fits["restored_at"]) == [9, 9]


def test_events_of_a_run_name_their_unit(tmp_path):
    whole = small_study(baselines=[tiny.TINY])
    todo, events = study.units(whole), []
    assert study.run(whole, tmp_path, todo, progress=events.append) == {}
    assert {event.stage for event in events} == {unit.name for unit in todo}
    for unit in todo:
        *of_fit, last = [event for event in events if event.stage == unit.name]
        assert is_last_event(last)
        if isinstance(unit, study.FitUnit):
            loss = pd.read_parquet(tmp_path / store.unit_path(*unit.name))["loss"][0]
            assert [(e.done, e.total, e.loss) for e in of_fit] == [(5, 5, loss[-1])]
        else:
            assert not of_fit
    # A second run reports at once that all units have ended.
    events.clear()
    assert study.run(whole, tmp_path, todo, progress=events.append) == {}
    assert [event.stage for event in events] == [unit.name for unit in todo]
    assert all(map(is_last_event, events))


def test_shards_whose_files_are_folded_meanwhile_make_the_dataset_of_one_run(
    small_baselines, tmp_path
):
    whole = small_study(genotypes=[], baselines=small_baselines("a", "b", "c"), seeds=range(3))
    todo = study.units(whole)
    study.run(whole, tmp_path / "plain", todo)
    ended, computed, lock = [], [], threading.Lock()

    def report(event):
        if is_last_event(event):
            with lock:
                folded = compaction.compact(tmp_path / "folded", most=1)
                ended.append((event.stage, folded))
        elif event.done == event.total:
            computed.append(event.stage)

    def run_shard(index):
        shard = study.shard(todo, index, 2)
        return study.run(whole, tmp_path / "folded", shard, progress=report)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert [*pool.map(run_shard, range(2))] == [{}, {}]
    names = sorted(unit.name for unit in todo)
    assert sorted(name for name, _ in ended) == sorted(computed) == names
    assert sum(number for _, number in ended) == len(todo)
    assert not list((tmp_path / "folded" / "fits").glob("*.parquet"))
    plain, folded = (
        pd.read_parquet(tmp_path / name / "fits")
        .sort_values(["architecture", "seed"])
        .reset_index(drop=True)
        for name in ("plain", "folded")
    )
    pd.testing.assert_frame_equal(folded, plain, check_exact=True)
    # No unit is computed again, and a file that a kill left is removed if its rows are folded.
    file = next((tmp_path / "plain" / "fits").glob("*.parquet"))
    (tmp_path / "folded" / "fits" / file.name).write_bytes(file.read_bytes())
    computed.clear()
    assert study.run(whole, tmp_path / "folded", todo) == {}
    assert not computed
    assert compaction.compact(tmp_path / "folded") == 0
    assert len(pd.read_parquet(tmp_path / "folded" / "fits")) == len(todo)
    with pytest.raises(ValueError, match="holds no study"):
        compaction.compact(tmp_path)


def test_a_plan_counts_unfinished_units_and_tries_some_of_them(small_baselines, tmp_path):
    whole = small_study(genotypes=[], baselines=small_baselines("a", "b"), seeds=range(3))
    todo = study.units(whole)
    plan = study.plan(whole, todo)
    assert (plan.fits, plan.scores, plan.iterations, plan.programs) == (6, 0, 30, 2)
    assert len(plan.trials) == plan.workers == 2
    assert all(trial.memory > 4 * 8 * 64**2 for trial in plan.trials)
    compiling, step = (
        np.mean([getattr(trial, name) for trial in plan.trials]) for name in ("compiling", "step")
    )
    assert plan.hours == pytest.approx((2 * compiling + 30 * step) / 2 / 3600)
    assert study.unfinished(whole, tmp_path, todo) == todo
    study.run(whole, tmp_path, todo[:4])
    assert study.unfinished(whole, tmp_path, todo) == todo[4:]
    assert study.plan(whole, []).fits == 0


def test_a_trial_compiles_the_steps_once_and_includes_scores(caplog):
    whole = small_study()
    (genotype,), (case,) = whole.genotypes, whole.cases
    with jax.log_compiles():
        trial = run_trial(ignore, whole, str(genotype), case, 1)
    assert sum("XLA compilation of jit(advance)" in line for line in caplog.messages) == 1
    assert trial.memory > 4 * 3 * 64**2
    assert trial.scoring > 0


def test_curves_are_read_from_files_of_units_and_from_folded_files(small_baselines, tmp_path):
    clean = np.random.default_rng(0).random((32, 32, 1)).astype(np.float32)
    cases = [study.pose(0, image, clean, INPAINTING, missing=50) for image in "ab"]
    whole = small_study(
        genotypes=[], baselines=small_baselines("a", "b"), seeds=range(2), cases=cases
    )
    study.run(whole, tmp_path, study.units(whole))
    fits = pd.read_parquet(tmp_path / "fits")
    rows = fits[(fits["image"] == "b") & (fits["seed"] == 1)].set_index("architecture")["loss"]
    dataset = analysis.Dataset(tmp_path, fits, pd.DataFrame(), 0)
    pd.testing.assert_series_equal(dataset.large("loss", "inpainting", "b", 1), rows)
    contents = {path: path.read_bytes() for path in (tmp_path / "fits").glob("*.parquet")}
    compaction.compact(tmp_path)
    pd.testing.assert_series_equal(dataset.large("loss", "inpainting", "b", 1), rows)
    # Files of other cases are not read, and rows that two files hold count once.
    for path, content in contents.items():
        path.write_bytes(content if "+b+" in path.name else b"nothing")
    pd.testing.assert_series_equal(dataset.large("loss", "inpainting", "b", 1), rows)


def test_units_do_not_depend_on_other_units(folder):
    """A part of the dataset, with a metric and a failing baseline of an extension."""
    (folder / "one.txt").write_text(GENOTYPES[1])
    (folder / "mine.py").write_text(
        "from isnas_jax import Baseline, registries\n\n"
        "registries.METRICS['brightness'] = lambda observed, output: output.mean()\n"
        "registries.BASELINES['broken'] = Baseline('broken', lambda task, **_: 1 / 0)\n"
    )
    flags = (
        "--extensions=tiny,mine",
        f"--metrics={METRICS},brightness",
        "--genotypes=one.txt",
        "--images=sample:retina",
        "--tasks=inpainting:5",
        "--baselines=broken",
        "--output_dir=part",
    )
    code, errors = run("make_dataset", *FLAGS_WITHOUT_FACTOR, *flags, cwd=folder)
    assert code == 3, errors
    failed = "failed: fits+inpainting+retina+broken+0: ZeroDivisionError: division by zero"
    assert errors.splitlines()[-1] == failed
    assert len(files(folder / "part")) == 3
    for name in files(folder / "part"):
        whole, part = (pd.read_parquet(folder / dataset / name) for dataset in ("whole", "part"))
        whole = whole[(whole["image"] == "retina") & (whole["task"] == "inpainting")]
        if name.startswith("scores"):
            assert part.pop("brightness").between(0.2, 0.8).all()
        pd.testing.assert_frame_equal(part, whole.reset_index(drop=True), check_exact=True)


def test_scores_compare_outputs_with_the_observation_and_the_clean_image(folder):
    (case,) = small_study().cases
    genotype = tiny.GENOTYPES[1]
    scores = pd.read_parquet(folder / "whole" / "scores")
    scores = scores[
        (scores["architecture"] == str(genotype))
        & (scores["image"] == "camera")
        & (scores["task"] == "inpainting")
    ].pivot(index="output", columns="reference", values="psd_db_mse")
    net = tiny.SPACE.build(genotype, out_channels=1, channels=4)
    key, inits = study.key_of(0, "score"), isnas.RandomInits(2)
    outputs = isnas.random_outputs(key, net, case.problem.shape, inits)
    outputs = np.asarray(outputs, np.float64)[..., 0]
    clean, observed = (
        np.asarray(x, np.float64)[..., 0] for x in (case.clean, case.problem.observed)
    )
    mask = np.asarray(case.problem.weights)[..., 0]

    def distance(a, b):
        a, b = (20 * np.log10(np.abs(np.fft.fft2(x)) / 1024) for x in (a, b))
        return np.square(a - b).mean()

    for index, output in enumerate(outputs):
        assert scores.loc[index, "observed"] == pytest.approx(distance(observed, output))
        assert scores.loc[index, "clean"] == pytest.approx(distance(clean, output))
        assert scores.loc[index, "masked"] == pytest.approx(distance(observed, mask * output))


def test_metrics_of_a_study_match_the_published_code(reference):
    arrays = reference("metrics_camera_64x64")
    problem = isnas.denoising(arrays["image"].transpose(1, 2, 0))
    outputs = arrays["outputs"].transpose(0, 2, 3, 1)
    values = isnas.score_outputs(outputs, problem, registries.PUBLISHED_METRICS)
    names = [key for key in arrays if key.startswith("metric/")]
    assert len(names) == 13
    for key in names:
        name = key.removeprefix("metric/")
        np.testing.assert_allclose(values[name], arrays[key], 1e-3, err_msg=name)


def test_failed_units_are_recorded_and_run_again_on_request(
    small_network, small_baselines, tmp_path
):
    # Files, because a study's identity includes the data that its functions use.
    enough_memory, builds = str(tmp_path / "enough_memory"), str(tmp_path / "builds")

    class Broken(small_network):
        def __call__(self, x):
            return np.nan * super().__call__(x)

    def build_fragile(task, **_):
        with open(builds, "a") as file:
            file.write(f"{task}\n")
        if not os.path.exists(enough_memory):
            raise MemoryError("too  large")
        return small_network()

    def count_builds():
        with open(builds) as file:
            return len(file.readlines())

    baselines = [
        isnas.Baseline("broken", lambda task, **_: Broken()),
        isnas.Baseline("fragile", build_fragile),
        *small_baselines("sound"),
    ]
    whole, folder = small_study(genotypes=[], baselines=baselines), tmp_path / "dataset"
    todo = study.units(whole)
    names = ["+".join(unit.name) for unit in todo]

    failed = study.run(whole, folder, todo)
    assert list(failed) == names[:2]
    assert "FloatingPointError: the loss of" in failed[names[0]]
    assert "is not finite at iteration 0" in failed[names[0]]
    assert failed[names[1]] == "MemoryError: too large"
    assert study.run(whole, folder, todo) == failed
    assert count_builds() == 1
    pathlib.Path(enough_memory).touch()
    failed_again = study.run(whole, folder, todo, retry_failed=True)
    assert failed_again == {names[0]: failed[names[0]]}
    assert count_builds() == 2
    fits = pd.read_parquet(folder / "fits")
    assert set(fits["architecture"]) == {"fragile", "sound"}
    reasons = pd.read_parquet(folder / "failures" / "fits")["reason"]
    assert list(reasons) == [*failed_again.values()]


@dataclasses.dataclass(frozen=True)
class RaiseForBright:
    """A stopping rule that raises an error for a bright image."""

    def init(self, problem, iterations):
        return ()

    def update(self, state, step):
        def check(brightness):
            if brightness > 0.9:
                raise ValueError("too bright")
            return brightness

        brightness = step.problem.observed.mean()
        checked = jax.pure_callback(check, brightness, brightness)
        return state, Decision(jnp.array(True), jnp.array(False), checked)


def test_a_failing_fit_does_not_fail_the_others_of_its_job(small_baselines, tmp_path):
    clean_images = {"dark": np.zeros((32, 32, 1)), "bright": np.ones((32, 32, 1))}
    clean_images["darker"] = clean_images["dark"]
    whole = small_study(
        cases=[study.pose(0, *image, DENOISING, sigma=5) for image in clean_images.items()],
        genotypes=[],
        baselines=small_baselines("small"),
        fit={"denoising": isnas.FitConfig(2, RaiseForBright())},
        follow={"denoising": 2},
    )
    ((name, reason),) = study.run(whole, tmp_path, study.units(whole), job_fits=3).items()
    assert name == "fits+denoising+bright+small+0"
    assert "too bright" in reason
    assert set(pd.read_parquet(tmp_path / "fits")["image"]) == {"dark", "darker"}
    assert not list((tmp_path / "work").iterdir())


def test_shards_can_claim_their_folder_at_the_same_time(tmp_path):
    config = {"size": 64}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for claimed in pool.map(lambda _: cache.claim_folder(tmp_path, config), range(400)):
            assert [file.name for file in claimed.glob("*.json")] == ["config.json"]
    assert len(list(tmp_path.iterdir())) == 1


def test_shards_divide_the_architectures():
    todo = study.units(
        small_study(genotypes=tiny.GENOTYPES[:5], baselines=[tiny.TINY], seeds=range(2))
    )
    assert len(todo) == 6 * 2 + 5
    shards = [study.shard(todo, index, 3) for index in range(3)]
    assert sorted(unit.name for shard in shards for unit in shard) == sorted(
        unit.name for unit in todo
    )
    assert [len({unit.architecture for unit in shard}) for shard in shards] == [2, 2, 2]
    with pytest.raises(ValueError, match="shard 3 of 3"):
        study.shard(todo, 3, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"genotypes": tiny.GENOTYPES[:1] * 2}, "nearest:0 occurs twice"),
        ({"baselines": [tiny.TINY, tiny.TINY]}, "tiny occurs twice"),
        ({"baselines": ["dip"]}, "baseline 'dip' is not a baseline, such as isnas_jax.dip"),
        ({"seeds": 1}, "seeds 1 must"),
        ({"seeds": []}, "seeds \\[\\] must"),
        ({"follow": {"inpainting": 3}}, "cannot be followed"),
    ],
)
def test_impossible_studies_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small_study(**changes)


def test_a_case_takes_a_task_and_not_its_name():
    with pytest.raises(ValueError, match="task 'denoising' is a name"):
        study.pose(0, "camera", np.zeros((32, 32, 1)), "denoising", sigma=5)


def test_one_command_writes_all_tables_and_figures(folder):
    flags = ("--dataset=whole", "--output_dir=report", "--resamples=20")
    code, errors = run("analyze", *flags, cwd=folder)
    assert code == 0, errors
    names = {path.name for path in (folder / "report").iterdir()}
    outcomes = ("optimal_stopping_iteration", "best_PSNR", "PSNR_increase")
    for task in ("denoising", "inpainting", "super_resolution"):
        for figure in ("histograms", "qualitative"):
            assert {f"{figure}-{task}.png", f"{figure}-{task}.pdf"} <= names
        if task == "super_resolution":
            continue  # its observations have another size, and no PSNR
        assert {f"figure1-{task}.png", f"figure1-{task}.pdf"} <= names
        assert {f"figure2-{task}-{image}.png" for image in ("camera", "retina")} <= names
        tables = [f"table1-{task}-{outcome}" for outcome in outcomes]
        tables += [f"transfer-{task}", f"agreement-{task}", "published-kendall_psnr", "histograms"]
        for table in tables:
            assert {f"{table}.{suffix}" for suffix in ("txt", "md", "tex", "csv")} <= names

    fits = pd.read_parquet(folder / "whole" / "fits")
    denoised = fits[(fits["task"] == "denoising") & fits["architecture"].str.contains(":")]
    best = denoised.pivot(index="architecture", columns="image", values="best_psnr_ema")
    agreement = pd.read_csv(
        folder / "report" / "agreement-denoising.csv", index_col=["ranking", "image"]
    )
    tau = scipy.stats.kendalltau(best["camera"], best["retina"]).statistic
    assert agreement.loc[("best PSNR", "camera"), "retina"] == pytest.approx(tau)

    long = pd.read_csv(folder / "report" / "table1.csv")
    scores = pd.read_parquet(folder / "whole" / "scores")
    for row in long[long["image"] != "mean"].itertuples():
        compared = scores[
            (scores["task"] == row.task)
            & (scores["image"] == row.image)
            & (scores["reference"] == row.reference)
        ]
        score = compared.groupby("architecture")[row.metric].mean()
        fit = fits[(fits["task"] == row.task) & (fits["image"] == row.image)]
        fit = fit.set_index("architecture").loc[score.index]
        outcome = {
            "optimal stopping iteration": fit["best_ema_at"],
            "best PSNR": fit["best_psnr_ema"],
            "PSNR increase": fit["best_psnr_ema"],
        }[row.outcome]
        tau = scipy.stats.kendalltau(score, outcome).statistic
        assert row.tau == pytest.approx(tau, nan_ok=True)
        assert row.n == 2


def test_a_dataset_with_few_metrics_is_analyzed(folder):
    flags = ("--metrics=psd_db_strip_mse", "--genotypes=one.txt", "--output_dir=few")
    (folder / "one.txt").write_text(GENOTYPES[1])
    code, errors = run(
        "make_dataset", *FLAGS_WITHOUT_FACTOR, *flags, "--tasks=denoising:4:6", cwd=folder
    )
    assert code == 0, errors
    flags = ("--dataset=few", "--output_dir=few_report", "--resamples=20")
    code, errors = run("analyze", *flags, cwd=folder)
    assert code == 0, errors
    names = {path.name for path in (folder / "few_report").iterdir()}
    assert {"table1.csv", "agreement-denoising.csv", "qualitative-denoising.png"} <= names
    assert not any(name.startswith("published") for name in names)


def test_errors_of_an_analysis_are_one_line(folder):
    (folder / "failed" / "failures").mkdir(parents=True)
    (folder / "failed" / "failures" / "a.parquet").touch()
    for flags, message in (
        (["--dataset=nowhere"], "is no dataset"),
        (["--dataset=failed"], "holds no fits: 1 units failed"),
        (["--dataset=whole", "--metric=psd"], "choose from psd_db_mse"),
    ):
        code, errors = run("analyze", *flags, "--output_dir=bad", cwd=folder)
        assert code == 2
        assert message in errors
        assert len(errors.strip().splitlines()) == 1
