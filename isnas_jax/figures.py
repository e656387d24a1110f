"""Pictures of runs and studies, drawn with matplotlib (an extra)."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import matplotlib
import numpy as np

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from isnas_jax import spectra

# Okabe and Ito's colours, told apart by every kind of colour vision.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"


# Without their date and version, pictures are the same for the same data.
_METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


def _save(figure: Figure, *paths: pathlib.Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, bbox_inches="tight", metadata=_METADATA[path.suffix])
    plt.close(figure)


def _save_for_print(figure: Figure, path: pathlib.Path) -> None:
    _save(figure, path.with_suffix(".png"), path.with_suffix(".pdf"))


def _show(axis: Any, image: Any) -> None:
    image = np.clip(np.asarray(image), 0, 1)
    grey = image.shape[-1] == 1
    pixels = image[..., 0] if grey else image
    axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set(xticks=[], yticks=[])


def comparison(path: pathlib.Path, images: Mapping[str, Any]) -> None:
    """Images (H, W, C) side by side, each under its title; smaller ones are enlarged."""
    figure, axes = plt.subplots(1, len(images), figsize=(3 * len(images), 3.4), squeeze=False)
    for axis, (title, image) in zip(axes[0], images.items(), strict=True):
        _show(axis, image)
        axis.set_title(title, fontsize=10)
        axis.axis("off")
    _save(figure, path)


def power_spectra(path: pathlib.Path, images: Mapping[str, Any]) -> None:
    """Spectra in dB: the plane of each image, and all of them averaged over circles."""
    figure, axes = plt.subplots(1, len(images) + 1, figsize=(3 * len(images) + 4.5, 3))
    for axis, (title, image) in zip(axes, images.items(), strict=False):
        image = np.asarray(image, np.float32)
        level = np.asarray(
            spectra.decibels(spectra.power_spectral_density(jnp.asarray(image)))
        ).mean(axis=-1)
        axis.imshow(level, cmap="viridis", vmin=-110, vmax=-20, extent=(-0.5, 0.5, 0.5, -0.5))
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("cycles per pixel")
        radius = spectra.radius(*image.shape[:2])
        rings = np.minimum((radius * 64).astype(int), 32)
        counts = np.maximum(np.bincount(rings.ravel()), 1)
        profile = np.bincount(rings.ravel(), level.ravel()) / counts
        axes[-1].plot((np.arange(len(profile)) + 0.5)[:32] / 64, profile[:32], label=title)
    axes[-1].axvspan(0.05, 0.1, color=GREY, alpha=0.2, label="strip")
    axes[-1].set(xlabel="cycles per pixel", ylabel="PSD, dB")
    axes[-1].legend(fontsize=8)
    _save(figure, path)


def curves(
    path: pathlib.Path,
    loss: np.ndarray,
    restored_at: int,
    *,
    psnr: np.ndarray | None = None,
    psnr_mean: np.ndarray | None = None,
    criterion: np.ndarray | None = None,
) -> None:
    """Loss, and PSNR and the stopping rule's criterion where there are any, by iteration."""
    has_criterion = criterion is not None and np.isfinite(criterion).any()
    rows = 1 + (psnr is not None) + has_criterion
    figure, axes = plt.subplots(rows, 1, figsize=(6, 2.4 * rows), sharex=True, squeeze=False)
    panels = list(axes[:, 0])
    if psnr is not None:
        panel = panels.pop(0)
        panel.plot(psnr, color=BLUE, lw=0.6, alpha=0.6, label="output")
        panel.plot(psnr_mean, color=ORANGE, label="exponential mean")
        panel.set_ylabel("PSNR, dB (evaluation)")
        panel.legend(fontsize=8)
    panels[0].semilogy(loss, color=BLUE, lw=0.8)
    panels[0].set_ylabel("loss")
    if has_criterion:
        panels[1].semilogy(criterion, color=GREEN)
        panels[1].set_ylabel("variance")
    for axis in axes[:, 0]:
        axis.axvline(restored_at, color=GREY, ls="--", lw=1)
    axes[-1, 0].set_xlabel("iteration (dashed: restored)")
    _save(figure, path)


