"""Figures of studies and comparisons. Each function returns a matplotlib figure."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isnas_jax.figures.style import BLUE, GRAY, GREEN, ORANGE, draw_image, subplots


def _panels(number: int, width: float, height: float) -> tuple[Any, list[Any]]:
    """Return a figure and its axes, at most five per row, with one vertical scale."""
    columns = min(number, 5)
    rows = -(-number // columns)
    figure, axes = subplots(rows, columns, (width * columns, height * rows), sharey=True)
    for unused in axes.flat[number:]:
        unused.axis("off")
    return figure, list(axes.flat[:number])


def _legend_below(figure: Any, axis: Any) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, ncols=4, loc="outside lower center")


def transfer(increases: Mapping[str, np.ndarray], reference: str) -> Any:
    """Draw the PSNR increase of all genotypes on every image (figure 1 of the supplement).

    Genotypes are sorted by their increase on the reference image, highest first. Dots are
    increases on the panel's image, the line those on the reference.

    Args:
      increases: (N,) standardized PSNR increases by image.
      reference: Image to sort by.
    """
    order = np.argsort(-increases[reference], kind="stable")
    figure, axes = _panels(len(increases), 2.2, 2.4)
    for axis, (image, values) in zip(axes, increases.items(), strict=True):
        if image != reference:
            axis.plot(values[order], ".", ms=3, color=BLUE, label="this image")
        axis.plot(increases[reference][order], color=ORANGE, lw=1.2, label=reference)
        axis.set_title(image, fontsize=9)
        axis.set_xlabel(f"rank on {reference}", fontsize=8)
    axes[0].set_ylabel("standardized PSNR increase")
    _legend_below(figure, axes[-1 if reference == next(iter(increases)) else 0])
    return figure


def psnr_curves(fits: Mapping[str, np.ndarray]) -> Any:
    """Draw the PSNR of the EMA by iteration, one line per network; dots mark the maxima.

    Args:
      fits: [T] PSNR in dB by network.
    """
    import matplotlib

    figure, axes = subplots(1, 1, (5.5, 3.4))
    axis = axes[0, 0]
    colors = matplotlib.colormaps["cividis"](np.linspace(0, 0.8, len(fits)))
    line_styles = itertools.cycle(("-", "--", "-.", ":"))
    for color, line_style, (name, values) in zip(colors, line_styles, fits.items(), strict=False):
        peak = int(np.argmax(values))
        axis.plot(values, color=color, lw=1.2, ls=line_style, label=name)
        axis.plot(peak, values[peak], "o", color=color, mec="white", ms=6)
    # The first twentieth of each curve starts far below the others.
    lowest = min(values[len(values) // 20 :].min() for values in fits.values())
    axis.set(xlabel="iteration", ylabel="PSNR of the EMA, dB", ylim=(lowest, None))
    axis.legend(fontsize=7, title="dot: maximum", title_fontsize=7)
    return figure


def histograms(
    values: Mapping[str, np.ndarray],
    marks: Mapping[str, Mapping[str, float]],
    random_best: Mapping[str, tuple[float, float]],
    label: str,
) -> Any:
    """Draw a histogram of the genotypes' outcomes per image, with marked values.

    Args:
      values: (N,) outcomes by image.
      marks: Outcomes to mark, by image and then by label; at most three per image.
      random_best: Mean and standard deviation of the best of random cohorts by image,
        drawn as a line and a band.
      label: Label of the horizontal axis.
    """
    figure, axes = _panels(len(values), 2.6, 2.4)
    for axis, (image, outcomes) in zip(axes, values.items(), strict=True):
        axis.hist(outcomes, bins=20, color="#BBBBBB")
        mean, deviation = random_best[image]
        axis.axvspan(mean - deviation, mean + deviation, color=GRAY, alpha=0.35, lw=0)
        axis.axvline(mean, color=GRAY, lw=1, label="best of random (mean, s.d.)")
        styles = zip((ORANGE, BLUE, GREEN), ("--", "-.", ":"), marks[image].items(), strict=False)
        for color, line_style, (name, value) in styles:
            axis.axvline(value, color=color, ls=line_style, lw=1.6, label=name)
        axis.set_title(image, fontsize=9)
        axis.set_xlabel(label, fontsize=8)
    axes[0].set_ylabel("genotypes")
    _legend_below(figure, axes[0])
    return figure


def qualitative(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Draw a grid of images under their titles, each with an enlarged detail.

    The detail is the window, a quarter of the shorter side, in which the first image of the
    row varies most.

    Args:
      rows: Images (H, W, C) in [0, 1] by title, one mapping per row.
    """
    from matplotlib.patches import Rectangle

    columns = max(map(len, rows))
    figure, axes = subplots(len(rows), columns, (2 * columns, 2.35 * len(rows)))
    for axis in axes.flat:
        axis.axis("off")
    for row_axes, row in zip(axes, rows, strict=True):
        first = np.asarray(next(iter(row.values())))
        window = _most_varied_window(first)
        for axis, (title, image) in zip(row_axes, row.items(), strict=False):
            draw_image(axis, image)
            axis.set_title(title, fontsize=8)
            scale = np.shape(image)[0] / first.shape[0]
            top, left, side = (round(edge * scale) for edge in window)
            detail = axis.inset_axes((0.55, 0.0, 0.45, 0.45))
            draw_image(detail, image[top : top + side, left : left + side])
            for spine in detail.spines.values():
                spine.set(color=ORANGE, linewidth=1.2)
            corner = (left - 0.5, top - 0.5)
            axis.add_patch(Rectangle(corner, side, side, fill=False, color=ORANGE, lw=1.2))
    return figure


def _most_varied_window(image: np.ndarray) -> tuple[int, int, int]:
    """Return top, left and side of the window with the largest standard deviation.

    Windows in the lower right corner are excluded, where the enlarged detail is drawn.
    """
    height, width = image.shape[:2]
    side = min(height, width) // 4
    step = max(side // 2, 1)
    windows = np.lib.stride_tricks.sliding_window_view(image, (side, side), axis=(0, 1))
    variation = windows[::step, ::step].std(axis=(-2, -1)).sum(axis=-1)
    rows, columns = (np.arange(number) * step for number in variation.shape)
    variation[np.ix_(rows + side > 0.55 * height, columns + side > 0.55 * width)] = -1
    row, column = np.unravel_index(np.argmax(variation), variation.shape)
    return int(rows[row]), int(columns[column]), side
