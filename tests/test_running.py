"""Test runners: jobs return results, events and errors, even if their process dies."""

import dataclasses
import functools
import multiprocessing
import os
import pathlib
import signal
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SmallNetwork

import isnas_jax as isnas
from isnas_jax import _programs, registries, study
from isnas_jax.running import Event, Processes, Ray, Threads, WorkerDiedError, ignore, with_stage

TIMEOUT = 300  # seconds
RAY = pytest.param(Ray, marks=pytest.mark.thorough)


class UnpicklableError(Exception):
    """An error that cannot be unpickled, as some of JAX's."""

    def __init__(self, first, second):
        super().__init__(f"{first}{second}")


def double(progress, number):
    progress(Event(("double",), number, 10))
    if number < 0:
        raise ValueError(f"{number} is negative")
    if number > 100:
        raise UnpicklableError("too ", "large")
    return 2 * number


def die_once(progress, mark):
    """Kill the process at the first try."""
    if not (path := pathlib.Path(mark)).exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def die(progress):
    os.kill(os.getpid(), signal.SIGKILL)


def worker_environment(progress):
    """Return the number of cores, a value of JAX's config, and whether a module was imported."""
    tasks = map(int, os.listdir("/proc/self/task"))
    cores = set().union(*map(os.sched_getaffinity, tasks))
    return len(cores), jax.config.jax_default_matmul_precision, "colorsys" in sys.modules


def disk_caches(progress):
    return _programs.disk_caches


def item(progress, values, index):
    return values[index]


@pytest.fixture(scope="module")
def cluster():
    """Start the Ray cluster that pools connect to."""
    ray = pytest.importorskip("ray")
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(params=[Threads, Processes, RAY])
def runner(request):
    if request.param is Ray:
        request.getfixturevalue("cluster")
    return request.param


@pytest.fixture
def highest_precision():
    """Set a value of JAX's config that workers must copy."""
    jax.config.update("jax_default_matmul_precision", "highest")
    yield
    jax.config.update("jax_default_matmul_precision", None)


def test_every_job_returns_its_result_or_error_and_reports_events(runner):
    events = []
    with runner(events.append, workers=2) as pool:
        futures = [pool.submit(double, number) for number in (1, -1, 2, 101, 3)]
        assert futures[4].result(TIMEOUT) == 6
        with pytest.raises(ValueError, match="-1 is negative"):
            futures[1].result(TIMEOUT)
        with pytest.raises(Exception, match="too large"):
            futures[3].result(TIMEOUT)
        assert [futures[0].result(TIMEOUT), futures[2].result(TIMEOUT)] == [2, 4]
        # Jobs share a broadcast value; the error of one leaves the others alone.
        shared = pool.broadcast(np.arange(3))
        first, second, missing, last = (pool.submit(item, shared, index) for index in (0, 1, 7, 2))
        assert [future.result(TIMEOUT) for future in (first, second, last)] == [0, 1, 2]
        with pytest.raises(IndexError):
            missing.result(TIMEOUT)
    reported = sorted((event.stage, event.done, event.total) for event in events)
    assert reported == [(("double",), number, 10) for number in (-1, 1, 2, 3, 101)]


def test_with_stage_changes_only_the_stage():
    events = []
    event = Event(("fit", 1, 1), 5, 10, loss=0.25, seconds=3.0, image=np.zeros((2, 2, 1)))
    with_stage(events.append, "cohort", 2, 9)(event)
    (changed,) = events
    assert changed.stage == ("cohort", 2, 9)
    assert changed._replace(stage=event.stage) == event


@pytest.mark.parametrize(
    ("separate_runner", "reason"),
    [(Processes, "with exit code -9"), pytest.param(Ray, "", marks=pytest.mark.thorough)],
)
def test_a_job_whose_process_dies_runs_again_and_fails_in_the_end(
    separate_runner, reason, highest_precision, tmp_path, request
):
    if separate_runner is Ray:
        request.getfixturevalue("cluster")
    with separate_runner(ignore, workers=1, modules=["colorsys"]) as pool:
        repeated = pool.submit(die_once, str(tmp_path / "mark"))
        failing = pool.submit(die)
        after = pool.submit(worker_environment) if sys.platform == "linux" else None
        assert repeated.result(TIMEOUT) != os.getpid()
        with pytest.raises(WorkerDiedError, match=f"died 3 times.*{reason}"):
            failing.result(TIMEOUT)
        cores, *others = after.result(TIMEOUT) if after else (1, "highest", True)
        assert others == ["highest", True]
        assert cores == 1 or separate_runner is Ray
    assert not multiprocessing.active_children()


def test_workers_bound_the_programs_on_disk_as_this_process_does(runner):
    with runner(ignore) as pool:
        assert pool.submit(disk_caches).result(TIMEOUT) == _programs.disk_caches
    assert len(_programs.disk_caches) == 1


def test_an_error_of_the_callback_fails_only_its_job(runner):
    def fail_for_first(event):
        if event.done == 1:
            raise OSError("no space left")

    with runner(fail_for_first, workers=1) as pool:
        first, second = pool.submit(double, 1), pool.submit(double, 2)
        with pytest.raises(OSError, match="no space left"):
            first.result(TIMEOUT)
        assert second.result(TIMEOUT) == 4


