"""A study on a Ray cluster of two nodes, of which one is lost, and a worker, and a driver."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys

import jax
import pytest
from conftest import SmallNetwork

import isnas_jax as isnas
from isnas_jax import study
from isnas_jax.running import Processes

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")
pq = pytest.importorskip("pyarrow.parquet")


@dataclasses.dataclass(frozen=True)
class Deadly:
    """A space of one network; where 3 is built for the first time, its process dies."""

    mark: str

    def parse(self, text):
        return int(text)

    def build(self, genotype, *, out_channels, channels, in_channels=None):
        if genotype == 3 and self.mark and not (mark := pathlib.Path(self.mark)).exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return SmallNetwork(out_channels)


def posed(mark=""):
    clean = jax.random.uniform(jax.random.key(1), (64, 64, 1))
    return study.Study(
        seed=0,
        cases=[study.pose(0, "noise", clean, "denoising", sigma=25)],
        genotypes=range(5),
        baselines=[],
        seeds=2,
        network=isnas.NetworkConfig(4),
        fit={"denoising": isnas.FitConfig(60)},
        follow={"denoising": 60},
        metrics={"random": isnas.METRICS["random"]},
        space=Deadly(mark),
    )


def written(folder):
    """What each file of a dataset is, and when it was written."""
    files = [path for kind in ("fits", "scores") for path in (folder / kind).glob("*.parquet")]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def run(whole, folder, address, after):
    """By Ray; `after` is called with the number of units done and the files by then."""
    done = []

    def report(unit, news):
        if news is None:
            done.append(unit.name)
            after(len(done), written(folder))

    def runner(progress):
        return isnas.RUNNERS["ray"](progress, address=address)

    study.run(whole, folder, study.units(whole), runner=runner, report=report)
    return done


def drive(folder, address, mark):
    """A driver that says when it has done something."""
    run(posed(mark), pathlib.Path(folder), address, lambda done, _: print(done, flush=True))


@pytest.fixture
def cluster():
    found = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.mark.thorough
def test_what_dies_costs_no_unit_and_makes_none_twice(cluster, tmp_path):
    folder, mark = tmp_path / "by_ray", str(tmp_path / "mark")
    second = cluster.add_node(num_cpus=1)
    whole = posed(mark)
    seen = {}

    code = f"import test_ray; test_ray.drive({str(folder)!r}, {cluster.address!r}, {mark!r})"
    here = {"cwd": pathlib.Path(__file__).parent, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **here) as driver:
        assert driver.stdout.readline() == "1\n"
        driver.kill()
    seen |= written(folder)
    assert seen

    removed = []

    def after(done, files):
        if len(files) >= 6 and not removed:
            removed.append(second)
            cluster.remove_node(second, allow_graceful=False)
        seen.update({name: at for name, at in files.items() if name not in seen})

    run(whole, folder, cluster.address, after)
    assert pathlib.Path(mark).exists()
    assert removed
    assert written(folder) == seen
    assert len(seen) == 15

    study.run(posed(mark), tmp_path / "local", study.units(posed(mark)), runner=one_process)
    for name in filter(lambda name: name.startswith("fits"), seen):
        ours, theirs = (pq.read_table(tmp_path / of / name) for of in ("by_ray", "local"))
        for column in ("loss", "psnr_ema", "restored"):
            assert ours[column].to_pylist() == theirs[column].to_pylist()


def one_process(progress):
    return Processes(progress, workers=1)
