"""The best restoration so far, in the folder of a run that goes on."""

import functools
import pathlib
from collections.abc import Callable

import numpy as np

import isnas_jax as isnas
from isnas_jax import report

from .progress import Run


def preview(
    folder: pathlib.Path, problem: isnas.Problem, run: Run, bits: int
) -> Callable[[np.ndarray], None] | None:
    """Return a function that writes a restoration and a page that reloads itself.

    Return None if the folder already holds a result.
    """

    def write(image: np.ndarray) -> None:
        report.write_preview(folder, problem, image, run.status(), bits=bits)
        run.on_status = functools.partial(report.write_page, folder)

    return None if (folder / "result.json").exists() else write
