"""A small dataset made and analysed by the scripts, killed on the way, and by its parts."""

import concurrent.futures
import dataclasses
import os
import pickle
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
from isnas_jax import study
from isnas_jax.fitting import Decision
from isnas_jax.io import images, records
from isnas_jax.running import silent
from isnas_jax.study import analysis, compaction, store
from isnas_jax.study.plan import run_trial
from isnas_jax.study.work import Work

FEW = pa.schema([])

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


OF_ONE_TASK = [flag for flag in FLAGS if not flag.startswith("--factor")]


def start(script, *flags, cwd):
    command = [sys.executable, "-m", f"isnas_jax.experiments.{script}", *flags]
    environment = dict(os.environ, PYTHONPATH=str(scripts.TESTS))
    return subprocess.Popen(command, cwd=cwd, env=environment, stderr=subprocess.PIPE, text=True)


def run(script, *flags, cwd):
    done = scripts.run(script, *flags, cwd=cwd)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("study")
    (place / "list.txt").write_text("\n".join(GENOTYPES))
    code, errors = run("make_dataset", *FLAGS, "--output_dir=whole", cwd=place)
    assert code == 0, errors
    return place


def files(folder):
    return sorted(
        str(path.relative_to(folder))
        for part in ("fits", "scores", "images")
        for path in (folder / part).glob("*")
    )


def test_dataset_has_a_row_for_everything(place):
    fits = pd.read_parquet(place / "whole" / "fits")
    assert len(fits) == 2 * 2 * 3
    assert len(pd.read_parquet(place / "whole" / "timings")) == 2 * 2 * 3 + 2
    scores = pd.read_parquet(place / "whole" / "scores")
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
        picture = np.frombuffer(row.restored, np.uint8).reshape(32, 32, 1) / 255
        mse = np.square(picture - clean[row.image]).mean()
        assert row.restored_psnr == pytest.approx(-10 * np.log10(mse), abs=0.02)
    stored = pd.read_parquet(place / "whole" / "images").set_index(["image", "task"])
    for (image, task), row in stored.iterrows():
        of_case = fits[(fits["image"] == image) & (fits["task"] == task)]
        if task == "super_resolution":
            assert (row["observed_height"], row["observed_width"]) == (16, 16)
            assert of_case["observed_psnr"].isna().all()
            continue
        pixels = np.frombuffer(row["observed"], np.uint8).reshape(32, 32) / 255
        mse = np.square(pixels - clean[image][..., 0]).mean()
        np.testing.assert_allclose(of_case["observed_psnr"], -10 * np.log10(mse), atol=0.02)
        if task == "inpainting":
            assert (pixels == 0).mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.thorough
def test_killed_three_times_the_dataset_is_that_of_an_unbroken_run(place):
    moments = np.random.default_rng(5)
    broken, before = place / "broken", 0
    for _ in range(3):
        process = start("make_dataset", *FLAGS, "--output_dir=broken", cwd=place)
        while len(files(broken)) <= before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        before = len(files(broken))
        assert before < len(files(place / "whole"))
    code, errors = run("make_dataset", *FLAGS, "--output_dir=broken", cwd=place)
    assert code == 0, errors
    assert files(broken) == files(place / "whole")
    for name in files(broken):
        assert (broken / name).read_bytes() == (place / "whole" / name).read_bytes(), name
    assert not list((broken / "work").iterdir())


def test_a_run_with_other_settings_is_refused(place):
    code, errors = run("make_dataset", *FLAGS, "--sigma=30", "--output_dir=whole", cwd=place)
    assert code == 2
    assert "sigma was 25.0 and is now 30.0" in errors
    (place / "other.txt").write_text(GENOTYPES[1])
    flags = (*FLAGS, "--genotypes=other.txt", "--output_dir=whole")
    code, errors = run("make_dataset", *flags, cwd=place)
    assert code == 2
    assert "genotypes" in errors
    assert len(errors.strip().splitlines()) == 1


def test_the_library_refuses_another_study_and_names_the_difference(tmp_path):
    first = small_study(genotypes=[], baselines=["tiny"], metrics={})
    study.run(first, tmp_path, [])
    clean = np.asarray(first.cases[0].clean)
    for changes, difference in (
        ({"seed": 1}, "seed was 0 and is now 1"),
        (
            {"genotypes": [tiny.GENOTYPES[0]]},
            "genotypes was of 0 entries and is now of 1",
        ),
        ({"metrics": {"m": isnas.METRICS["random"]}}, "metrics.m was None"),
        ({"fit": {"inpainting": isnas.FitConfig(4)}}, r"fit\.inpainting\.iterations was 5"),
        (
            {"cases": [study.pose(0, "camera", 1 - clean, "inpainting", missing=50)]},
            r"cases\.0\.clean was",
        ),
    ):
        other = dataclasses.replace(first, **changes)
        with pytest.raises(ValueError, match=difference):
            study.run(other, tmp_path, [])
    # A file of another study is refused even where the folder is the right one.
    unit = study.FitUnit("tiny", first.cases[0], 0)
    store.write(tmp_path / store.unit_path(*unit.name), store.table([], FEW), "0123456789abcdef")
    with pytest.raises(ValueError, match="study was '0123456789abcdef'"):
        study.run(first, tmp_path, [unit])


