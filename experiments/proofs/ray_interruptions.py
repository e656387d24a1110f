r"""Kill workers, nodes and drivers of a study on a Ray cluster and compare with a run without Ray.

    python -m experiments.proofs.ray_interruptions --kills=20 --output_dir=out_ray

The cluster has three nodes on this machine, with one core each. At random moments SIGKILL
ends a worker process, the raylet of a node, or the driver. Another node replaces a killed one;
a killed driver starts again. In the end no unit may be missing or written twice, and all
records must equal those of a run without Ray, byte for byte. Expected: 0 missing, 0 written
twice, 0 different. Needs the extra `ray`.
"""

import contextlib
import pathlib
import random
import shutil
import subprocess
import time
from typing import Any

import psutil
from absl import flags

from ..flags import define_output_dir
from ..main import FLAGS, run_script
from .runs import different_records, record_digests, start

STUDY = (
    *("--images=sample:moon,sample:coins", "--size=64", "--gray", "--square", "--channels=4"),
    *("--tasks=denoising:60", "--stopping=fixed", "--num_seeds=3", "--metrics=psd_db_mse"),
)
NODES = 3  # with one core each
# Seconds between two kills.
PAUSE = (8.0, 20.0)
# A driver ends with its node; more starts than this mean that it fails by itself.
MAX_STARTS = 50


def start_study(folder: pathlib.Path, *runner_flags: str) -> subprocess.Popen:
    """Start the study's driver, which writes to a folder."""
    genotypes = f"--num_genotypes={FLAGS.num_genotypes}"
    return start("make_dataset", *STUDY, *runner_flags, genotypes, folder=folder)


def write_times(folder: pathlib.Path) -> dict[str, int]:
    """Return the modification time in nanoseconds of each unit's file, by relative path."""
    paths = [path for kind in ("fits", "scores") for path in (folder / kind).glob("*.parquet")]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in paths}


def busy_workers() -> list[psutil.Process]:
    """Return the worker processes of this cluster that run a job."""
    busy = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            title = " ".join(process.cmdline())
            if title.startswith("ray::") and "IDLE" not in title:
                busy.append(process)
    return busy


class Run:
    """The study on a Ray cluster; its driver starts again when it ends early."""

    def __init__(self, folder: pathlib.Path, rng: random.Random) -> None:
        from ray.cluster_utils import Cluster

        self.folder, self._rng, self._begin = folder, rng, time.monotonic()
        self.units: dict[str, int] = {}  # first time that each unit's file was written
        self.written_twice: set[str] = set()  # units
        self.kills = dict.fromkeys(("worker", "node", "driver"), 0)
        self._cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        self._nodes = [self._cluster.add_node(num_cpus=1) for _ in range(NODES - 1)]
        self._starts = 0
        self._start_driver()

    def _print(self, text: str) -> None:
        seconds = time.monotonic() - self._begin
        print(f"{seconds:6.0f} s  {len(self.units)} units; {text}", flush=True)

    def _start_driver(self) -> None:
        self._starts += 1
        address = f"--ray_address={self._cluster.address}"
        self._driver = start_study(self.folder, "--runner=ray", address)

    def _watch_units(self) -> None:
        for name, write_time in write_times(self.folder).items():
            if self.units.setdefault(name, write_time) != write_time:
                self.written_twice.add(name)

    def _kill(self) -> bool:
        """Kill a random worker, node or driver; False if no worker is busy."""
        kind, busy = self._rng.choice(list(self.kills)), busy_workers()
        if kind == "worker":
            if not busy:
                return False
            with contextlib.suppress(psutil.NoSuchProcess):
                self._rng.choice(busy).kill()
        elif kind == "node":
            node = self._nodes.pop(self._rng.randrange(len(self._nodes)))
            self._cluster.remove_node(node, allow_graceful=False)
            self._nodes.append(self._cluster.add_node(num_cpus=1))
        else:
            self._driver.kill()
            self._driver.wait()
            self._start_driver()
        self.kills[kind] += 1
        self._print(f"killed a {kind}")
        return True

    def finish(self) -> None:
        """Kill parts of the cluster at random moments until the study is complete."""
        due = time.monotonic() + self._rng.uniform(*PAUSE)
        while (code := self._driver.poll()) != 0:
            if code is not None:
                if self._starts == MAX_STARTS:
                    raise ValueError(f"the driver ended with exit code {code} {MAX_STARTS} times")
                self._start_driver()
                self._print(f"restarted the driver after exit code {code}")
            time.sleep(0.2)
            self._watch_units()
            is_due = time.monotonic() >= due and sum(self.kills.values()) < FLAGS.kills
            if is_due and self._kill():
                due = time.monotonic() + self._rng.uniform(*PAUSE)
        self._watch_units()
        self._print("the driver ended with exit code 0")
        self._cluster.shutdown()


def define_flags() -> None:
    """Define the flags of this script."""
    flags.DEFINE_integer("kills", 20, "Number of kills.")
    flags.DEFINE_integer("num_genotypes", 20, "Number of genotypes in the study.")
    flags.DEFINE_integer("seed", 0, "Seed of the random moments and kinds of kills.")
    define_output_dir("out_ray", "Folder for the two datasets.")


def main() -> None:
    """Run the study without Ray, then on Ray with kills, and compare."""
    root = pathlib.Path(FLAGS.output_dir)
    shutil.rmtree(root, ignore_errors=True)
    local = root / "local"
    if code := start_study(local, "--runner=processes", "--workers=1").wait():
        raise ValueError(f"the study ended with exit code {code}")
    units = write_times(local)
    run = Run(root / "ray", random.Random(FLAGS.seed))
    run.finish()
    missing = units.keys() - run.units.keys()
    different = different_records(record_digests(local), record_digests(run.folder))
    killed = ", ".join(f"{number} {kind}s" for kind, number in run.kills.items())
    print(
        f"{len(units)} units; killed {killed}: {len(missing)} missing, {len(run.written_twice)} "
        f"written twice, {len(different)} different from a run without Ray"
    )


if __name__ == "__main__":
    run_script(main, define_flags)
