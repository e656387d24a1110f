"""Who does the work: jobs come back wherever they are done, whatever becomes of their process."""

import dataclasses
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
from isnas_jax import _programs, study
from isnas_jax.fitting import Decision
from isnas_jax.running import Processes, Ray, Threads, WorkerDiedError, silent

SOON = 120  # seconds: who hangs fails
RAY = pytest.param(Ray, marks=pytest.mark.thorough)


class ParticularError(Exception):
    """Cannot be unpickled, as some of JAX's."""

    def __init__(self, first, second):
        super().__init__(f"{first}{second}")


def double(progress, number):
    progress("doubling", (number, 10))
    if number < 0:
        raise ValueError(f"{number} is negative")
    if number > 100:
        raise ParticularError("too ", "large")
    return 2 * number


def killed_once(progress, mark):
    """Dies at the first try."""
    if not (path := pathlib.Path(mark)).exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def dies(progress):
    os.kill(os.getpid(), signal.SIGKILL)


def worker_environment(progress):
    """The cores of all threads, a setting, whether a module was imported."""
    tasks = map(int, os.listdir("/proc/self/task"))
    cores = set().union(*map(os.sched_getaffinity, tasks))
    return len(cores), jax.config.jax_default_matmul_precision, "colorsys" in sys.modules


def bounds(progress):
    return _programs.on_disk