def test_a_worker_computes_the_digest_of_its_own_code(tmp_path):
    work = Work(small_study(), tmp_path)
    assert len(work.digest) == 16
    assert set(vars(pickle.loads(pickle.dumps(work)))) == {"study", "folder"}


def test_no_two_units_share_a_file():
    case = study.pose(0, "x", np.zeros((32, 32, 1)), "inpainting", missing=50)
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


def test_a_unit_that_another_is_at_comes_last(tmp_path):
    whole = small_study(genotypes=[], baselines=["tiny"], seeds=3)
    todo, done = study.units(whole), []
    held = (
        tmp_path / "work" / (str(store.unit_path(*todo[0].name)).replace("/", "-")[:-8] + ".unit")
    )
    with records.file_lock(held):
        pool = concurrent.futures.ThreadPoolExecutor(1)
        report = lambda unit, news: done.append(unit.seed) if news is None else None  # noqa: E731
        running = pool.submit(study.run, whole, tmp_path, todo, report=report, most=3)
        while not done:
            time.sleep(0.05)
            assert not running.done() or running.result()
    running.result()
    assert done == [1, 2, 0]


def small_study(**changes):
    clean = images.resize(images.crop_to_square(images.load("sample:camera")), 32)
    config = {
        "seed": 0,
        "cases": [study.pose(0, "camera", clean, "inpainting", missing=50)],
        "genotypes": [tiny.GENOTYPES[1]],
        "baselines": [],
        "seeds": 1,
        "network": isnas.NetworkConfig(4),
        "fit": {"inpainting": isnas.FitConfig(5)},
        "follow": {"inpainting": 5},
        "metrics": {"psd_db_mse": isnas.METRICS["psd_db_mse"]},
        "space": tiny.SPACE,
    }
    return study.Study(**config | changes)


def test_folded_in_the_middle_two_shards_make_the_dataset_of_one_run(
    monkeypatch, small_network, tmp_path
):
    for name in ("one", "two", "three"):
        monkeypatch.setitem(isnas.BASELINES, name, lambda task, **_: small_network())
    whole = small_study(genotypes=[], baselines=["one", "two", "three"], seeds=3)
    todo = study.units(whole)
    study.run(whole, tmp_path / "plain", todo)
    computed = []

    def shard(index):
        def report(unit, news):
            if news is None:
                with lock:
                    folded = compaction.compact(tmp_path / "folded", most=1)
                    done.append((unit.name, folded))
            elif news.iteration == news.iterations:
                computed.append(unit.name)

        ours = study.shard(todo, index, 2)
        return study.run(whole, tmp_path / "folded", ours, report=report)

    done, lock = [], threading.Lock()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert [*pool.map(shard, range(2))] == [{}, {}]
    assert sorted(name for name, _ in done) == sorted(unit.name for unit in todo)
    assert sum(number for _, number in done) == len(todo)
    assert not list((tmp_path / "folded" / "fits").glob("*.parquet"))
    plain, folded = (
        {
            part: pd.read_parquet(tmp_path / name / part).sort_values(key).reset_index(drop=True)
            for part, key in (("fits", ["architecture", "seed"]), ("timings", ["unit"]))
        }
        for name in ("plain", "folded")
    )
    pd.testing.assert_frame_equal(folded["fits"], plain["fits"], check_exact=True)
    assert list(folded["timings"]["unit"]) == list(plain["timings"]["unit"])
    # Nothing is computed again; what a kill left twice is removed the next time.
    for file in ("fits", "timings/fits"):
        left = next((tmp_path / "plain" / file).glob("*.parquet"))
        (tmp_path / "folded" / file / left.name).write_bytes(left.read_bytes())
    computed.clear()
    assert study.run(whole, tmp_path / "folded", todo) == {}
    assert not computed
    assert compaction.compact(tmp_path / "folded") == 0
    for part in ("fits", "timings"):
        assert len(pd.read_parquet(tmp_path / "folded" / part)) == len(todo)
    with pytest.raises(ValueError, match="holds no study"):
        compaction.compact(tmp_path)


