"""Progress of a whole run: one bar on a terminal, a line every ten seconds in a file."""

import contextlib
import datetime
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from isnas_jax.fitting import Progress
from isnas_jax.searching.stages import Stages

# Seconds between two updates of a terminal, and between two lines of a file.
_TERMINAL, _FILE = 0.5, 10.0
# Characters of the bar.
_BAR = 20


class _Work(NamedTuple):
    """One kind of work: how much was done when it was first reported, and at the last report."""

    since: float
    first: float
    done: float
    total: float


def _position(stage: str) -> tuple[int, int]:
    """Which of how many a stage is: 8 of 27 for "cohort 3/9, fold 2/3"; 1 of 1 without numbers."""
    position, count = 0, 1
    for number, total in re.findall(r"(\d+)/(\d+)", stage):
        position, count = position * int(total) + int(number) - 1, count * int(total)
    return position + 1, count


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


class Run:
    """Estimates the time that a run has left, from the stages that report to it.

    Work done before a stage's first report counts neither as done nor as left: a program was
    compiled meanwhile, or an earlier run did it.

    Args:
      expected: The fits of the run by kind of stage, until the stages' names give their numbers.
        Without them, only pairs (done, total) count and fits are just named.
      clock: Returns seconds.

    Attributes:
      page: Called with the status now and then, and with "" when an error ended the run.
    """

    page: Callable[[str], object] | None = None

    def __init__(
        self, expected: Stages | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._expected = expected or {}
        self._clock = clock
        self._begin = clock()
        self._first: dict[str, int] = {}
        self._now: dict[str, Progress] = {}
        self._to_come: dict[str, int] = {}
        self._work: dict[str, _Work] = {}
        self._stage = "compiling"
        self._lock = threading.RLock()  # stages may run in several threads

    def __call__(self, stage: str, report: Any) -> None:
        """Takes a stage's report: a `Progress`, or the pair done and total."""
        with self._lock:
            if isinstance(report, Progress):
                self._stage = f"{stage} ({report.iteration}/{report.iterations} iterations)"
                if self._expected:
                    self._update("fits", *self._fits(stage, report))
            else:
                self._update(stage, *report)

    def _update(self, name: str, done: float, total: float) -> None:
        since, first, *_ = self._work.get(name, (self._clock(), done))
        self._work[name] = _Work(since, first, done, total)

    def _fits(self, stage: str, report: Progress) -> tuple[int, int]:
        """Iterations done in this run and, at most, in total, after a stage's report."""
        self._first.setdefault(stage, report.iteration)
        self._now[stage] = report
        kind = re.split(r"\W", stage)[0]
        position, count = _position(stage)
        self._to_come[kind] = min(count - position, self._to_come.get(kind, count))
        done = sum(now.iteration - self._first[name] for name, now in self._now.items())
        left = sum(now.iterations - now.iteration for now in self._now.values())
        for kind, (number, iterations) in reversed(list(self._expected.items())):
            left += self._to_come.get(kind, number) * iterations
            if kind in self._to_come:  # the kinds before it have begun
                break
        return done, done + left

    def left(self) -> tuple[float, bool]:
        """Seconds left, and whether that includes all work: some may have no known speed yet."""
        with self._lock:
            return self._left()

    def _left(self) -> tuple[float, bool]:
        now, seconds = self._clock(), 0.0
        complete = bool(self._work) and ("fits" in self._work or not self._expected)
        for work in self._work.values():
            if work.done >= work.total:
                continue
            if work.done > work.first and now > work.since:
                seconds += (work.total - work.done) * (now - work.since) / (work.done - work.first)
            else:
                complete = False
        return seconds, complete

    def fraction(self) -> float:
        """The share of the run's time that has passed, in [0, 1]."""
        elapsed, (left, complete) = self._clock() - self._begin, self.left()
        if not left:
            return float(complete)
        return elapsed / (elapsed + left)

    def status(self) -> str:
        """Time left and stage."""
        with self._lock:
            counts = [
                f"{name} {int(work.done)}/{work.total}"
                for name, work in self._work.items()
                if name != "fits" and work.done < work.total
            ]
            left, complete = self.left()
            stage = ", ".join([*counts, self._stage])
        if not left and not complete:
            return f"time left not known yet, {stage}"
        return f"{'about' if complete else 'at least'} {_duration(left)} left, {stage}"

    def line(self) -> str:
        """Elapsed time, time left and stage."""
        return f"{_duration(self._clock() - self._begin)} elapsed, {self.status()}"


def _print(line: str, fraction: float, terminal: bool) -> None:
    """Prints a line, on a terminal behind a bar and in the place of the line before."""
    if not terminal:
        print(line, file=sys.stderr, flush=True)
        return
    width = (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
    text = f"{fraction:4.0%} [{'#' * round(_BAR * fraction):{_BAR}}] {line}" if line else ""
    print(f"\r{text[:width]:{width}}", end="" if line else "\r", file=sys.stderr, flush=True)


@contextlib.contextmanager
def shown(expected: Stages | None = None) -> Iterator[Run]:
    """Shows a run on standard error, and on its `page` if it has one, until the block ends."""
    run, ended = Run(expected), threading.Event()
    terminal, begin = sys.stderr.isatty(), time.monotonic()

    def tick() -> None:
        paged = begin
        while not ended.wait(_TERMINAL if terminal else _FILE):
            _print(run.line(), run.fraction(), terminal)
            if run.page and time.monotonic() - paged >= _FILE:
                paged = time.monotonic()
                with contextlib.suppress(OSError):  # the run itself will report a full disk
                    run.page(run.status())

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    succeeded = False
    try:
        yield run
        succeeded = True
    finally:
        ended.set()
        thread.join()
        if terminal:
            _print("", 1.0, terminal)
        if run.page and not succeeded:
            with contextlib.suppress(OSError):
                run.page("")
    print(f"done in {_duration(time.monotonic() - begin)}", file=sys.stderr, flush=True)