def _panels(number: int, width: float, height: float) -> tuple[Figure, list[Any]]:
    """Axes side by side, at most five a row, that share their vertical scale."""
    columns = min(number, 5)
    rows = -(-number // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(width * columns, height * rows),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for unused in axes.flat[number:]:
        unused.axis("off")
    return figure, list(axes.flat[:number])


def _legend_below(figure: Figure, axis: Any) -> None:
    handles, names = axis.get_legend_handles_labels()
    figure.legend(handles, names, fontsize=8, ncols=4, loc="outside lower center")


def transfer(path: pathlib.Path, increases: Mapping[str, np.ndarray], reference: str) -> None:
    """PSNR increase of genotypes on every image, in the order of a reference image.

    Dashed: what the reference's best genotype reaches, and the best there is.
    Genotypes that make an image worse (below 0) are not shown.

    Args:
      path: Without suffix: a PNG and a PDF are written.
      increases: By image (N,), 1 being its best genotype's.
      reference: The image that the genotypes are sorted by.
    """
    order = np.argsort(increases[reference], kind="stable")
    figure, axes = _panels(len(increases), 2.2, 2.4)
    for axis, (image, values) in zip(axes, increases.items(), strict=True):
        color = GREY if image == reference else BLUE
        axis.plot(np.arange(len(order)), values[order], ".", ms=3, color=color)
        axis.axhline(values.max(), color=GREEN, ls="--", lw=1, label="best here")
        best = values[order[-1]]
        axis.axhline(best, color=ORANGE, ls=(0, (2, 2)), lw=1, label=f"best on {reference}")
        axis.set_title(image, fontsize=9)
        axis.set_xlabel(f"rank on {reference}", fontsize=8)
    low = min(values.min() for values in increases.values())
    axes[0].set(ylabel="normalised PSNR increase", ylim=(max(low, 0) - 0.05, 1.05))
    _legend_below(figure, axes[-1])
    _save_for_print(figure, path)


def psnr_curves(path: pathlib.Path, fits: Mapping[str, np.ndarray]) -> None:
    """PSNR of the exponential mean by iteration, a line a network, its peak marked."""
    figure, axis = plt.subplots(figsize=(5.5, 3.4))
    colors = plt.colormaps["cividis"](np.linspace(0, 0.8, len(fits)))
    styles = itertools.cycle(("-", "--", "-.", ":"))
    for color, style, (name, values) in zip(colors, styles, fits.items(), strict=False):
        peak = int(np.argmax(values))
        axis.plot(values, color=color, lw=1.2, ls=style, label=name)
        axis.plot(peak, values[peak], "o", color=color, mec="white", ms=6)
    lowest = min(values[len(values) // 20 :].min() for values in fits.values())
    axis.set(xlabel="iteration", ylabel="PSNR of the mean, dB", ylim=(lowest, None))
    axis.legend(fontsize=7, title="peaks marked", title_fontsize=7)
    _save_for_print(figure, path)


def histograms(
    path: pathlib.Path,
    values: Mapping[str, np.ndarray],
    marks: Mapping[str, Mapping[str, float]],
    random: Mapping[str, tuple[float, float]],
    label: str,
) -> None:
    """Histograms of what genotypes reach, a panel an image, with marked values.

    Args:
      path: Without suffix.
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
        for color, style, (name, value) in looks:
            axis.axvline(value, color=color, ls=style, lw=1.6, label=name)
        axis.set_title(image, fontsize=9)
        axis.set_xlabel(label, fontsize=8)
    axes[0].set_ylabel("genotypes")
    _legend_below(figure, axes[0])
    _save_for_print(figure, path)


def qualitative(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A grid of images (H, W, C), their titles above them, each with a detail enlarged.

    The detail is the quarter, by side, of the first image of its row that varies most.
    """
    columns = max(map(len, rows))
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(2 * columns, 2.35 * len(rows)), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for row_axes, row in zip(axes, rows, strict=True):
        first = np.asarray(next(iter(row.values())))
        top, left, side = _liveliest(first)
        for axis, (title, image) in zip(row_axes, row.items(), strict=False):
            _show(axis, image)
            axis.set_title(title, fontsize=8)
            scale = np.shape(image)[0] / first.shape[0]
            box = [round(edge * scale) for edge in (top, left, side)]
            detail = axis.inset_axes((0.55, 0.0, 0.45, 0.45))
            _show(detail, image[box[0] : box[0] + box[2], box[1] : box[1] + box[2]])
            for spine in detail.spines.values():
                spine.set(color=ORANGE, linewidth=1.2)
            corner = (box[1] - 0.5, box[0] - 0.5)
            axis.add_patch(plt.Rectangle(corner, box[2], box[2], fill=False, color=ORANGE, lw=1.2))
    _save_for_print(figure, path)


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