def test_a_plan_counts_what_there_is_to_do_and_tries_some_of_it(
    monkeypatch, small_network, tmp_path
):
    for name in ("one", "two"):
        monkeypatch.setitem(isnas.BASELINES, name, lambda task, **_: small_network())
    whole = small_study(genotypes=[], baselines=["one", "two"], seeds=3)
    todo = study.units(whole)
    plan = study.plan(whole, todo)
    assert (plan.fits, plan.scores, plan.iterations, plan.programs) == (6, 0, 30, 2)
    assert len(plan.trials) == plan.workers == 2
    # The dense layers alone: 2 x (2 x 8 + 8 x 1) operations a pixel, and twice that backwards.
    assert all(trial.operations > 3 * 48 * 64**2 for trial in plan.trials)
    assert all(trial.memory > 4 * 8 * 64**2 for trial in plan.trials)
    compiling, step = (
        np.mean([getattr(trial, name) for trial in plan.trials]) for name in ("compiling", "step")
    )
    assert plan.hours == pytest.approx((2 * compiling + 30 * step) / 2 / 3600)
    assert study.unfinished(whole, tmp_path, todo) == todo
    study.run(whole, tmp_path, todo[:4])
    assert study.unfinished(whole, tmp_path, todo) == todo[4:]
    assert study.plan(whole, []).fits == 0


def test_a_trial_compiles_the_steps_once_and_takes_scores_of_all_cases(caplog):
    whole = small_study()
    (genotype,), (case,) = whole.genotypes, whole.cases
    with jax.log_compiles():
        trial = run_trial(silent, whole, str(genotype), case, 1)
    assert sum("XLA compilation of jit(_advance)" in line for line in caplog.messages) == 1
    assert trial.memory > 4 * 3 * 64**2
    assert trial.scoring > 0


def test_curves_of_a_case_are_in_its_units_files_or_in_folded_ones(
    monkeypatch, small_network, tmp_path
):
    for name in ("one", "two"):
        monkeypatch.setitem(isnas.BASELINES, name, lambda task, **_: small_network())
    clean = np.random.default_rng(0).random((32, 32, 1)).astype(np.float32)
    cases = [study.pose(0, image, clean, "inpainting", missing=50) for image in "ab"]
    whole = small_study(genotypes=[], baselines=["one", "two"], seeds=2, cases=cases)
    study.run(whole, tmp_path, study.units(whole))
    rows = pd.read_parquet(tmp_path / "fits")
    rows = rows[(rows["image"] == "b") & (rows["seed"] == 1)].set_index("architecture")["loss"]
    dataset = analysis.Dataset(tmp_path, pd.read_parquet(tmp_path / "fits"), pd.DataFrame(), 0)
    pd.testing.assert_series_equal(dataset.large("loss", "inpainting", "b", 1), rows)
    kept = {path: path.read_bytes() for path in (tmp_path / "fits").glob("*.parquet")}
    compaction.compact(tmp_path)
    pd.testing.assert_series_equal(dataset.large("loss", "inpainting", "b", 1), rows)
    # Other cases' files are not looked into, and what is there twice counts once.
    for path, content in kept.items():
        path.write_bytes(content if "+b+" in path.name else b"nothing")
    pd.testing.assert_series_equal(dataset.large("loss", "inpainting", "b", 1), rows)


def test_units_are_the_same_alone_as_in_company(place):
    """One genotype, image and task; a metric of the user's and a network that fails besides."""
    (place / "one.txt").write_text(GENOTYPES[1])
    (place / "mine.py").write_text(
        "import isnas_jax\n\n"
        "isnas_jax.METRICS['brightness'] = lambda observed, output: output.mean()\n"
        "isnas_jax.BASELINES['broken'] = lambda task, **_: 1 / 0\n"
    )
    alone = (
        "--extensions=tiny,mine",
        f"--metrics={METRICS},brightness",
        "--genotypes=one.txt",
        "--images=sample:retina",
        "--tasks=inpainting:5",
        "--baselines=broken",
        "--output_dir=alone",
    )
    code, errors = run("make_dataset", *OF_ONE_TASK, *alone, cwd=place)
    assert code == 3, errors
    failed = "failed: fits+inpainting+retina+broken+0: ZeroDivisionError: division by zero"
    assert errors.splitlines()[-1] == failed
    assert len(files(place / "alone")) == 3
    for name in files(place / "alone"):
        whole, found = (pd.read_parquet(place / folder / name) for folder in ("whole", "alone"))
        same = (whole["image"] == "retina") & (whole["task"] == "inpainting")
        if name.startswith("scores"):
            assert found.pop("brightness").between(0.2, 0.8).all()
        pd.testing.assert_frame_equal(found, whole[same].reset_index(drop=True), check_exact=True)


