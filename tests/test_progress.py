import sys
import threading

import pytest

from experiments.progress import Run
from isnas_jax.fitting import Progress

STAGES = {"cohort": (4, 100), "validate": (9, 100), "restore": (3, 300)}


def at(iteration, iterations):
    return Progress(iteration, iterations, 0.1, 20.0)


class Clock:
    """Seconds that a test lets pass."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.mark.parametrize(
    ("reports", "done", "left"),
    [
        ({}, 0, 4 * 100 + 9 * 100 + 3 * 300),
        # The first stopped early.
        ({"cohort 1/2, fold 1/2": (40, 40)}, 40, 3 * 100 + 9 * 100 + 3 * 300),
        # The third was there from a run before; the fourth resumes at 90.
        ({"cohort 2/2, fold 2/2": (90, 100)}, 40, 100 + 10 + 9 * 100 + 3 * 300),
        # One network has all the weight.
        ({"validate, fold 1/3": (0, 100)}, 40, 100 + 10 + 3 * 100 + 3 * 300),
        ({"restore": (0, 80)}, 40, 100 + 10 + 100 + 80),
    ],
)
def test_the_time_left_is_that_of_all_iterations_at_the_speed_so_far(reports, done, left, clock):
    """All reports before the last one of the case come first, in the order of the cases."""
    run = Run(STAGES, clock)
    before = {
        "cohort 1/2, fold 1/2": (40, 40),
        "cohort 2/2, fold 2/2": (90, 100),
        "validate, fold 1/3": (0, 100),
        "restore": (0, 80),
    }
    clock.now = 1000.0  # compiling
    for stage in ("cohort 1/2, fold 1/2", "cohort 1/2, fold 2/2"):
        run(stage, at(0, 100))
    assert run.left() == (0.0, False)
    clock.now += 20.0
    for stage, position in before.items():
        if reports:
            run(stage, at(*position))
        if stage in reports:
            break
    seconds, complete = run.left()
    assert complete == bool(done)
    assert seconds == pytest.approx(left * 20 / done if done else 0)


def test_a_run_without_any_speed_shows_no_time_and_no_empty_count(clock):
    run = Run({"restore": (1, 10)}, clock)
    assert run.line() == "0:00:00 elapsed, time left not known yet, compiling"
    assert run.fraction() == 0
    clock.now = 20.0
    run("restore", at(10, 10))  # its first report is its last
    assert run.line() == "0:00:20 elapsed, about 0:00:00 left, restore (10/10 iterations)"
    assert run.fraction() == 1


def test_pairs_count_beside_fits(clock):
    run = Run({"cohort": (2, 100)}, clock)
    for done, now in ((1, 10.0), (2, 12.0)):
        clock.now = now
        run("score", (done, 8))
    # Six more at two seconds each; how long fits take is not known.
    assert run.line() == "0:00:12 elapsed, at least 0:00:12 left, score 2/8, compiling"
    run("cohort 1/2", at(50, 100))
    clock.now = 14.0
    run("score", (8, 8))
    run("cohort 1/2", at(100, 100))
    # 50 iterations in two seconds; 100 to come.
    assert run.left() == (pytest.approx(4.0), True)
    assert run.fraction() == pytest.approx(14 / 18)


def test_units_resume_from_where_they_were(clock):
    run = Run(None, clock)
    run("units", (6, 10))
    clock.now = 30.0
    run("camera", at(500, 1000))
    run("units", (6.5, 10))
    assert run.left() == (pytest.approx(3.5 * 60), True)
    assert "units 6/10, camera (500/1000 iterations)" in run.line()


def test_stages_in_threads_of_their_own_are_counted_once(clock):
    run = Run({"restore": (400, 3)}, clock)
    clock.now = 1.0
    run("restore 1/400", at(0, 3))
    clock.now = 2.0

    def work(first):
        for number in range(first, 401, 4):
            for iteration in (0, 1, 2):
                run(f"restore {number}/400", at(iteration, 3))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(first,)) for first in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert run.left() == (pytest.approx(400 / 800), True)
