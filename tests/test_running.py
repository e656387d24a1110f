"""Who does the work: jobs come back wherever they are done, whatever becomes of their process."""

import os
import pathlib
import signal
import threading

import jax
import numpy as np
import pytest

from isnas_jax.running import RUNNERS, Here, Processes, WorkerDiedError, cores


def double(told, number):
    told("doubling", (number, 10))
    if number < 0:
        raise ValueError(f"{number} is negative")
    return 2 * number


def killed_once(told, mark):
    """Dies at the first try."""
    if not (path := pathlib.Path(mark)).exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def dies(told):
    os.kill(os.getpid(), signal.SIGKILL)


def surroundings(told):
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {None}
    return len(usable), jax.config.jax_default_matmul_precision


@pytest.fixture
def highest():
    """What a script may set before it starts processes."""
    jax.config.update("jax_default_matmul_precision", "highest")
    yield
    jax.config.update("jax_default_matmul_precision", None)


@pytest.mark.parametrize("name", RUNNERS)
def test_every_job_comes_back_with_its_news_and_its_error(name):
    heard = []
    with RUNNERS[name](lambda *news: heard.append(news)) as pool:
        tickets = [pool.submit(double, number) for number in (1, -1, 2, 3)]
        assert tickets[3].result() == 6
        with pytest.raises(ValueError, match="-1 is negative"):
            tickets[1].result()
        assert [tickets[0].result(), tickets[2].result()] == [2, 4]
    assert sorted(heard) == [("doubling", (number, 10)) for number in (-1, 1, 2, 3)]


def test_a_job_whose_process_dies_is_done_again_and_given_up_in_the_end(highest, tmp_path):
    with Processes(lambda *_: None, number=1, modules=["colorsys"]) as pool:
        again = pool.submit(killed_once, str(tmp_path / "mark"))
        hopeless = pool.submit(dies)
        after = pool.submit(surroundings)
        assert again.result() != os.getpid()
        with pytest.raises(WorkerDiedError, match="died 3 times, at last with exit code -9"):
            hopeless.result()
        assert after.result() == (1, "highest")


def test_what_listeners_do_wrong_does_not_hang():
    def deaf(*_):
        raise OSError("no space left")

    for runner in RUNNERS.values():
        with runner(deaf) as pool, pytest.raises(OSError, match="no space left"):
            pool.submit(double, 1).result()


def test_the_end_gives_up_what_is_at_work():
    begun, ended = threading.Event(), threading.Event()

    def endless(told):
        begun.set()
        try:
            while True:
                told("waiting", None)
        finally:
            ended.set()

    with Here(lambda *_: None, number=1) as pool:
        pool.submit(endless)
        waiting = pool.submit(double, 1)
        assert begun.wait(10)
    assert ended.wait(10)
    assert waiting.cancelled()


@pytest.mark.parametrize("runner", [Here, Processes])
def test_none_at_a_time_is_refused(runner):
    with pytest.raises(ValueError, match="must be at least 1"):
        runner(lambda *_: None, number=0)
    assert np.unique(cores()).size == len(cores())