def test_scores_compare_outputs_with_the_observation_and_the_clean_image(place):
    (case,) = small_study().cases
    genotype = tiny.GENOTYPES[1]
    found = pd.read_parquet(place / "whole" / "scores")
    found = found[
        (found["architecture"] == str(genotype))
        & (found["image"] == "camera")
        & (found["task"] == "inpainting")
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
        assert found.loc[index, "observed"] == pytest.approx(distance(observed, output))
        assert found.loc[index, "clean"] == pytest.approx(distance(clean, output))
        assert found.loc[index, "masked"] == pytest.approx(distance(observed, mask * output))


def test_metrics_of_a_study_match_the_published_code(reference):
    arrays = reference("metrics_camera_64x64")
    problem = isnas.denoising(arrays["image"].transpose(1, 2, 0))
    outputs = arrays["outputs"].transpose(0, 2, 3, 1)
    found = isnas.evaluate(outputs, problem, isnas.PUBLISHED_METRICS)
    names = [key for key in arrays if key.startswith("metric/")]
    assert len(names) == 13
    for key in names:
        values = found[key.removeprefix("metric/")]
        np.testing.assert_allclose(values, arrays[key], 1e-3, err_msg=key)


def test_what_fails_is_written_down_and_tried_again_when_asked(
    monkeypatch, small_network, tmp_path
):
    broken, tried = [True], []

    class Broken(small_network):
        def __call__(self, x):
            return np.nan * super().__call__(x)

    def fragile(task, **widths):
        tried.append(task)
        if broken:
            raise MemoryError("too  large")
        return small_network()

    monkeypatch.setitem(isnas.BASELINES, "broken", lambda task, **widths: Broken())
    monkeypatch.setitem(isnas.BASELINES, "fragile", fragile)
    monkeypatch.setitem(isnas.BASELINES, "sound", lambda task, **widths: small_network())
    whole = small_study(genotypes=[], baselines=["broken", "fragile", "sound"])
    todo = study.units(whole)
    names = ["+".join(unit.name) for unit in todo]

    failed = study.run(whole, tmp_path, todo)
    assert list(failed) == names[:2]
    assert "FloatingPointError: the loss of" in failed[names[0]]
    assert "is not finite at iteration 0" in failed[names[0]]
    assert failed[names[1]] == "MemoryError: too large"
    assert study.run(whole, tmp_path, todo) == failed
    assert len(tried) == 1
    broken.clear()
    again = study.run(whole, tmp_path, todo, retry_failed=True)
    assert again == {names[0]: failed[names[0]]}
    assert len(tried) == 2
    fits = pd.read_parquet(tmp_path / "fits")
    assert set(fits["architecture"]) == {"fragile", "sound"}
    assert list(pd.read_parquet(tmp_path / "failures" / "fits")["reason"]) == [*again.values()]


@dataclasses.dataclass(frozen=True)
class Picky:
    """A rule that breaks at the sight of a bright image."""

    def init(self, problem):
        return ()

    def update(self, state, step):
        def look(brightness):
            if brightness > 0.9:
                raise ValueError("too bright")
            return brightness

        brightness = step.problem.observed.mean()
        seen = jax.pure_callback(look, brightness, brightness)
        return state, Decision(jnp.array(True), jnp.array(False), seen)


def test_of_fits_that_a_worker_takes_at_once_one_fails_alone(monkeypatch, small_network, tmp_path):
    monkeypatch.setitem(isnas.BASELINES, "small", lambda task, **_: small_network())
    clean_images = {"dark": np.zeros((32, 32, 1)), "bright": np.ones((32, 32, 1))}
    clean_images["darker"] = clean_images["dark"]
    cases = [study.pose(0, *image, "denoising", sigma=5) for image in clean_images.items()]
    fit = {"denoising": isnas.FitConfig(2, Picky())}
    whole = small_study(
        cases=cases, genotypes=[], baselines=["small"], fit=fit, follow={"denoising": 2}
    )
    (failed,) = study.run(whole, tmp_path, study.units(whole), most=3).items()
    assert failed[0] == "fits+denoising+bright+small+0"
    assert "too bright" in failed[1]
    assert set(pd.read_parquet(tmp_path / "fits")["image"]) == {"dark", "darker"}
    assert not list((tmp_path / "work").iterdir())


def test_shares_may_open_their_folder_at_the_same_moment(tmp_path):
    config = {"size": 64}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for opened in pool.map(lambda _: records.claim_folder(tmp_path, config), range(400)):
            assert [file.name for file in opened.glob("*.json")] == ["config.json"]
    assert len(list(tmp_path.iterdir())) == 1


def test_shares_divide_the_work_by_architecture():
    todo = study.units(small_study(genotypes=tiny.GENOTYPES[:5], baselines=["tiny"], seeds=2))
    assert len(todo) == 6 * 2 + 5
    shares = [study.shard(todo, index, 3) for index in range(3)]
    assert sorted(unit.name for share in shares for unit in share) == sorted(
        unit.name for unit in todo
    )
    assert [len({unit.architecture for unit in share}) for share in shares] == [2, 2, 2]
    with pytest.raises(ValueError, match="share 3 of 3"):
        study.shard(todo, 3, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"genotypes": tiny.GENOTYPES[:1] * 2}, "is there twice"),
        ({"baselines": ["unet"]}, "choose from dip"),
        ({"seeds": 0}, "seeds 0"),
        ({"follow": {"inpainting": 3}}, "cannot be followed"),
    ],
)
def test_studies_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        small_study(**changes)


