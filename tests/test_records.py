"""Files: found only by what they are of, written whole, by one at a time."""

import concurrent.futures
import configparser
import dataclasses
import functools
import json
import math
import pathlib
import subprocess
import sys
import threading
import time
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import isnas_jax as isnas
from isnas_jax.io import identity, records
from isnas_jax.report import paper

ROOT = pathlib.Path(__file__).parent.parent
GENOTYPE = isnas.Genotype(60, "0" * 25)


def test_equal_content_is_described_alike_and_different_content_is_not():
    values = [
        None,
        1,
        1.5,
        "text",
        jax.random.key(0),
        jax.random.key(1),
        jnp.zeros(3),
        np.zeros(4, np.float32),
        np.zeros(3),
        GENOTYPE,
        isnas.Genotype(60, "1" * 25),
        [GENOTYPE] * 40,
        [GENOTYPE] * 41,
        isnas.FitConfig(3),
        isnas.FitConfig(3, learning_rate=0.02),
        isnas.METRICS["psd_db_mse"],
        isnas.PUBLISHED_METRICS["psd db mse"],
        isnas.PUBLISHED_METRICS["psd mse"],
        isnas.build_network(GENOTYPE, out_channels=1),
        isnas.build_network("dip", out_channels=1),
        isnas.denoising(np.zeros((20, 20, 1))),
        isnas.inpainting(np.zeros((20, 20, 1)), np.eye(20)),
        isnas.presets.quick(isnas.denoising(np.zeros((20, 20, 1)))),
    ]
    described = [str(identity.describe(value)) for value in values]
    assert len(set(described)) == len(values)
    assert described == [str(identity.describe(value)) for value in values]
    # What kind of array holds the content does not matter.
    assert identity.describe(jnp.zeros(3)) == identity.describe(np.zeros(3, np.float32))


def shifted(by):
    return lambda observed, output: output.mean() + by


def weighed(by):
    return lambda observed, output, by=by: output.mean() * by


@dataclasses.dataclass(frozen=True)
class Metric:
    name: str

    def measure(self, observed, output):
        return output.mean()


class Pair(typing.NamedTuple):
    first: int


class Twin(typing.NamedTuple):
    first: int


@pytest.mark.parametrize(
    ("one", "same", "two"),
    [
        (shifted(1), shifted(1), shifted(2)),
        (weighed(1), weighed(1), weighed(2)),
        (jax.jit(shifted(1)), jax.jit(shifted(1)), jax.jit(shifted(2))),
        (functools.partial(shifted, 3), functools.partial(shifted, 3), functools.partial(shifted)),
        (Metric("a").measure, Metric("a").measure, Metric("b").measure),
        (Metric("a"), Metric("a"), Metric("b")),
        (Pair(1), Pair(1), Twin(1)),
        ({1, 2}, {2, 1}, {1, 3}),
        (np.int64(5), 5, 6),
        (
            optax.cosine_decay_schedule(0.1, 100),
            optax.cosine_decay_schedule(0.1, 100),
            optax.cosine_decay_schedule(0.5, 10),
        ),
        (isnas.FitConfig(3), isnas.FitConfig(3, chunk=7), isnas.FitConfig(4)),
        (np.array([1, "a"], object), np.array([1, "a"], object), np.array([1, "b"], object)),
    ],
)
def test_what_a_thing_carries_with_it_counts(one, same, two):
    assert identity.describe(one) == identity.describe(same) != identity.describe(two)


def test_descriptions_end():
    looped = [1]
    looped.append(looped)
    assert identity.describe(looped) == [1, "again, 1 up"]

    def recursive(depth):
        return recursive(depth - 1) if depth else 0

    assert identity.describe(recursive)
    with pytest.raises(ValueError, match="depends on a object cannot be kept"):
        identity.describe({"a": object()})


