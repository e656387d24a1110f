"""Test descriptions of inputs, cached results, file locks, output folders and JSON."""

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
from isnas_jax import registries
from isnas_jax.io import cache, identity, records
from isnas_jax.report import paper

ROOT = pathlib.Path(__file__).parent.parent
GENOTYPE = isnas.Genotype(60, "0" * 25)


def test_descriptions_are_equal_for_equal_content_only():
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
        isnas.psd_db_mse,
        registries.PUBLISHED_METRICS["psd db mse"],
        registries.PUBLISHED_METRICS["psd mse"],
        isnas.build_network(GENOTYPE, out_channels=1),
        isnas.build_network(isnas.dip, out_channels=1),
        isnas.denoising(np.zeros((20, 20, 1))),
        isnas.inpainting(np.zeros((20, 20, 1)), np.eye(20)),
        isnas.presets.quick(isnas.denoising(np.zeros((20, 20, 1)))),
    ]
    descriptions = [str(identity.describe(value)) for value in values]
    assert len(set(descriptions)) == len(values)
    assert descriptions == [str(identity.describe(value)) for value in values]
    # NumPy and JAX arrays with equal content are equal.
    assert identity.describe(jnp.zeros(3)) == identity.describe(np.zeros(3, np.float32))


def shifted_mean(shift):
    return lambda observed, output: output.mean() + shift


def scaled_mean(scale):
    return lambda observed, output, scale=scale: output.mean() * scale


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
    ("value", "equal", "different"),
    [
        (shifted_mean(1), shifted_mean(1), shifted_mean(2)),
        (scaled_mean(1), scaled_mean(1), scaled_mean(2)),
        (jax.jit(shifted_mean(1)), jax.jit(shifted_mean(1)), jax.jit(shifted_mean(2))),
        (
            functools.partial(shifted_mean, 3),
            functools.partial(shifted_mean, 3),
            functools.partial(shifted_mean),
        ),
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
def test_data_in_functions_and_objects_is_described(value, equal, different):
    assert identity.describe(value) == identity.describe(equal) != identity.describe(different)


def test_cycles_and_unsupported_types():
    cyclic = [1]
    cyclic.append(cyclic)
    assert identity.describe(cyclic) == [1, "again, 1 up"]

    def recursive(depth):
        return recursive(depth - 1) if depth else 0

    assert identity.describe(recursive)
    with pytest.raises(ValueError, match="inputs of type object cannot be described"):
        identity.describe({"a": object()})


def test_first_difference_names_the_path_and_both_values():
    before, now = ({"fit": {"a": 1, "b": [1, 2]}, "seed": seed} for seed in (0, 1))
    assert identity.first_difference(before, before) is None
    assert identity.first_difference(before, now) == "seed was 0 and is now 1"
    now["fit"]["b"] = [1, 3]
    assert identity.first_difference(before, now) == "fit.b.1 was 2 and is now 3"
    now["fit"]["b"] = [3]
    assert identity.first_difference(before, now) == "fit.b had 2 entries and now has 1"


def test_cached_computes_once_and_refuses_other_inputs(tmp_path):
    calls, path = [], tmp_path / "deep" / "x.npz"

    def compute():
        calls.append(1)
        return {"a": np.arange(3)}

    for _ in range(2):
        arrays = cache.cached(path, {"seed": 0}, compute)
        assert list(arrays) == ["a"]
        np.testing.assert_array_equal(arrays["a"], np.arange(3))
    assert len(calls) == 1
    with pytest.raises(ValueError, match=r"x\.npz' belongs to other inputs: seed was 0 and is"):
        cache.cached(path, {"seed": 1}, compute)
    assert [file.name for file in path.parent.iterdir()] == ["x.npz"]


def test_cached_computes_once_when_called_in_threads(tmp_path):
    calls, started = [], threading.Event()

    def compute():
        calls.append(1)
        started.set()
        time.sleep(0.5)
        return {"a": np.zeros(1)}

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(cache.cached, tmp_path / "x.npz", {}, compute) for _ in range(4)]
        assert started.wait(10)
        for job in jobs:
            assert list(job.result(30)) == ["a"]
    assert len(calls) == 1


def test_a_killed_process_releases_its_lock(tmp_path):
    path = tmp_path / "x"
    code = (
        "import pathlib, time, sys; from isnas_jax.io import records\n"
        "with records.file_lock(pathlib.Path(sys.argv[1])):\n"
        "    print('locked', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
    process.stdout.readline()
    with records.file_lock(path, wait=False) as acquired:
        assert not acquired
    process.kill()
    process.wait()
    with records.file_lock(path) as acquired:
        assert acquired


def test_only_versions_that_can_change_results_are_compared(tmp_path):
    folder = cache.claim_folder(tmp_path, {"seed": 0})
    config = records.read_json(folder / "config.json")
    expected = {"backend", "isnas_jax source", "jax", "jaxlib", "optax", "flax", "python"}
    assert set(config["versions"]) == expected
    config["recorded"]["pillow"] = "1.0"
    config["recorded"]["python"] = "3.11.0"
    records.write_json(folder / "config.json", config)
    cache.claim_folder(tmp_path, {"seed": 0})
    config["versions"]["optax"] = "0.0.1"
    records.write_json(folder / "config.json", config)
    with pytest.raises(ValueError, match=r"versions\.optax was '0\.0\.1' and is now"):
        cache.claim_folder(tmp_path, {"seed": 0})


def test_one_of_several_configs_gets_the_folder(tmp_path):
    def claim(seed):
        try:
            return cache.claim_folder(tmp_path, {"seed": seed}) and seed
        except ValueError:
            return None

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        owners = {seed for seed in pool.map(claim, range(40)) if seed is not None}
    assert len(owners) == 1
    assert records.read_json(tmp_path / "config.json")["seed"] in owners


def test_published_numbers_are_part_of_the_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = config["options.package_data"]["isnas_jax.report"].split()
    report = ROOT / "isnas_jax" / "report"
    packaged = {path.name for pattern in patterns for path in report.glob(pattern)}
    assert {"kendall_stopping.csv", "kendall_psnr.csv", "page.html"} <= packaged
    assert paper.PUBLISHED.is_relative_to(ROOT / "isnas_jax")


def test_json_replaces_nonfinite_numbers(tmp_path):
    value = {"psnr": np.inf, "more": [-math.inf, (np.float64("nan"), 1.5)], "text": "inf"}
    records.write_json(tmp_path / "a.json", value)
    for text in ((tmp_path / "a.json").read_text(), records.to_json(value)):
        read = json.loads(text, parse_constant=pytest.fail)
        assert float(read["psnr"]) == math.inf
        assert float(read["more"][0]) == -math.inf
        assert math.isnan(float(read["more"][1][0]))
        assert (read["more"][1][1], read["text"]) == (1.5, "inf")
