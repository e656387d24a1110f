"""Test the work and the time left that scripts show from progress events."""

import sys
import threading

import numpy as np
import pytest

from experiments import progress
from isnas_jax.running import Event
from isnas_jax.searching.config import Stage

PLAN = {"cohort": Stage(4, 100), "validate": Stage(9, 100), "restore": Stage(3, 300)}


@pytest.fixture
def clock():
    """A clock that a test sets."""
    return Clock()


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def start(plan, clock):
    run = progress.Run(plan)
    run.bar._time = clock
    return run


EVENTS = [
    Event(("cohort", 1, 4), 40, 40),  # stopped early
    Event(("cohort", 4, 4), 90, 100),  # the third is from an earlier run; this one resumes at 90
    Event(("validate", 1, 3), 0, 100),  # one network has all the weight
    Event(("restore", 1, 1), 0, 80),
]


@pytest.mark.parametrize(
    ("events", "done", "left", "time"),
    [
        (0, 0, 4 * 100 + 9 * 100 + 3 * 300, "?"),
        (1, 40, 3 * 100 + 9 * 100 + 3 * 300, "17:30"),
        (2, 40, 100 + 10 + 9 * 100 + 3 * 300, "15:55"),
        (3, 40, 100 + 10 + 3 * 100 + 3 * 300, "10:55"),
        (4, 40, 100 + 10 + 100 + 80, "02:25"),
    ],
)
def test_time_left_is_that_of_all_iterations_at_the_speed_so_far(events, done, left, time, clock):
    """A case takes the first of EVENTS."""
    run = start(PLAN, clock)
    clock.now = 1000.0  # compilation
    for number in (1, 2):
        run(Event(("cohort", number, 4), 0, 100))
    clock.now += 20.0
    for event in EVENTS[:events]:
        run(event)
    assert (run.bar.n, run.bar.total - run.bar.n) == (done, left)
    assert run.status().startswith(f"{time} left, ")


def test_scores_are_shown_and_only_fits_count(clock, capsys):
    run = start({"cohort": Stage(2, 100)}, clock)
    assert "0/200 iterations [00:00<?] compiling" in capsys.readouterr().err
    run(Event(("score",), 2, 8))
    assert (run.bar.n, run.status()) == (0, "? left, score (2/8)")
    run(Event(("cohort", 1, 2), 0, 100))
    clock.now = 20.0  # the next line of a file is due
    capsys.readouterr()
    run(Event(("cohort", 1, 2), 50, 100))
    shown = capsys.readouterr().err
    assert shown.startswith("\r 25%|")
    assert "| 50/200 iterations [00:20<01:00] cohort 1/2 (50/100)" in shown


def test_units_of_a_study_count_from_where_they_resume(clock):
    run = start(None, clock)
    run(Event(("units",), 6, 10))
    clock.now = 30.0
    run(Event(("fits", "denoising", "camera", "dip", "0"), 500, 1000))
    run(Event(("units",), 6.5, 10))
    assert (run.bar.n, run.bar.total, run.bar.unit) == (6.5, 10, "units")
    assert run.status() == "03:30 left, fits denoising camera dip 0 (500/1000)"


def test_stages_of_compared_methods_name_image_seed_and_method(clock):
    run = start(None, clock)
    run(Event(("method", "camera", 3, "DIP", "restore", 1, 2), 5, 10))
    assert run.status().endswith("method camera 3 DIP restore 1/2 (5/10)")


def test_a_preview_is_passed_on_and_its_page_follows_the_status(monkeypatch):
    run, images, texts = progress.Run(PLAN), [], []
    preview = Event(("preview",), 0, 0, image=np.zeros((2, 2, 1)))
    run(preview)  # without a callback
    run.on_image = lambda image, status: images.append((image, status))
    run.on_status = texts.append
    monkeypatch.setattr(progress, "_FILE_INTERVAL", 0)
    run(Event(("cohort", 1, 4), 0, 100))
    assert not texts  # there is no page before the first image
    run(preview)
    assert images == [(preview.image, "? left, cohort 1/4 (0/100)")]
    run(Event(("cohort", 2, 4), 0, 100))
    assert texts == ["? left, cohort 2/4 (0/100)"]


def test_an_interrupted_run_says_so_on_its_page():
    texts = []
    with pytest.raises(KeyboardInterrupt), progress.shown(PLAN) as run:  # noqa: PT012
        run.on_image, run.on_status = print, texts.append
        run(Event(("preview",), 0, 0, image=np.zeros((2, 2, 1))))
        raise KeyboardInterrupt
    assert texts == [""]


def test_stages_in_several_threads_are_counted_once(clock):
    run = start({"restore": Stage(400, 3)}, clock)
    run(Event(("restore", 1, 400), 0, 3))

    def report(first):
        for number in range(first, 401, 4):
            for iteration in (0, 1, 2):
                run(Event(("restore", number, 400), iteration, 3))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=report, args=(first,)) for first in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert (run.bar.n, run.bar.total) == (800, 1200)
