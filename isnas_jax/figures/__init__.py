"""Matplotlib figures, SVG diagrams and HTML images, drawn from arrays.

Images are float32 (H, W, C) in [0, 1], C 1 or 3. Matplotlib is an optional dependency.
"""

from isnas_jax.figures.architecture import diagram, skip_matrix
from isnas_jax.figures.notebook import image_uri, picture, png_uri
from isnas_jax.figures.runs import MemberCurves, comparison, curves, decisions, fit, power_spectra
from isnas_jax.figures.studies import histograms, psnr_curves, qualitative, transfer
from isnas_jax.figures.style import BLUE, GRAY, GREEN, ORANGE, save, save_for_print, use_defaults

__all__ = [
    "BLUE",
    "GRAY",
    "GREEN",
    "ORANGE",
    "MemberCurves",
    "comparison",
    "curves",
    "decisions",
    "diagram",
    "fit",
    "histograms",
    "image_uri",
    "picture",
    "png_uri",
    "power_spectra",
    "psnr_curves",
    "qualitative",
    "save",
    "save_for_print",
    "skip_matrix",
    "transfer",
    "use_defaults",
]
