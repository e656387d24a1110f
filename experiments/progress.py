"""Where a run is: bars on a terminal, a line now and then in a file."""

import re
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

from tqdm import tqdm

from isnas_jax.fitting import Progress

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


class Whole:
    """The whole run beside its stages: iterations of all fits, so that the time left is known.

    Args:
      shown: Where both are shown.
      expected: For the first word of the stages' names, in their order, how many such
        stages there will be and of how many iterations, both at most. Until they
        begin: then their names say how many there are.
    """

    def __init__(self, shown: Shown, expected: Mapping[str, tuple[int, int]]) -> None:
        self._shown = shown
        self._expected = expected
        self._heard: dict[str, Progress] = {}
        self._left: dict[str, int] = {}

    def __call__(self, stage: str, news: Any, note: str = "") -> None:
        self._shown(stage, news, note)
        if not isinstance(news, Progress):
            return
        self._heard[stage] = news
        kind, (position, count) = stage.split()[0], _position(stage)
        self._left[kind] = min(count - position, self._left.get(kind, count))
        done = sum(one.iteration for one in self._heard.values())
        total = sum(one.iterations for one in self._heard.values())
        for kind, (number, iterations) in reversed(list(self._expected.items())):
            total += self._left.get(kind, number) * iterations
            if kind in self._left:  # what comes before it has ended
                break
        self._shown("whole run", (done, total))

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
