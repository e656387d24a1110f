"""Pictures of a run, drawn with matplotlib (an extra): images, spectra, curves."""

import pathlib
from collections.abc import Mapping
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


def _save(figure: Figure, path: pathlib.Path) -> None:
    # Without its date and version a picture is the same for the same data.
    figure.savefig(path, dpi=150, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def comparison(path: pathlib.Path, images: Mapping[str, Any]) -> None:
    """Images (H, W, C) side by side, each under its title; smaller ones are enlarged."""
    figure, axes = plt.subplots(1, len(images), figsize=(3 * len(images), 3.4), squeeze=False)
    for axis, (title, image) in zip(axes[0], images.items(), strict=True):
        image = np.clip(np.asarray(image), 0, 1)
        axis.imshow(
            image[..., 0] if image.shape[-1] == 1 else image,
            cmap="gray",
            vmin=0,
            vmax=1,
            interpolation="nearest",
        )
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
