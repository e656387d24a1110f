"""Test a study on a Ray cluster of two nodes that loses a node, a worker and a driver."""

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
from isnas_jax import registries, study

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")
pq = pytest.importorskip("pyarrow.parquet")


@dataclasses.dataclass(frozen=True)
class KillingSpace:
    """A space of one network. The first process that builds genotype 3 dies."""

    mark: str

    def parse(self, text):
        return int(text)

    def build(self, genotype, *, out_channels, channels, in_channels=None):
        if genotype == 3 and self.mark and not (mark := pathlib.Path(self.mark)).exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return SmallNetwork(out_channels)


def create_study(mark=""):
    clean = jax.random.uniform(jax.random.key(1), (64, 64, 1))
    return study.Study(
        seed=0,
        cases=[study.pose(0, "noise", clean, registries.TASKS["denoising"], sigma=25)],
        genotypes=range(5),
        baselines=[],
        seeds=range(2),
        network=isnas.NetworkConfig(4),
        fit={"denoising": isnas.FitConfig(60)},
        follow={"denoising": 60},
        metrics={"random": registries.METRICS["random"]},
        space=KillingSpace(mark),
    )


def written_files(folder):
    """Return when each file of a dataset was written, by its name."""
    files = [path for kind in ("fits", "scores") for path in (folder / kind).glob("*.parquet")]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def run_on_ray(whole, folder, address, on_end):
    """Run a study; call `on_end` with the files after each unit that ended."""
    names = {unit.name for unit in study.units(whole)}

    def report(event):
        # Fits report their iterations too; only a whole unit counts to 1.
        if event.stage in names and (event.done, event.total) == (1, 1):
            on_end(written_files(folder))

    def runner(progress):
        return isnas.Ray(progress, address=address)

    study.run(whole, folder, study.units(whole), runner=runner, progress=report)


def drive(folder, address, mark):
    """Run the study as a driver that prints a line after each unit."""
    run_on_ray(
        create_study(mark), pathlib.Path(folder), address, lambda _: print("ended", flush=True)
    )


def one_process(progress):
    return isnas.Processes(progress, workers=1)


@pytest.fixture
def cluster():
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.thorough
def test_losing_a_driver_a_worker_and_a_node_loses_and_repeats_no_unit(cluster, tmp_path):
    folder, mark = tmp_path / "ray", str(tmp_path / "mark")
    second_node = cluster.add_node(num_cpus=1)
    whole = create_study(mark)

    code = f"import test_ray; test_ray.drive({str(folder)!r}, {cluster.address!r}, {mark!r})"
    options = {"cwd": pathlib.Path(__file__).parent, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **options) as driver:
        assert driver.stdout.readline() == "ended\n"
        driver.kill()
    first_written = written_files(folder)
    assert first_written

    removed = []

    def remove_node(files):
        if len(files) >= 6 and not removed:
            removed.append(second_node)
            cluster.remove_node(second_node, allow_graceful=False)
        first_written.update({name: files[name] for name in files.keys() - first_written.keys()})

    run_on_ray(whole, folder, cluster.address, remove_node)
    assert pathlib.Path(mark).exists()
    assert removed
    assert written_files(folder) == first_written
    assert len(first_written) == 15

    local = create_study(mark)
    study.run(local, tmp_path / "local", study.units(local), runner=one_process)
    for name in filter(lambda name: name.startswith("fits"), first_written):
        ours, theirs = (pq.read_table(tmp_path / runner / name) for runner in ("ray", "local"))
        for column in ("loss", "psnr_ema", "restored"):
            assert ours[column].to_pylist() == theirs[column].to_pylist()
