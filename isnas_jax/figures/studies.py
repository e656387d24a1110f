"""Pictures of studies and comparisons. Each function returns a matplotlib figure."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isnas_jax.figures import style
from isnas_jax.figures.style import BLUE, GREEN, GREY, ORANGE


def _panels(number: int, width: float, height: float) -> tuple[Any, list[Any]]:
    """Axes side by side, at most five a row, that share their vertical scale."""
    columns = min(number, 5)
    rows = -(-number // columns)
    figure, axes = style.new(rows, columns, (width * columns, height * rows), sharey=True)
    for unused in axes.flat[number:]:
        unused.axis("off")
    return figure, list(axes.flat[:number])


def _legend_below(figure: Any, axis: Any) -> None:
    handles, names = axis.get_legend_handles_labels()
    figure.legend(handles, names, fontsize=8, ncols=4, loc="outside lower center")


def transfer(increases: Mapping[str, np.ndarray], reference: str) -> Any:
    """PSNR increase of genotypes on every image, the reference's best first.

    Each panel draws an image's genotypes and, as a line, what the reference
    made of the same ones (figure 1 of the supplement).

    Args:
      increases: By image (N,), standardized.
      reference: The image that the genotypes are sorted by.
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
    """PSNR of the exponential mean by iteration, a line a network, its peak marked."""
    import matplotlib

    figure, axes = style.new(1, 1, (5.5, 3.4))
    axis = axes[0, 0]
    colors = matplotlib.colormaps["cividis"](np.linspace(0, 0.8, len(fits)))
    lines = itertools.cycle(("-", "--", "-.", ":"))
    for color, line, (name, values) in zip(colors, lines, fits.items(), strict=False):
        peak = int(np.argmax(values))
        axis.plot(values, color=color, lw=1.2, ls=line, label=name)
        axis.plot(peak, values[peak], "o", color=color, mec="white", ms=6)
    lowest = min(values[len(values) // 20 :].min() for values in fits.values())
    axis.set(xlabel="iteration", ylabel="PSNR of the mean, dB", ylim=(lowest, None))
    axis.legend(fontsize=7, title="peaks marked", title_fontsize=7)
    return figure


def histograms(
    values: Mapping[str, np.ndarray],
    marks: Mapping[str, Mapping[str, float]],
    random: Mapping[str, tuple[float, float]],
    label: str,
) -> Any:
    """Histograms of what genotypes reach, a panel an image, with marked values.

    Args:
      values: By image (N,).
      marks: By image: values by what they are.
      random: By image: mean and standard deviation, drawn as a band.
      label: Of the horizontal axis.
    """
    figure, axes = _panels(len(values), 2.6, 2.4)
    for axis, (image, ours) in zip(axes, values.items(), strict=True):
        axis.hist(ours, bins=20, color="#BBBBBB")
        mean, spread = random[image]
        axis.axvspan(mean - spread, mean + spread, color=GREY, alpha=0.35, lw=0)
        axis.axvline(mean, color=GREY, lw=1, label="best of random (mean, s.d.)")
        looks = zip((ORANGE, BLUE, GREEN), ("--", "-.", ":"), marks[image].items(), strict=False)
        for color, line, (name, value) in looks:
            axis.axvline(value, color=color, ls=line, lw=1.6, label=name)
        axis.set_title(image, fontsize=9)
        axis.set_xlabel(label, fontsize=8)
    axes[0].set_ylabel("genotypes")
    _legend_below(figure, axes[0])
    return figure


def qualitative(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A grid of images (H, W, C), their titles above them, each with a detail enlarged.

    The detail is the quarter, by side, of the first image of its row that varies most.
    """
    from matplotlib.patches import Rectangle

    columns = max(map(len, rows))
    figure, axes = style.new(len(rows), columns, (2 * columns, 2.35 * len(rows)))
    for axis in axes.flat:
        axis.axis("off")
    for row_axes, row in zip(axes, rows, strict=True):
        first = np.asarray(next(iter(row.values())))
        top, left, side = _liveliest(first)
        for axis, (title, image) in zip(row_axes, row.items(), strict=False):
            style.show(axis, image)
            axis.set_title(title, fontsize=8)
            scale = np.shape(image)[0] / first.shape[0]
            box = [round(edge * scale) for edge in (top, left, side)]
            detail = axis.inset_axes((0.55, 0.0, 0.45, 0.45))
            style.show(detail, image[box[0] : box[0] + box[2], box[1] : box[1] + box[2]])
            for spine in detail.spines.values():
                spine.set(color=ORANGE, linewidth=1.2)
            corner = (box[1] - 0.5, box[0] - 0.5)
            axis.add_patch(Rectangle(corner, box[2], box[2], fill=False, color=ORANGE, lw=1.2))
    return figure


def _liveliest(image: np.ndarray) -> tuple[int, int, int]:
    """Top, left and side of the window that varies most, clear of the lower right corner."""
    height, width = image.shape[:2]
    side = min(height, width) // 4
    places = [
        (top, left)
        for top in range(0, height - side + 1, max(side // 2, 1))
        for left in range(0, width - side + 1, max(side // 2, 1))
        if top + side <= 0.55 * height or left + side <= 0.55 * width
    ]
    top, left = max(
        places,
        key=lambda at: image[at[0] : at[0] + side, at[1] : at[1] + side].std(axis=(0, 1)).sum(),
    )
    return top, left, side
