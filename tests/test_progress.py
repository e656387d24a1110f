import sys
import threading
import time

from experiments.progress import Bars, Lines, Whole
from isnas_jax.fitting import Progress


def test_bars_of_several_stages_at_once(capsys):
    bars = Bars()
    for iteration in (50, 100):
        for stage in ("cohort 1/2", "cohort 2/2"):
            bars(stage, Progress(iteration, 100 if iteration == 100 else 800, 0.1, 20.0))
    shown = capsys.readouterr().err
    assert shown.count("cohort 1/2: 100%") == shown.count("cohort 2/2: 100%") >= 1
    assert not bars._bars


def test_lines_in_a_file_are_few_and_whole(capsys, monkeypatch):
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    lines = Lines()
    for done in range(0, 101, 10):
        lines("restore", Progress(done, 100, 0.25, 20.0))
    lines("restore", (1, 2))
    assert capsys.readouterr().err.splitlines() == [
        "restore: 40/100, loss 0.25000, 18 s left at most",
        "restore: 80/100, loss 0.25000, 6 s left at most",
        "restore: 100/100, loss 0.25000",
    ]


class Heard(list):
    """What is shown of the whole run."""

    def __call__(self, stage, news, note=""):
        if stage == "whole run":
            self.append(news)

    def close(self):
        self.append("closed")


def at(iteration, iterations):
    return Progress(iteration, iterations, 0.1, 20.0)


def test_the_whole_run_is_what_was_done_and_what_is_to_come_at_most():
    heard = Heard()
    whole = Whole(heard, {"cohort": (4, 100), "validate": (9, 100), "restore": (3, 300)})
    whole("score", (3, 8))
    for stage in ("cohort 1/2, fold 1/2", "cohort 1/2, fold 2/2"):
        whole(stage, at(0, 100))
    # The first stopped early; the third was there from a run before, and no one hears of it.
    whole("cohort 1/2, fold 1/2", at(40, 40))
    # The fourth goes on where it was: 90 of its iterations are not of this run.
    whole("cohort 2/2, fold 2/2", at(90, 100))
    # One network has all the weight.
    whole("validate, fold 1/3", at(0, 100))
    whole("restore", at(0, 80))
    whole.close()
    assert heard == [
        (0, 4 * 100 + 9 * 100 + 3 * 300),
        (0, 4 * 100 + 9 * 100 + 3 * 300),
        (40, 40 + 3 * 100 + 9 * 100 + 3 * 300),
        (40, 40 + 100 + 10 + 9 * 100 + 3 * 300),
        (40, 40 + 100 + 10 + 3 * 100 + 3 * 300),
        (40, 40 + 100 + 10 + 100 + 80),
        "closed",
    ]


def test_stages_in_threads_of_their_own_are_counted_once():
    heard = Heard()
    whole = Whole(heard, {"restore": (400, 2)})

    def work(first):
        for number in range(first, 401, 4):
            for iteration in (0, 1, 2):
                whole(f"restore {number}/400", at(iteration, 2))

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
    assert len(heard) == 1200
    assert heard[-1] == (800, 800)