def first_of(progress, values, position):
    return values[position], os.getpid()


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster that is there already."""
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
def highest():
    """What a script may set before it starts processes."""
    jax.config.update("jax_default_matmul_precision", "highest")
    yield
    jax.config.update("jax_default_matmul_precision", None)


def test_every_job_comes_back_with_its_news_and_its_error(runner):
    heard = []
    with runner(lambda *news: heard.append(news), workers=2) as pool:
        futures = [pool.submit(double, number) for number in (1, -1, 2, 101, 3)]
        assert futures[4].result(SOON) == 6
        with pytest.raises(ValueError, match="-1 is negative"):
            futures[1].result(SOON)
        with pytest.raises(Exception, match="too large"):
            futures[3].result(SOON)
        assert [futures[0].result(SOON), futures[2].result(SOON)] == [2, 4]
        # An array that many need is sent once; a job that cannot have it fails alone.
        shared = pool.broadcast(np.arange(3))
        found = [pool.submit(first_of, shared, position) for position in (0, 1, 7, 2)]
        assert [future.result(SOON)[0] for future in (found[0], found[1], found[3])] == [0, 1, 2]
        with pytest.raises(IndexError):
            found[2].result(SOON)
    assert sorted(heard) == [("doubling", (number, 10)) for number in (-1, 1, 2, 3, 101)]


@pytest.mark.parametrize(
    ("elsewhere", "reason"),
    [(Processes, "with exit code -9"), pytest.param(Ray, "", marks=pytest.mark.thorough)],
)
def test_a_job_whose_process_dies_is_done_again_and_given_up_in_the_end(
    elsewhere, reason, highest, tmp_path, request
):
    if elsewhere is Ray:
        request.getfixturevalue("cluster")
    with elsewhere(silent, workers=1, modules=["colorsys"]) as pool:
        again = pool.submit(killed_once, str(tmp_path / "mark"))
        hopeless = pool.submit(dies)
        after = pool.submit(worker_environment) if sys.platform == "linux" else None
        assert again.result(SOON) != os.getpid()
        with pytest.raises(WorkerDiedError, match=f"died 3 times.*{reason}"):
            hopeless.result(SOON)
        cores, *others = after.result(SOON) if after else (1, "highest", True)
        assert others == ["highest", True]
        assert cores == 1 or elsewhere is Ray
    assert not multiprocessing.active_children()


def test_workers_bound_the_programs_on_disk_as_this_process_does(runner):
    with runner(silent) as pool:
        assert pool.submit(bounds).result(SOON) == _programs.on_disk
    assert len(_programs.on_disk) == 1


def test_what_listeners_do_wrong_ends_their_job_alone(runner):
    def deaf(stage, news):
        if news[0] == 1:
            raise OSError("no space left")

    with runner(deaf, workers=1) as pool:
        one, two = pool.submit(double, 1), pool.submit(double, 2)
        with pytest.raises(OSError, match="no space left"):
            one.result(SOON)
        assert two.result(SOON) == 4


def endless(progress):
    while True:
        progress("waiting", None)


def test_the_end_gives_up_what_is_at_work(runner):
    begun = threading.Event()
    with runner(lambda *_: begun.set(), workers=1) as pool:
        at_work, waiting = pool.submit(endless), pool.submit(double, 1)
        assert begun.wait(SOON)
    with pytest.raises(InterruptedError):
        at_work.result(SOON)
    assert waiting.cancelled()
    assert not multiprocessing.active_children()


def test_what_cannot_be_is_refused(runner):
    with pytest.raises(ValueError, match="workers 0 must be at least 1"):
        runner(silent, workers=0)
    if runner is Ray:
        with pytest.raises(ValueError, match="no node of the Ray cluster has 64 CPUs and 0 GPUs"):
            Ray(silent, cpus=64)
    if runner is not Threads:
        with (
            runner(silent, workers=1) as pool,
            pytest.raises(ValueError, match=r"cannot be sent to another process: .*lock"),
        ):
            pool.submit(double, threading.Lock())


def test_jobs_here_run_on_the_callers_device():
    device = jax.devices()[0]
    with jax.default_device(device), Threads(silent) as pool:
        assert pool.submit(lambda _: jax.config.jax_default_device).result(SOON) == device


def test_a_search_by_any_runner_is_the_same(small_network, monkeypatch):
    """Bit for bit, for these networks are too small for more than one core."""
    monkeypatch.setitem(isnas.BASELINES, "small", lambda task, **_: small_network())
    monkeypatch.setitem(isnas.BASELINES, "other", lambda task, **_: small_network(in_channels=3))
    problem = isnas.denoising(jax.random.uniform(jax.random.key(1), (32, 32, 1)), sigma=25)
    config = isnas.presets.quick(problem, iterations=30)
    search = dataclasses.replace(
        config.search,
        cohort=0,
        extra_members=("small", "other", "non-local means"),
        metric=lambda observed, output: jnp.zeros(()),  # unused, and cannot be pickled
    )
    config = dataclasses.replace(config, search=search)
    one, two, processes = (
        isnas.search(jax.random.key(0), problem, config, runner=runner)
        for runner in (
            lambda progress: Threads(progress, workers=1),
            Threads,
            lambda progress: Processes(progress, workers=2, modules=["conftest"]),
        )
    )
    for other in (two, processes):
        np.testing.assert_array_equal(one.restored, other.restored)
        np.testing.assert_array_equal(one.weights, other.weights)


@dataclasses.dataclass(frozen=True)
class OneNetwork:
    """A space of one network that compiles soon."""

    def parse(self, text):
        return int(text)

    def build(self, genotype, *, out_channels, channels, in_channels=None):
        return SmallNetwork(out_channels)


@dataclasses.dataclass(frozen=True)
class Deadly:
    """A rule whose process dies at the sight of a bright image."""

    def init(self, problem):
        return ()

    def update(self, state, step):
        def look(brightness):
            if brightness > 0.9:
                os.kill(os.getpid(), signal.SIGKILL)
            return brightness

        brightness = step.problem.observed.mean()
        seen = jax.pure_callback(look, brightness, brightness)
        return state, Decision(jnp.array(True), jnp.array(False), seen)


@pytest.mark.thorough
def test_a_study_by_processes_is_that_of_one_and_outlives_them(tmp_path):
    pytest.importorskip("pyarrow")
    noise = jax.random.uniform(jax.random.key(1), (64, 64, 1))
    images = {"one": noise, "two": noise / 2, "bright": jnp.ones_like(noise), "three": noise / 3}
    whole = study.Study(
        seed=0,
        cases=[study.pose(0, *image, "denoising", sigma=25) for image in images.items()],
        genotypes=[1],
        baselines=[],
        seeds=1,
        network=isnas.NetworkConfig(4),
        fit={"denoising": isnas.FitConfig(2, Deadly())},
        follow={"denoising": 2},
        metrics={},
        space=OneNetwork(),
    )
    score, *fits = study.units(whole)
    deadly = fits.pop(2)
    # Two jobs of two fits each: the deadly one takes another with it, which is done in the end.
    todo = [deadly, *fits]
    assert study.group_by_program([score, *todo], 2) == [[score], todo[:2], todo[2:]]

    def done(name, todo, runner):
        heard = []

        def report(unit, news):
            if news is None:
                heard.append(unit.name)

        failed = study.run(whole, tmp_path / name, todo, runner=runner, report=report)
        assert sorted(heard) == sorted(unit.name for unit in todo)
        return failed

    def one_process(progress):
        return Processes(progress, workers=1)

    assert done("threads", fits, Threads) == {}
    (failed,) = done("apart", todo, one_process).items()
    assert failed[0] == "+".join(deadly.name)
    assert "WorkerDiedError: a job's process died 3 times" in failed[1]
    for file in (tmp_path / "threads" / "fits").glob("*.parquet"):
        other = tmp_path / "apart" / "fits" / file.name
        ours, theirs = (study.store.pq.read_table(path).to_pydict() for path in (file, other))
        np.testing.assert_allclose(ours["loss"][0], theirs["loss"][0], rtol=1e-4)