def endless(progress):
    while True:
        progress(Event(("wait",), 0, 1))


def test_leaving_the_pool_cancels_jobs(runner):
    begun = threading.Event()
    with runner(lambda event: begun.set(), workers=1) as pool:
        running, waiting = pool.submit(endless), pool.submit(double, 1)
        assert begun.wait(TIMEOUT)
    with pytest.raises(InterruptedError):
        running.result(TIMEOUT)
    assert waiting.cancelled()
    assert not multiprocessing.active_children()


def test_impossible_workers_and_unpicklable_arguments_are_refused(runner):
    with pytest.raises(ValueError, match="workers 0 must be at least 1"):
        runner(ignore, workers=0)
    if runner is Ray:
        with pytest.raises(ValueError, match="no node of the Ray cluster has 64 CPUs and 0 GPUs"):
            Ray(ignore, cpus=64)
    if runner is not Threads:
        with (
            runner(ignore, workers=1) as pool,
            pytest.raises(ValueError, match=r"cannot be sent to another process: .*lock"),
        ):
            pool.submit(double, threading.Lock())


def test_threads_compute_on_the_callers_device():
    device = jax.devices()[0]
    with jax.default_device(device), Threads(ignore) as pool:
        assert pool.submit(lambda _: jax.config.jax_default_device).result(TIMEOUT) == device


def build_small(task, **_):
    return SmallNetwork()


def build_wide(task, **_):
    return SmallNetwork(in_channels=3)


def test_all_runners_return_the_same_search():
    """Bit for bit, because these networks are too small for more than one core."""
    problem = isnas.denoising(jax.random.uniform(jax.random.key(1), (32, 32, 1)), sigma=25)
    config = isnas.presets.quick(problem, iterations=30)
    small, wide = isnas.Baseline("small", build_small), isnas.Baseline("wide", build_wide)
    search = dataclasses.replace(
        config.search,
        cohort=0,
        extra_members=(small, wide, isnas.non_local_means),
        metric=lambda observed, output: jnp.zeros(()),  # unused, and cannot be pickled
    )
    config = dataclasses.replace(config, search=search)
    single, threads, processes = (
        isnas.search(jax.random.key(0), problem, config, runner=runner)
        for runner in (
            functools.partial(Threads, workers=1),
            Threads,
            functools.partial(Processes, workers=2),
        )
    )
    for result in (threads, processes):
        np.testing.assert_array_equal(single.restored, result.restored)
        np.testing.assert_array_equal(single.weights, result.weights)


@dataclasses.dataclass(frozen=True)
class OneNetwork:
    """A space of one network that compiles quickly."""

    def parse(self, text):
        return int(text)

    def build(self, genotype, *, out_channels, channels, in_channels=None):
        return SmallNetwork(out_channels)


@dataclasses.dataclass(frozen=True)
class KillingRule:
    """A stopping rule that kills the process if the image is bright."""

    def init(self, problem, iterations):
        return ()

    def update(self, state, step):
        def check(brightness):
            if brightness > 0.9:
                os.kill(os.getpid(), signal.SIGKILL)
            return brightness

        brightness = step.problem.observed.mean()
        brightness = jax.pure_callback(check, brightness, brightness)
        return state, isnas.Decision(jnp.array(True), jnp.array(False), brightness)


@pytest.mark.thorough
def test_a_study_in_processes_survives_their_death_and_equals_that_in_threads(tmp_path):
    pytest.importorskip("pyarrow")
    noise = jax.random.uniform(jax.random.key(1), (64, 64, 1))
    images = {"one": noise, "two": noise / 2, "bright": jnp.ones_like(noise), "three": noise / 3}
    task = registries.TASKS["denoising"]
    whole = study.Study(
        seed=0,
        cases=[study.pose(0, name, clean, task, sigma=25) for name, clean in images.items()],
        genotypes=[1],
        baselines=[],
        seeds=range(1),
        network=isnas.NetworkConfig(4),
        fit={"denoising": isnas.FitConfig(2, KillingRule())},
        follow={"denoising": 2},
        metrics={},
        space=OneNetwork(),
    )
    score, *fits = study.units(whole)
    killing = fits.pop(2)
    # Two jobs of two fits each. The killing one ends another, which runs again at the end.
    todo = [killing, *fits]
    assert study.group_by_program([score, *todo], 2) == [[score], todo[:2], todo[2:]]

    def run(name, todo, runner):
        """Run units; return the failures."""
        ended = []

        def report(event):
            if (event.done, event.total) == (1, 1):
                ended.append(event.stage)

        failures = study.run(
            whole, tmp_path / name, todo, runner=runner, progress=report, job_fits=2
        )
        assert sorted(ended) == sorted(unit.name for unit in todo)
        return failures

    assert run("threads", fits, Threads) == {}
    failures = run("processes", todo, functools.partial(Processes, workers=1))
    ((name, reason),) = failures.items()
    assert name == "+".join(killing.name)
    assert "WorkerDiedError: a job's process died 3 times" in reason
    for file in (tmp_path / "threads" / "fits").glob("*.parquet"):
        other = tmp_path / "processes" / "fits" / file.name
        ours, theirs = (study.store.pq.read_table(path).to_pydict() for path in (file, other))
        np.testing.assert_allclose(ours["loss"][0], theirs["loss"][0], rtol=1e-4)
