r"""Kill workers, nodes and drivers of a study on a Ray cluster, and compare with a run without.

    python -m experiments.ray_interruptions --kills=20 --output_dir=out_ray

A cluster of three nodes on this machine, one core each. At random moments a worker
process, the raylet of a node (another node comes in its place), or the driver (it is
started again) is killed by SIGKILL. In the end no unit may be missing, none written
twice, and all files must be those of a run without Ray, byte for byte. Expected:
0 missing, 0 written twice, 0 different. Needs the extra `ray`.
"""

import contextlib
import pathlib
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence

import psutil
from absl import flags

from . import cli
from .kept import finished

FLAGS = flags.FLAGS

flags.DEFINE_integer("kills", 20, "How many.")
flags.DEFINE_integer("nodes", 3, "How many nodes, of a core each.")
flags.DEFINE_integer("num_genotypes", 20, "Of the study.")
flags.DEFINE_integer("seed", 0, "Of the moments.")
cli.define_output_dir("out_ray", "Folder for the two datasets and log.txt.")

STUDY = (
    *("--images=sample:moon,sample:coins", "--size=64", "--gray", "--square", "--channels=4"),
    *("--tasks=denoising:60", "--stopping=fixed", "--num_seeds=3", "--metrics=psd_db_mse"),
)
# Seconds between two kills.
PAUSE = (8.0, 20.0)
# A driver goes with the node that it is on; more often than that is a fault of ours.
MOST_STARTS = 50


def start(folder: pathlib.Path, *runner: str) -> subprocess.Popen:
    """The study at work in a folder."""
    command = [sys.executable, "-m", f"{__package__}.make_dataset", *STUDY, *runner]
    command += [f"--num_genotypes={FLAGS.num_genotypes}", f"--output_dir={folder}"]
    command += [f"--compilation_cache={FLAGS.compilation_cache}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def written(folder: pathlib.Path) -> dict[str, int]:
    """When each unit's file was written, by name; looked at five times a second."""
    found = [path for kind in ("fits", "scores") for path in (folder / kind).glob("*.parquet")]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in found}


def workers() -> list[psutil.Process]:
    """Processes of this cluster that do a job now."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            title = " ".join(process.cmdline())
            if title.startswith("ray::") and "IDLE" not in title:
                found.append(process)
    return found


def main(_: Sequence[str]) -> None:
    """The story: a run here, a run by Ray with kills, a comparison."""
    from ray.cluster_utils import Cluster

    place, draw = pathlib.Path(FLAGS.output_dir), random.Random(FLAGS.seed)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    log = open(place / "log.txt", "w", buffering=1)  # noqa: SIM115
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:6.0f} s  {text}", file=log)

    here, by_ray = place / "threads", place / "by_ray"
    if failed := start(here, "--runner=processes", "--workers=1").wait():
        raise ValueError(f"the study ended with exit code {failed}")
    units = written(here)
    say(f"without Ray: {len(units)} units")

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(FLAGS.nodes - 1)]
    runner = ("--runner=ray", f"--ray_address={cluster.address}")
    driver, starts = start(by_ray, *runner), 1
    seen: dict[str, int] = {}
    twice: set[str] = set()
    kills = dict.fromkeys(("worker", "node", "driver"), 0)

    def look() -> None:
        for name, at in written(by_ray).items():
            if seen.setdefault(name, at) != at:
                twice.add(name)

    due = time.monotonic() + draw.uniform(*PAUSE)
    while (code := driver.poll()) != 0:
        if code is not None:
            if starts == MOST_STARTS:
                raise ValueError(f"the driver ended with exit code {code} {starts} times")
            driver, starts = start(by_ray, *runner), starts + 1
            say(f"{len(seen)} units; the driver ended with exit code {code}, and was started again")
        time.sleep(0.2)
        look()
        if time.monotonic() < due or sum(kills.values()) >= FLAGS.kills:
            continue
        kind, at_work = draw.choice(list(kills)), workers()
        if kind == "worker" and at_work:
            with contextlib.suppress(psutil.NoSuchProcess):
                draw.choice(at_work).kill()
        elif kind == "node":
            cluster.remove_node(nodes.pop(draw.randrange(len(nodes))), allow_graceful=False)
            nodes.append(cluster.add_node(num_cpus=1))
        elif kind == "driver":
            driver.kill()
            driver.wait()
            driver, starts = start(by_ray, *runner), starts + 1
        else:
            continue
        kills[kind] += 1
        say(f"{len(seen)} units; killed a {kind}")
        due = time.monotonic() + draw.uniform(*PAUSE)
    look()
    say(f"{len(seen)} units; the driver ended with exit code 0")
    cluster.shutdown()
    missing = units.keys() - seen.keys()
    expected, found = finished(here), finished(by_ray)
    different = [name for name in expected | found if expected.get(name) != found.get(name)]
    killed = ", ".join(f"{number} {kind}s" for kind, number in kills.items())
    result = (
        f"{len(units)} units; killed {killed}: {len(missing)} missing, {len(twice)} written twice, "
        f"{len(different)} different from a run without Ray"
    )
    say(result)
    print(f"{result}; see {place / 'log.txt'}")


if __name__ == "__main__":
    cli.run(main)
