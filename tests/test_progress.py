"""Test the time left that scripts estimate from progress events."""

import sys
import threading

import numpy as np
import pytest

from experiments.progress import Run
from isnas_jax.running import Event
from isnas_jax.searching.config import Stage

PLAN = {"cohort": Stage(4, 100), "validate": Stage(9, 100), "restore": Stage(3, 300)}


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


EVENTS = [
    Event(("cohort", 1, 4), 40, 40),  # stopped early
    Event(("cohort", 4, 4), 90, 100),  # the third is from an earlier run; this one resumes at 90
    Event(("validate", 1, 3), 0, 100),  # one network has all the weight
    Event(("restore", 1, 1), 0, 80),
]


@pytest.mark.parametrize(
    ("events", "done", "left"),
    [
        (0, 0, 4 * 100 + 9 * 100 + 3 * 300),
        (1, 40, 3 * 100 + 9 * 100 + 3 * 300),
        (2, 40, 100 + 10 + 9 * 100 + 3 * 300),
        (3, 40, 100 + 10 + 3 * 100 + 3 * 300),
        (4, 40, 100 + 10 + 100 + 80),
    ],
)
def test_time_left_is_that_of_all_iterations_at_the_speed_so_far(events, done, left, clock):
    """A case takes the first of EVENTS."""
    run = Run(PLAN, clock)
    clock.now = 1000.0  # compilation
    for number in (1, 2):
        run(Event(("cohort", number, 4), 0, 100))
    assert run.left() == (0.0, False)
    clock.now += 20.0
    for event in EVENTS[:events]:
        run(event)
    seconds, complete = run.left()
    assert complete == bool(done)
    assert seconds == pytest.approx(left * 20 / done if done else 0)


def test_a_run_without_a_speed_shows_no_time(clock):
    run = Run({"restore": Stage(1, 10)}, clock)
    assert run.line() == "0:00:00 elapsed, time left not known yet, compiling"
    assert run.fraction() == 0
    clock.now = 20.0
    run(Event(("restore", 1, 1), 10, 10))  # its first event is its last
    assert run.line() == "0:00:20 elapsed, about 0:00:00 left, restore (10/10 iterations)"
    assert run.fraction() == 1


def test_scores_count_in_addition_to_fits(clock):
    run = Run({"cohort": Stage(2, 100)}, clock)
    for done, now in ((1, 10.0), (2, 12.0)):
        clock.now = now
        run(Event(("score",), done, 8))
    # Six more scores at two seconds each; the speed of fits is not known yet.
    assert run.line() == "0:00:12 elapsed, at least 0:00:12 left, score 2/8, compiling"
    run(Event(("cohort", 1, 2), 50, 100))
    clock.now = 14.0
    run(Event(("score",), 8, 8))
    run(Event(("cohort", 1, 2), 100, 100))
    # 50 iterations took two seconds; 100 are left.
    assert run.left() == (pytest.approx(4.0), True)
    assert run.fraction() == pytest.approx(14 / 18)
    assert "cohort 1/2 (100/100 iterations)" in run.status()


def test_units_of_a_study_count_from_where_they_resume(clock):
    run = Run(None, clock)
    run(Event(("units",), 6, 10))
    clock.now = 30.0
    run(Event(("fits", "denoising", "camera", "dip", "0"), 500, 1000))
    run(Event(("units",), 6.5, 10))
    assert run.left() == (pytest.approx(3.5 * 60), True)
    assert "units 6/10, fits denoising camera dip 0 (500/1000 iterations)" in run.line()


def test_stages_of_compared_methods_name_image_seed_and_method(clock):
    run = Run(None, clock)
    run(Event(("method", "camera", 3, "DIP", "restore", 1, 1), 5, 10))
    assert run.status().endswith("method camera 3 DIP restore (5/10 iterations)")


def test_a_preview_is_passed_on_and_changes_no_status(clock):
    run, images = Run(PLAN, clock), []
    preview = Event(("preview",), 0, 0, image=np.zeros((2, 2, 1)))
    before = run.line()
    run(preview)  # without a callback
    run.on_image = images.append
    run(preview)
    assert run.line() == before
    assert len(images) == 1
    assert images[0] is preview.image


def test_stages_in_several_threads_are_counted_once(clock):
    run = Run({"restore": Stage(400, 3)}, clock)
    clock.now = 1.0
    run(Event(("restore", 1, 400), 0, 3))
    clock.now = 2.0

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
    assert run.left() == (pytest.approx(400 / 800), True)