def test_every_table_and_figure_comes_out_of_one_command(place):
    flags = ("--dataset=whole", "--output_dir=report", "--resamples=20")
    code, errors = run("analyze", *flags, cwd=place)
    assert code == 0, errors
    names = {path.name for path in (place / "report").iterdir()}
    outcomes = ("optimal_stopping_iteration", "best_PSNR", "PSNR_increase")
    for task in ("denoising", "inpainting", "super_resolution"):
        for figure in ("histograms", "qualitative"):
            assert {f"{figure}-{task}.png", f"{figure}-{task}.pdf"} <= names
        if task == "super_resolution":
            continue  # whose observation has no PSNR to increase
        assert {f"figure1-{task}.png", f"figure1-{task}.pdf"} <= names
        assert {f"figure2-{task}-{image}.png" for image in ("camera", "retina")} <= names
        tables = [f"table1-{task}-{outcome}" for outcome in outcomes]
        tables += [f"transfer-{task}", f"agreement-{task}", "published-kendall_psnr", "histograms"]
        for table in tables:
            assert {f"{table}.{suffix}" for suffix in ("txt", "md", "tex", "csv")} <= names

    fits = pd.read_parquet(place / "whole" / "fits")
    denoised = fits[(fits["task"] == "denoising") & fits["architecture"].str.contains(":")]
    reached = denoised.pivot(index="architecture", columns="image", values="best_psnr_ema")
    agreement = pd.read_csv(place / "report" / "agreement-denoising.csv", index_col=["of", "image"])
    tau = scipy.stats.kendalltau(reached["camera"], reached["retina"]).statistic
    assert agreement.loc[("best PSNR", "camera"), "retina"] == pytest.approx(tau)

    long = pd.read_csv(place / "report" / "table1.csv")
    scores = pd.read_parquet(place / "whole" / "scores")
    for row in long[long["image"] != "mean"].itertuples():
        these = scores[
            (scores["task"] == row.task)
            & (scores["image"] == row.image)
            & (scores["reference"] == row.reference)
        ]
        score = these.groupby("architecture")[row.metric].mean()
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


def test_a_dataset_of_few_metrics_is_analysed_as_far_as_it_goes(place):
    flags = ("--metrics=psd_db_strip_mse", "--genotypes=one.txt", "--output_dir=few")
    (place / "one.txt").write_text(GENOTYPES[1])
    code, errors = run("make_dataset", *OF_ONE_TASK, *flags, "--tasks=denoising:4:6", cwd=place)
    assert code == 0, errors
    analysis = ("--dataset=few", "--output_dir=few_report", "--resamples=20")
    code, errors = run("analyze", *analysis, cwd=place)
    assert code == 0, errors
    names = {path.name for path in (place / "few_report").iterdir()}
    assert {"table1.csv", "agreement-denoising.csv", "qualitative-denoising.png"} <= names
    assert not any(name.startswith("published") for name in names)


def test_bad_requests_of_analysis_are_one_line(place):
    (place / "failed" / "failures").mkdir(parents=True)
    (place / "failed" / "failures" / "a.parquet").touch()
    for flags, message in (
        (["--dataset=nowhere"], "is no dataset"),
        (["--dataset=failed"], "holds no fits: 1 units failed"),
        (["--dataset=whole", "--metric=psd"], "choose from psd_db_mse"),
    ):
        code, errors = run("analyze", *flags, "--output_dir=bad", cwd=place)
        assert code == 2
        assert message in errors
        assert len(errors.strip().splitlines()) == 1
