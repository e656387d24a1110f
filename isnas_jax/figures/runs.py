"""Figures of one run: images side by side, power spectra, curves.

Images are (H, W, C) in [0, 1]. Curves are arrays [T] by name: `loss`, and where
recorded `validation`, `psnr`, `psnr_ema` and `criterion` (see `Fit`). Each function
returns a matplotlib figure.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from isnas_jax.figures.style import BLUE, GRAY, GREEN, ORANGE, draw_image, subplots
from isnas_jax.ops import spectra


def comparison(images: Mapping[str, Any]) -> Any:
    """Draw images side by side at equal size, each under its title."""
    figure, axes = subplots(1, len(images), (3 * len(images), 3.4))
    for axis, (title, image) in zip(axes[0], images.items(), strict=True):
        draw_image(axis, image)
        axis.set_title(title, fontsize=10)
        axis.axis("off")
    return figure


def power_spectra(images: Mapping[str, Any]) -> Any:
    """Draw the power spectra of images in dB: one plane per image, then all radial averages."""
    widths = [1] * len(images) + [1.5]
    figure, axes = subplots(1, len(widths), (3.2 * sum(widths), 3), width_ratios=widths)
    *planes, averages = axes[0]
    for axis, (title, image) in zip(planes, images.items(), strict=True):
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
        average = np.bincount(rings.ravel(), level.ravel()) / counts
        averages.plot((np.arange(len(average)) + 0.5)[:32] / 64, average[:32], label=title)
    averages.axvspan(0.05, 0.1, color=GRAY, alpha=0.2, label="strip")
    averages.set(xlabel="cycles per pixel", ylabel="PSD, dB")
    averages.legend(fontsize=8)
    return figure


def curves(recorded: Mapping[str, np.ndarray], restored_at: int) -> Any:
    """Draw the curves of a fit, one panel per quantity; a dashed line marks `restored_at`."""
    panels = _panels(recorded)
    figure, axes = subplots(len(panels), 1, (6, 2.4 * len(panels)), sharex=True)
    _draw_curves(axes[:, 0], panels, recorded, restored_at)
    return figure


def fit(restored: Any, recorded: Mapping[str, np.ndarray], restored_at: int) -> Any:
    """Draw a restoration on the left and the curves of its fit on the right."""
    panels = _panels(recorded)
    figure, axes = _beside(restored, len(panels), (9, 2.2 * len(panels)), (1, 2))
    _draw_curves(axes, panels, recorded, restored_at)
    return figure


def _beside(restored: Any, rows: int, size: tuple[float, float], ratios: Any) -> tuple[Any, Any]:
    """Draw an image on the left of a new figure; return the figure and axes on its right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=ratios)  # type: ignore[misc]
    draw_image(left.subplots(), restored)
    return figure, right.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]


class MemberCurves(NamedTuple):
    """The curves and the outcome of one cohort member, for `decisions`.

    Attributes:
      name: Name of the member.
      curves: Arrays [T] by name; empty without a fit.
      restored_at: Iteration of the restoration; None without a fit.
      selected: Whether the selection chose this member.
      weight: Weight in the combination, in [0, 1].
    """

    name: str
    curves: Mapping[str, np.ndarray]
    restored_at: int | None
    selected: bool
    weight: float


def decisions(restored: Any, members: Sequence[MemberCurves]) -> Any:
    """Draw a restoration on the left and the curves of its cohort on the right.

    The upper panel shows validation errors in percent above their minimum, or losses
    where there is no validation. With a clean image, the lower panel shows the PSNR of the EMA.
    """
    errors = [member.curves["validation"] for member in members if "validation" in member.curves]
    minimum = min(map(np.nanmin, errors), default=np.nan)
    labels = (
        {"validation": "validation error,\n% above the minimum"} if errors else {"loss": "loss"}
    )
    if any("psnr_ema" in member.curves for member in members):
        labels["psnr_ema"] = "PSNR, dB (evaluation)"
    size = 11, 1.6 + 2.4 * len(labels)
    figure, axes = _beside(restored, len(labels), size, (2, 3))
    highest = 1.0  # of the marked validation errors
    for axis, (curve, label) in zip(axes, labels.items(), strict=True):
        for member in members:
            title = f"{member.weight:.2f}  {member.name}{', selected' if member.selected else ''}"
            values = member.curves.get(curve, np.empty(0))
            if curve == "validation":
                values = 100 * (values / minimum - 1)
            (line,) = axis.plot(values, lw=1.8 if member.selected else 0.9, label=title)
            if values.size:
                at = member.restored_at
                axis.plot(at, values[at], "o", color=line.get_color(), ms=7)
                highest = max(highest, float(values[at])) if curve == "validation" else highest
        axis.set_ylabel(label)
    if errors:  # the first ones are far above the range in which the decision is made
        axes[0].set_ylim(-0.2 * highest, 5 * highest)
    else:
        axes[0].set_yscale("log")
    axes[-1].set_xlabel("iteration (dot: restored)")
    axes[0].figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper left", fontsize=8, title="weight"
    )
    return figure


def _panels(recorded: Mapping[str, np.ndarray]) -> list[str]:
    """Return the labels of the panels that have data, from the top."""
    has_data = {
        "PSNR, dB (evaluation)": "psnr" in recorded,
        "loss": True,
        "criterion": bool(np.isfinite(recorded.get("criterion", np.nan)).any()),
    }
    return [label for label, drawn in has_data.items() if drawn]


def _draw_curves(
    axes: Any, panels: Sequence[str], recorded: Mapping[str, np.ndarray], restored_at: int
) -> None:
    for axis, label in zip(axes, panels, strict=True):
        if label.startswith("PSNR"):
            axis.plot(recorded["psnr"], color=BLUE, lw=0.6, alpha=0.6, label="output")
            axis.plot(recorded["psnr_ema"], color=ORANGE, label="EMA")
            axis.legend(fontsize=8)
        elif label == "loss":
            axis.semilogy(recorded["loss"], color=BLUE, lw=0.8, label="fitted")
            if "validation" in recorded:
                axis.semilogy(recorded["validation"], color=ORANGE, lw=0.8, label="validation")
                axis.legend(fontsize=8)
        else:
            axis.semilogy(recorded["criterion"], color=GREEN)
        axis.set_ylabel(label)
        axis.axvline(restored_at, color=GRAY, ls="--", lw=1)
    axes[-1].set_xlabel("iteration (dashed: restored)")
