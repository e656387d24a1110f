"""The progress of a run: a bar on a terminal, or a line every ten seconds in a file."""

import contextlib
import datetime
import functools
import os
import pathlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from isnas_jax import report
from isnas_jax.problems import Problem
from isnas_jax.running import Event
from isnas_jax.searching import Plan

# Seconds between two updates of a terminal, and between two lines of a file.
_TERMINAL_INTERVAL, _FILE_INTERVAL = 0.5, 10.0
_BAR_WIDTH = 20


class _Work(NamedTuple):
    """One kind of work: the amounts done at its first event and at the latest."""

    since: float
    first: float
    done: float
    total: float


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


def _label(stage: tuple) -> str:
    """Return a stage in words: ("cohort", 2, 9) is "cohort 2/9"."""
    *names, number, count = stage
    if isinstance(number, int) and isinstance(count, int):
        return " ".join([*map(str, names), *([f"{number}/{count}"] if count > 1 else [])])
    return " ".join(map(str, stage))


class Run:
    """Estimates the time that a run has left, from its events.

    Work before a stage's first event counts neither as done nor as left: a program was compiled, or
    an earlier run did it.

    The plan lists the fits of the run. Without it, fits are named, but do not count. The clock
    returns seconds.
    """

    def __init__(self, plan: Plan | None = None, clock: Callable[[], float] = time.monotonic):
        # Called with the best restoration so far, (H, W, C), when there is a new one.
        self.on_image: Callable[[np.ndarray], object] | None = None
        # Called with the status from time to time, and with "" if an error ended the run.
        self.on_status: Callable[[str], object] | None = None
        self._plan = plan or {}
        self._clock = clock
        self._begin = clock()
        self._first: dict[tuple, float] = {}  # iterations at the first event of a fit
        self._latest: dict[tuple, Event] = {}
        self._fits_left: dict[str, int] = {}  # fits of a kind that have not begun
        self._work: dict[str, _Work] = {}
        self._stage = "compiling"
        self._lock = threading.RLock()  # stages may run in several threads

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if event.image is not None:
            if self.on_image:
                self.on_image(event.image)
            return
        with self._lock:
            if len(event.stage) == 1:  # counts, such as scores or compared methods
                self._update(event.stage[0], event.done, event.total)
                return
            self._stage = f"{_label(event.stage)} ({event.done}/{event.total} iterations)"
            if event.stage[0] in self._plan:
                self._update("fits", *self._count_fits(event))

    def _update(self, name: str, done: float, total: float) -> None:
        since, first, *_ = self._work.get(name, (self._clock(), done))
        self._work[name] = _Work(since, first, done, total)

    def _count_fits(self, event: Event) -> tuple[float, float]:
        """Return the iterations done in this run and their largest total, after an event."""
        self._first.setdefault(event.stage, event.done)
        self._latest[event.stage] = event
        kind, number, count = event.stage
        self._fits_left[kind] = min(count - number, self._fits_left.get(kind, count))
        done = sum(now.done - self._first[stage] for stage, now in self._latest.items())
        left = sum(now.total - now.done for now in self._latest.values())
        for kind, (fits, iterations) in reversed(list(self._plan.items())):
            left += self._fits_left.get(kind, fits) * iterations
            if kind in self._fits_left:  # earlier kinds have begun
                break
        return done, done + left

    def left(self) -> tuple[float, bool]:
        """Return the seconds left, and whether all work is included: some may have no speed yet."""
        with self._lock:
            now, seconds = self._clock(), 0.0
            complete = bool(self._work) and ("fits" in self._work or not self._plan)
            for work in self._work.values():
                if work.done >= work.total:
                    continue
                if work.done > work.first and now > work.since:
                    speed = (work.done - work.first) / (now - work.since)
                    seconds += (work.total - work.done) / speed
                else:
                    complete = False
            return seconds, complete

    def fraction(self) -> float:
        """Return the fraction of the run's time that has passed, in [0, 1]."""
        elapsed, (left, complete) = self._clock() - self._begin, self.left()
        if not left:
            return float(complete)
        return elapsed / (elapsed + left)

    def status(self) -> str:
        """Return the time left and the stage."""
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
        """Return the elapsed time, the time left and the stage."""
        return f"{_duration(self._clock() - self._begin)} elapsed, {self.status()}"


def show_previews(run: Run, folder: pathlib.Path, problem: Problem, bits: int) -> None:
    """Write the best restoration so far and its page, unless the folder holds a result."""

    def write(image: np.ndarray) -> None:
        report.write_preview(folder, problem, image, run.status(), bits=bits)
        run.on_status = functools.partial(report.write_page, folder)

    if not (folder / "result.json").exists():
        run.on_image = write


def _print(line: str, fraction: float, terminal: bool) -> None:
    """Print a line; on a terminal after a bar, in place of the previous line."""
    if not terminal:
        print(line, file=sys.stderr, flush=True)
        return
    width = (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
    bar = "#" * round(_BAR_WIDTH * fraction)
    text = f"{fraction:4.0%} [{bar:{_BAR_WIDTH}}] {line}" if line else ""
    print(f"\r{text[:width]:{width}}", end="" if line else "\r", file=sys.stderr, flush=True)


@contextlib.contextmanager
def shown(plan: Plan | None = None) -> Iterator[Run]:
    """Show a run on standard error until the block ends."""
    run, ended = Run(plan), threading.Event()
    terminal, begin = sys.stderr.isatty(), time.monotonic()

    def show() -> None:
        reported = begin
        while not ended.wait(_TERMINAL_INTERVAL if terminal else _FILE_INTERVAL):
            _print(run.line(), run.fraction(), terminal)
            if run.on_status and time.monotonic() - reported >= _FILE_INTERVAL:
                reported = time.monotonic()
                with contextlib.suppress(OSError):  # the run itself will report a full disk
                    run.on_status(run.status())

    thread = threading.Thread(target=show, daemon=True)
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
        if run.on_status and not succeeded:
            with contextlib.suppress(OSError):
                run.on_status("")
    print(f"done in {_duration(time.monotonic() - begin)}", file=sys.stderr, flush=True)
