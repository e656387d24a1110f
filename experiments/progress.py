"""Where a run is: bars on a terminal, a line now and then in a file."""

import re
import sys
import threading
import time
from typing import Any, Protocol

from tqdm import tqdm

from isnas_jax.fitting import Progress
from isnas_jax.searching.stages import Stages

# Seconds between two lines of a stage.
_EVERY = 10.0


class Shown(Protocol):
    """Takes a stage, where it is (a `Progress`, or the pair done and total), and what to add."""

    def __call__(self, stage: str, news: Any, note: str = "") -> None: ...

    def close(self) -> None:
        """Ends what is shown."""


def shown() -> Shown:
    """What suits where it is shown."""
    return Bars() if sys.stderr.isatty() else Lines()


def _read(news: Any, note: str) -> tuple[int, int, str]:
    """Done, total, and what to add."""
    if isinstance(news, Progress):
        return news.iteration, news.iterations, f"loss {news.loss:.5f}"
    return *news, note


def _position(stage: str) -> tuple[int, int]:
    """Which of how many a stage is: 8 of 27 for "cohort 3/9, fold 2/3"; 1 of 1 without numbers."""
    position, count = 0, 1
    for number, of in re.findall(r"(\d+)/(\d+)", stage):
        position, count = position * int(of) + int(number) - 1, count * int(of)
    return position + 1, count


def _kind(stage: str) -> str:
    """Of the stage of this name: its first word."""
    return re.split(r"\W", stage)[0]


class Whole:
    """The whole run beside its stages: iterations of all fits, so that the time left is known.

    What a fit had done before counts as neither done nor to be done.

    Args:
      shown: Where both are shown.
      expected: The kinds of stages to come, until the stages' names say how many there are.
    """

    def __init__(self, shown: Shown, expected: Stages) -> None:
        self._shown = shown
        self._expected = expected
        self._first: dict[str, int] = {}
        self._now: dict[str, Progress] = {}
        self._to_come: dict[str, int] = {}
        self._lock = threading.Lock()

    def __call__(self, stage: str, news: Any, note: str = "") -> None:
        with self._lock:  # stages may have threads of their own
            self._shown(stage, news, note)
            if isinstance(news, Progress):
                self._hear(stage, news)
                done = sum(one.iteration - self._first[name] for name, one in self._now.items())
                self._shown("whole run", (done, done + self._left()))

    def _hear(self, stage: str, news: Progress) -> None:
        self._first.setdefault(stage, news.iteration)
        self._now[stage] = news
        kind, (position, count) = _kind(stage), _position(stage)
        self._to_come[kind] = min(count - position, self._to_come.get(kind, count))

    def _left(self) -> int:
        left = sum(one.iterations - one.iteration for one in self._now.values())
        for kind, (number, iterations) in reversed(list(self._expected.items())):
            left += self._to_come.get(kind, number) * iterations
            if kind in self._to_come:  # what comes before it has begun
                break
        return left

    def close(self) -> None:
        self._shown.close()


class Bars:
    """Progress bars, one a stage; several may be on their way at once."""

    def __init__(self) -> None:
        self._bars: dict[str, tqdm] = {}

    def __call__(self, stage: str, news: Any, note: str = "") -> None:
        done, total, note = _read(news, note)
        if stage not in self._bars:
            # What was done when a stage is first heard of took no time that is known.
            self._bars[stage] = tqdm(total=total, initial=done, desc=stage, file=sys.stderr)
        bar = self._bars[stage]
        bar.total = total
        bar.update(done - bar.n)
        bar.set_postfix_str(note)
        if done >= total:
            self._bars.pop(stage).close()

    def close(self) -> None:
        for bar in self._bars.values():
            bar.close()
        self._bars.clear()


class Lines:
    """Lines: one every ten seconds of a stage, and one at its end."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[float, int]] = {}
        self._said: dict[str, float] = {}

    def __call__(self, stage: str, news: Any, note: str = "") -> None:
        (done, total, note), now = _read(news, note), time.monotonic()
        begun, first = self._begun.setdefault(stage, (now, done))
        if done < total and now - self._said.setdefault(stage, begun) < _EVERY:
            return
        self._said[stage] = now
        line = f"{stage}: {done}/{total}{', ' if note else ''}{note}"
        if first < done < total:
            line += f", {(total - done) * (now - begun) / (done - first):.0f} s left at most"
        print(line, file=sys.stderr, flush=True)
        if done >= total:
            del self._begun[stage], self._said[stage]

    def close(self) -> None:
        self._begun.clear()
