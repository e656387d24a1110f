"""Progress reports: one type for fits, scores, searches and studies."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np


class Event(NamedTuple):
    """One progress report.

    Attributes:
      stage: What is in progress: a kind and, where there are several, a number from 1 and their
        count, such as ("score",), ("cohort", 2, 9), ("restore", 1, 3) or ("preview",). Units of
        a study report by their name.
      done: Iterations or evaluations done so far; previews have 1 of 1.
      total: The largest number there will be; a fit that stopped early reports the number done.
      loss: Latest loss of a fit; nan elsewhere.
      seconds: Time since this stage began in this process, compilation included.
      image: (H, W, C), the best restoration so far, when a new one is available; else None.
    """

    stage: tuple
    done: float
    total: float
    loss: float = float("nan")
    seconds: float = 0.0
    image: np.ndarray | None = None


Progress: TypeAlias = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Ignore all events."""


def with_stage(progress: Progress, *stage: object) -> Progress:
    """Return a callback that reports every event under the given stage."""
    return lambda event: progress(event._replace(stage=stage))
