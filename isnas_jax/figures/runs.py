"""Pictures of one run: images beside each other, spectra, curves.

Images are (H, W, C) in [0, 1]. Each function returns a matplotlib figure.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from isnas_jax.figures.style import BLUE, GREEN, GREY, ORANGE, new, show
from isnas_jax.ops import spectra


def comparison(images: Mapping[str, Any]) -> Any:
    """Images side by side, each under its title; smaller ones are enlarged."""
    figure, axes = new(1, len(images), (3 * len(images), 3.4))
    for axis, (title, image) in zip(axes[0], images.items(), strict=True):
        show(axis, image)
        axis.set_title(title, fontsize=10)
        axis.axis("off")
    return figure


def power_spectra(images: Mapping[str, Any]) -> Any:
    """Spectra in dB: the plane of each image, and all of them averaged over circles."""
    widths = [1] * len(images) + [1.5]
    figure, axes = new(1, len(widths), (3.2 * sum(widths), 3), width_ratios=widths)
    profiles = axes[0, -1]
    for axis, (title, image) in zip(axes[0], images.items(), strict=False):
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
        profiles.plot((np.arange(len(profile)) + 0.5)[:32] / 64, profile[:32], label=title)
    profiles.axvspan(0.05, 0.1, color=GREY, alpha=0.2, label="strip")
    profiles.set(xlabel="cycles per pixel", ylabel="PSD, dB")
    profiles.legend(fontsize=8)
    return figure


def curves(recorded: Mapping[str, np.ndarray], restored_at: int) -> Any:
    """What a fit recorded by iteration: `Fit.curves`."""
    rows = len(_panels(recorded))
    figure, axes = new(rows, 1, (6, 2.4 * rows), sharex=True)
    _draw_curves(axes[:, 0], recorded, restored_at)
    return figure


def fit(restored: Any, recorded: Mapping[str, np.ndarray], restored_at: int) -> Any:
    """A restored image beside the curves of its fit."""
    from matplotlib.figure import Figure

    rows = len(_panels(recorded))
    figure = Figure(figsize=(9, 2.2 * rows), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=(1, 2))
    picture, plots = parts
    show(picture.subplots(), restored)
    _draw_curves(plots.subplots(rows, 1, sharex=True, squeeze=False)[:, 0], recorded, restored_at)
    return figure


class Track(NamedTuple):
    """What is drawn of a cohort's member.

    Attributes:
      name: Of its architecture.
      curves: What its fit recorded by iteration; empty without a fit.
      restored_at: The iteration that it stands with; None without a fit.
      selected: Whether it was chosen.
      weight: Its share in the result.
    """

    name: str
    curves: Mapping[str, np.ndarray]
    restored_at: int | None
    selected: bool
    weight: float


def decisions(restored: Any, tracks: Sequence[Track]) -> Any:
    """A result beside the curves of its cohort: where each stopped, who was chosen, what weighs.

    Errors of the validation by how much they exceed the least of all, where there
    are some, else losses; below them, where there is a clean image, the PSNR of the
    exponential means.
    """
    from matplotlib.figure import Figure

    recorded: set[str] = set().union(*(track.curves for track in tracks))
    name, label = "loss", "loss"
    if "validation" in recorded:
        name, label = "validation", "validation error,\n% above the least"
        errors = [track.curves[name] for track in tracks if name in track.curves]
        least = min(np.nanmin(values) for values in errors)
        tracks = [
            track._replace(curves={**track.curves, name: 100 * (track.curves[name] / least - 1)})
            if name in track.curves
            else track
            for track in tracks
        ]
    drawn = {name: label}
    if "psnr_ema" in recorded:
        drawn["psnr_ema"] = "PSNR, dB (evaluation)"
    figure = Figure(figsize=(11, 1.6 + 2.4 * len(drawn)), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=(2, 3))
    show(parts[0].subplots(), restored)
    axes = parts[1].subplots(len(drawn), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (curve, label) in zip(axes, drawn.items(), strict=True):
        for track in tracks:
            title = f"{track.weight:.2f}  {track.name}{', selected' if track.selected else ''}"
            width = 1.8 if track.selected else 0.9
            (line,) = axis.plot(track.curves.get(curve, []), lw=width, label=title)
            if curve in track.curves:
                at = track.restored_at
                axis.plot(at, track.curves[curve][at], "o", color=line.get_color(), ms=7)
        axis.set_ylabel(label)
    if name == "loss":
        axes[0].set_yscale("log")
    else:
        # The start is far above; what decides is close to the least.
        stops = [float(t.curves[name][t.restored_at]) for t in tracks if name in t.curves]
        axes[0].set_ylim(-0.2 * max(1.0, *stops), 5 * max(1.0, *stops))
    axes[-1].set_xlabel("iteration (dot: restored)")
    parts[1].legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper left", fontsize=8, title="weight"
    )
    return figure


def _panels(recorded: Mapping[str, np.ndarray]) -> list[str]:
    """The panels that there is something to draw in, from the top."""
    panels = {
        "PSNR, dB (evaluation)": "psnr" in recorded,
        "loss": True,
        "criterion": bool(np.isfinite(recorded.get("criterion", np.nan)).any()),
    }
    return [name for name, drawn in panels.items() if drawn]


def _draw_curves(axes: Any, recorded: Mapping[str, np.ndarray], restored_at: int) -> None:
    for axis, name in zip(axes, _panels(recorded), strict=True):
        if name.startswith("PSNR"):
            axis.plot(recorded["psnr"], color=BLUE, lw=0.6, alpha=0.6, label="output")
            axis.plot(recorded["psnr_ema"], color=ORANGE, label="exponential mean")
            axis.legend(fontsize=8)
        elif name == "loss":
            axis.semilogy(recorded["loss"], color=BLUE, lw=0.8, label="fitted")
            if "validation" in recorded:
                axis.semilogy(recorded["validation"], color=ORANGE, lw=0.8, label="validation")
                axis.legend(fontsize=8)
        else:
            axis.semilogy(recorded["criterion"], color=GREEN)
        axis.set_ylabel(name)
        axis.axvline(restored_at, color=GREY, ls="--", lw=1)
    axes[-1].set_xlabel("iteration (dashed: restored)")