def test_the_difference_is_named_where_it_is():
    before, now = ({"fit": {"a": 1, "b": [1, 2]}, "seed": seed} for seed in (0, 1))
    assert identity.difference(before, before) is None
    assert identity.difference(before, now) == "seed was 0 and is now 1"
    now["fit"]["b"] = [1, 3]
    assert identity.difference(before, now) == "fit.b.1 was 2 and is now 3"
    now["fit"]["b"] = [3]
    assert identity.difference(before, now) == "fit.b was of 2 entries and is now of 1"


def test_arrays_are_computed_once_and_only_for_what_they_are_of(tmp_path):
    calls, path = [], tmp_path / "deep" / "x.npz"

    def compute():
        calls.append(1)
        return {"a": np.arange(3)}

    for _ in range(2):
        found = records.cached(path, {"seed": 0}, compute)
        assert list(found) == ["a"]
        np.testing.assert_array_equal(found["a"], np.arange(3))
    assert len(calls) == 1
    with pytest.raises(ValueError, match=r"x\.npz' belongs to something else: seed was 0 and is"):
        records.cached(path, {"seed": 1}, compute)
    assert [file.name for file in path.parent.iterdir()] == ["x.npz"]


def test_of_two_at_one_file_the_second_waits_for_the_first(tmp_path):
    calls, begun = [], threading.Event()

    def compute():
        calls.append(1)
        begun.set()
        time.sleep(0.5)
        return {"a": np.zeros(1)}

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(records.cached, tmp_path / "x.npz", {}, compute) for _ in range(4)]
        assert begun.wait(10)
        for job in jobs:
            assert list(job.result(30)) == ["a"]
    assert len(calls) == 1


def test_a_lock_ends_with_its_holder(tmp_path):
    path = tmp_path / "x"
    code = (
        "import pathlib, time, sys; from isnas_jax.io import records\n"
        "with records.file_lock(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
    process.stdout.readline()
    with records.file_lock(path, wait=False) as held:
        assert not held
    process.kill()
    process.wait()
    with records.file_lock(path) as held:
        assert held


def test_versions_that_change_numbers_are_compared_and_others_only_recorded(tmp_path):
    folder = records.claim_folder(tmp_path, {"seed": 0})
    config = records.read_json(folder / "config.json")
    compared = {"backend", "isnas_jax source", "jax", "jaxlib", "optax", "flax"}
    assert set(config["versions"]) == compared
    config["recorded"]["pillow"] = "1.0"
    config["recorded"]["python"] = "2.7"
    records.write_json(folder / "config.json", config)
    records.claim_folder(tmp_path, {"seed": 0})
    config["versions"]["optax"] = "0.0.1"
    records.write_json(folder / "config.json", config)
    with pytest.raises(ValueError, match=r"versions\.optax was '0\.0\.1' and is now"):
        records.claim_folder(tmp_path, {"seed": 0})


def test_of_different_starts_one_gets_the_folder(tmp_path):
    def start(seed):
        try:
            return records.claim_folder(tmp_path, {"seed": seed}) and seed
        except ValueError:
            return None

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        owners = {seed for seed in pool.map(start, range(40)) if seed is not None}
    assert len(owners) == 1
    assert records.read_json(tmp_path / "config.json")["seed"] in owners


def test_published_numbers_are_part_of_the_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = config["options.package_data"]["isnas_jax.report"].split()
    report = ROOT / "isnas_jax" / "report"
    inside = {path.name for pattern in patterns for path in report.glob(pattern)}
    assert {"kendall_stopping.csv", "kendall_psnr.csv", "page.html"} <= inside
    assert paper.PUBLISHED.is_relative_to(ROOT / "isnas_jax")


def test_json_has_no_numbers_that_are_not_finite(tmp_path):
    value = {"psnr": np.inf, "more": [-math.inf, (np.float64("nan"), 1.5)], "text": "inf"}
    records.write_json(tmp_path / "a.json", value)
    for text in ((tmp_path / "a.json").read_text(), records.to_json(value)):
        read = json.loads(text, parse_constant=pytest.fail)
        assert float(read["psnr"]) == math.inf
        assert float(read["more"][0]) == -math.inf
        assert math.isnan(float(read["more"][1][0]))
        assert (read["more"][1][1], read["text"]) == (1.5, "inf")
