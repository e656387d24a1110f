"""Colors, axes and files that all figures use.

Figures bypass pyplot, so drawing leaves a notebook's backend alone. Matplotlib is
imported inside the functions because it is an optional dependency.
"""

import io
import os
import pathlib
from typing import Any

import numpy as np

from isnas_jax.io import records

# From the palette of Okabe and Ito, which is safe for color vision deficiencies.
BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#777777"

# Dates and versions are left out, so equal data gives equal files.
_METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


def use_defaults() -> None:
    """Reset matplotlib to its default style and to the file-only backend.

    Scripts call this to ignore a user's matplotlibrc and a notebook's MPLBACKEND.
    """
    os.environ["MPLBACKEND"] = "agg"
    import matplotlib

    matplotlib.rcdefaults()


def subplots(
    rows: int, columns: int, size: tuple[float, float], **options: Any
) -> tuple[Any, np.ndarray]:
    """Return a figure of a size in inches and its axes, (rows, columns)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def save(figure: Any, *paths: pathlib.Path) -> None:
    """Write a figure as PNG or PDF, chosen by suffix. Equal figures give equal files."""
    for path in paths:
        content = io.BytesIO()
        options = {"format": path.suffix[1:], "metadata": _METADATA[path.suffix]}
        figure.savefig(content, dpi=150, bbox_inches="tight", **options)
        records.write_bytes(path, content.getvalue())


def save_for_print(figure: Any, path: pathlib.Path) -> None:
    """Write a figure as PNG and as PDF; `path` has no suffix."""
    save(figure, path.with_suffix(".png"), path.with_suffix(".pdf"))


def draw_image(axis: Any, image: Any) -> None:
    """Draw an image (H, W, C), clipped to [0, 1], without smoothing or ticks."""
    image = np.clip(np.asarray(image), 0, 1)
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
