"""The progress of a run: a bar with the time left, or lines in a file; the page of a run."""

import contextlib
import functools
import math
import pathlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
from tqdm import tqdm

from isnas_jax import report
from isnas_jax.problems import Problem
from isnas_jax.running import Event
from isnas_jax.searching import Plan

# Seconds between two updates of a terminal; of a file, or the page.
_TERMINAL_INTERVAL, _FILE_INTERVAL = 0.5, 10.0
_BAR = "{percentage:3.0f}%|{bar:20}| {n:.0f}/{total_fmt} {unit} [{elapsed}<{remaining}] {desc}"


def _label(stage: tuple) -> str:
    """Return a stage in words: ("cohort", 2, 9) is "cohort 2/9"."""
    match stage:
        case (*names, int(number), int(count)):
            return " ".join([*map(str, names), f"{number}/{count}"])
    return " ".join(map(str, stage))


class Run:
    """Shows a run on standard error, from its events.

    The plan lists the fits of the run, whose iterations the bar counts. Without a plan, the bar
    counts units, scores or compared methods. Work of an earlier run and the time before the first
    event, in which programs are compiled, do not count for the speed.
    """

    def __init__(self, plan: Plan | None = None):
        # Called with the best restoration so far, (H, W, C), and the status.
        self.on_image: Callable[[np.ndarray, str], object] | None = None
        # Called with the status from time to time after the first image.
        self.on_status: Callable[[str], object] | None = None
        self._plan = plan or {}
        self._first: dict[tuple, float] = {}  # iterations at the first event of a fit
        self._latest: dict[tuple, Event] = {}
        self._fits_left: dict[str, int] = {}  # fits of a kind that have not begun
        self._begun = False
        self.shown_at = math.inf  # when the page was last written, in seconds
        self._lock = threading.RLock()  # stages may run in several threads
        terminal = sys.stderr.isatty()
        self.bar = tqdm(
            desc="compiling",
            unit="iterations",
            total=sum(fits * iterations for fits, iterations in self._plan.values()) or None,
            bar_format=_BAR if terminal else f"{_BAR}\n",
            leave=False,
            dynamic_ncols=True,
            mininterval=_TERMINAL_INTERVAL if terminal else _FILE_INTERVAL,
            miniters=0,
            smoothing=0,
        )

    def __call__(self, event: Event) -> None:
        """Take an event."""
        with self._lock:
            if event.image is not None:
                if self.on_image:
                    self.on_image(event.image, self.status())
                    self.shown_at = time.monotonic()
                return
            kind, *others = event.stage
            if kind in self._plan:
                self._advance(*self._count_fits(event))
            elif not others and not self._plan:
                self.bar.unit = kind
                self._advance(event.done, event.total)
            if others or self._plan:
                text = f"{_label(event.stage)} ({event.done}/{event.total})"
                self.bar.set_description_str(text, refresh=False)
            self.bar.update(0)
            if self.on_status and time.monotonic() - self.shown_at >= _FILE_INTERVAL:
                self.on_status(self.status())
                self.shown_at = time.monotonic()

    def _advance(self, done: float, total: float) -> None:
        if not self._begun:
            self._begun = True
            self.bar.reset(total)
            self.bar.initial = done
        self.bar.n, self.bar.total = done, total

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

    def status(self) -> str:
        """Return the time left and the stage."""
        values = {**self.bar.format_dict, "bar_format": "{remaining} left, {desc}"}
        return tqdm.format_meter(**values)


def show_previews(run: Run, folder: pathlib.Path, problem: Problem, bits: int) -> None:
    """Write the best restoration so far and its page, unless the folder holds a result."""
    if not (folder / "result.json").exists():
        run.on_image = functools.partial(report.write_preview, folder, problem, bits=bits)
        run.on_status = functools.partial(report.write_page, folder)


@contextlib.contextmanager
def shown(plan: Plan | None = None) -> Iterator[Run]:
    """Show a run on standard error until the block ends."""
    begin, run = time.monotonic(), Run(plan)
    try:
        yield run
    except BaseException:
        if run.on_status and run.shown_at < math.inf:
            run.on_status("")
        raise
    finally:
        run.bar.close()
    seconds = tqdm.format_interval(time.monotonic() - begin)
    print(f"done in {seconds}", file=sys.stderr, flush=True)
