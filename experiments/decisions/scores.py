"""What training-free scores predict, from recorded fits."""

import pandas as pd
import scipy.stats

from isnas_jax.study.intervals import over_images

from .curves import ALL

_PSNRS = {"psnr_ema": "EMA", "psnr_debiased": "bias-corrected EMA", "psnr": "output"}


def score_table(curves: pd.DataFrame) -> pd.DataFrame:
    """Return one row per experiment and kind of restoration: what the score predicts.

    Kendall's tau between score and best PSNR over an image's genotypes, and the mean best
    PSNR of the top genotypes less that of the random ones, in dB; means over images.
    """
    genotypes = curves[(curves["fitted_to"] == ALL) & (curves["origin"] != "baseline")]
    rows = {}
    for experiment, fits in genotypes.groupby("experiment", sort=False):
        if not {"top", "random"} <= set(fits["origin"]):
            continue
        for curve, label in _PSNRS.items():
            fits = fits.assign(best=[psnrs.max() for psnrs in fits[curve]])
            by_image = []
            for (image, _), group in fits.groupby(["image", "seed"]):
                tau = scipy.stats.kendalltau(group["score"], group["best"]).statistic
                best = group.groupby("origin")["best"].mean()
                gain = best["top"] - best["random"]
                by_image.append({"image": image, "tau": tau, "gain": gain})
            table = pd.DataFrame(by_image)
            rows[f"{experiment}, {label}"] = {
                "Kendall's τ of score and best PSNR": over_images(table, "tau").shown(),
                "top less random, dB": over_images(table, "gain").shown(),
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("restoration")
