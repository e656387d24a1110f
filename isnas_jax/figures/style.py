"""What all figures share. Matplotlib is an extra, imported where something is drawn.

Figures are made without pyplot, so that drawing leaves a notebook's backend alone.
"""

import io
import os
import pathlib
from typing import Any

import numpy as np

from isnas_jax.io import records

# Okabe and Ito's colors, told apart by every kind of color vision.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"

# Without their date and version, pictures are the same for the same data.
_METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


def use_defaults() -> None:
    """Makes this process draw in matplotlib's own style to files only.

    Neither a matplotlibrc nor the MPLBACKEND of a notebook, whose package may be missing, then
    matters. For scripts; a notebook's figures keep the user's style.
    """
    os.environ["MPLBACKEND"] = "agg"
    import matplotlib

    matplotlib.rcdefaults()


def new(
    rows: int, columns: int, size: tuple[float, float], **options: Any
) -> tuple[Any, np.ndarray]:
    """A figure of this size in inches and its axes, (rows, columns)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def save(figure: Any, *paths: pathlib.Path) -> None:
    """Writes a figure as PNG or PDF, by suffix; equal figures make equal files."""
    for path in paths:
        content = io.BytesIO()
        options = {"format": path.suffix[1:], "metadata": _METADATA[path.suffix]}
        figure.savefig(content, dpi=150, bbox_inches="tight", **options)
        records.write_bytes(path, content.getvalue())


def save_for_print(figure: Any, path: pathlib.Path) -> None:
    """Writes a figure as PNG and as PDF, beside a path without suffix."""
    save(figure, path.with_suffix(".png"), path.with_suffix(".pdf"))


def show(axis: Any, image: Any) -> None:
    """Draw an image (H, W, C) in [0, 1], its pixels sharp, without ticks."""
    image = np.clip(np.asarray(image), 0, 1)
    gray = image.shape[-1] == 1
    pixels = image[..., 0] if gray else image
    axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
