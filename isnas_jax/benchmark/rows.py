"""The rows of the benchmark: results of a study's fits, small enough to ship.

    fits/TASK+IMAGE+SEED.parquet     a row per architecture: `ROWS`

TASK has the strength of the corruption, such as denoising_25. Errors and
residuals of restorations are stored as products of every two architectures, from which the PSNR
and the validation error of any weighted mean follow. Needs pyarrow.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from isnas_jax.fitting import split_by_key
from isnas_jax.fitting.stopping import count_iterations
from isnas_jax.searching import Cohort, Fold
from isnas_jax.study import Case, Study, key_of, store
from isnas_jax.study.rows import image_row
from isnas_jax.study.units import fit_name

CURVE_INTERVAL = 10  # iterations between two entries of a curve
# Largest relative difference of a validation error from the one that the fit recorded. The
# restorations of a study are stored in steps of 1/255.
_TOLERANCE = 0.02

VERSION = "DIP-Bench 1"
_PSNR_CURVE = pa.list_(pa.uint16())  # thousandths of a dB

ROWS = pa.schema(
    [
        ("architecture", pa.string()),  # a genotype CELL:BITS, or the name of a baseline
        ("channels", pa.int32()),  # of the image
        ("parameters", pa.int32()),  # of the network
        ("stop", pa.int32()),  # the iteration that the stopping rule restores with, from 0
        ("ended", pa.int32()),  # the iterations after which the rule ends the fit
        ("psnr", pa.float32()),  # dB, at the stop
        ("ssim", pa.float32()),  # at the stop
        ("best", pa.int32()),  # the iteration with the highest PSNR
        ("best_psnr", pa.float32()),  # dB
        ("output_curve", _PSNR_CURVE),  # of the outputs, every 10th iteration
        ("ema_curve", _PSNR_CURVE),  # of the bias-corrected EMA, every 10th
        ("biased_ema_curve", _PSNR_CURVE),  # of the EMA of equation 4, every 20th
        ("validation_curve", pa.list_(pa.float32())),  # validation error of the EMA, every 10th
        # With each architecture up to this one, at the stop: the mean product of errors in
        # squared gray levels, and the sum of products of weighted validation residuals.
        ("error_products", pa.list_(pa.float16())),
        ("residual_products", pa.list_(pa.float32())),
    ]
)


def rows_of(study: Study, folder: pathlib.Path, case: Case, seed: int) -> pa.Table:
    """Return the rows of a case and a seed of a study's finished fits; see `ROWS`.

    Architectures without a fit of this seed have no row.

    Raises:
      ValueError: If study and folder do not belong together: their images differ, or a validation
        error, computed from the stored restoration, is not the one that the fit recorded.
    """
    stored = store.read(folder / store.unit_path("images", case.image, case.task)).to_pylist()
    if stored != image_row(case).to_pylist():
        raise ValueError(f"{str(folder)!r} holds fits to another {case.image!r} than the study's")
    where = {"task": case.task, "image": case.image, "seed": seed}
    units = [
        store.unit_path(*fit_name(case.task, case.image, name, seed)).name
        for name in study.architectures
    ]
    columns = [name for name in store.FITS.names if name not in ("loss", "criterion", "best")]
    table = store.read_all(folder / "fits", columns, units=units, where=where)
    fits = {row["architecture"]: row for row in table.to_pylist()}
    names = [name for name in study.architectures if name in fits]
    if not names:
        raise ValueError(f"{str(folder)!r} holds no fit of {where}")
    chosen = [fits[name] for name in names]
    restored = np.stack([store.to_image(row["restored"], case.clean.shape) for row in chosen])
    residuals = _residuals(study, case, seed, names, restored)
    recorded = np.array([row["validation"][row["restored_at"]] for row in chosen])
    errors = np.square(residuals).sum(axis=1)
    worst = np.abs(errors / recorded - 1).max()
    if not worst <= _TOLERANCE:  # nan included
        raise ValueError(
            f"validation errors of {where} differ from the recorded ones by {worst:.1%}; study "
            f"and folder {str(folder)!r} do not belong together"
        )
    differences = 255 * (restored - np.asarray(case.clean)).reshape(len(names), -1)
    error_products = _lower_triangle(differences, 1 / differences.shape[1], np.float16)
    residual_products = _lower_triangle(residuals, 1, np.float32)
    config = study.fit[case.task]
    # Of LeastValidation; the only other rule is FixedIterations: see `packing.check`.
    patience = getattr(config.stopping, "patience", config.iterations)
    patience = count_iterations(patience, config.iterations)
    rows = []
    for index, row in enumerate(chosen):
        rows.append(
            _row(row)
            | {
                "channels": case.clean.shape[2],
                "ended": min(row["restored_at"] + patience + 1, config.iterations),
                "error_products": error_products[index],
                "residual_products": residual_products[index],
            }
        )
    return pa.Table.from_pylist(rows, schema=ROWS)


def write(folder: pathlib.Path, rows: pa.Table, task: str, image: str, seed: int) -> pathlib.Path:
    """Write the rows of a case and seed to a folder of a benchmark, and return the file."""
    path = folder / store.unit_path("fits", task, image, str(seed))
    store.write(path, rows, VERSION)
    return path


def _residuals(
    study: Study, case: Case, seed: int, names: Sequence[str], restored: np.ndarray
) -> np.ndarray:
    """Return the weighted validation residuals (M, P) of restorations (M, H, W, C)."""
    key = key_of(study.seed, "fit", case.image, case.task, seed)
    split: Any = study.fit[case.task].split
    parts = split_by_key(key, case.problem, split)
    fold = Fold(*parts, restored, [None] * len(names))
    scores = np.full(len(names), np.nan)
    return Cohort(names, scores, case.problem, [fold]).residuals.astype(np.float64)


def _lower_triangle(vectors: np.ndarray, scale: float, dtype: type) -> list[np.ndarray]:
    """Return the products of each of (M, P) vectors with those up to it."""
    products = scale * vectors @ vectors.T
    return [row[: index + 1].astype(dtype) for index, row in enumerate(products)]


def _row(fit: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of `ROWS` that a row of `store.FITS` determines, but for products."""

    def curve(name: str, interval: int) -> np.ndarray:
        return np.array(fit[name])[::interval]

    def thousandths(name: str, interval: int = 1) -> np.ndarray:
        return np.rint(1000 * curve(name, interval)).astype(np.uint16)

    return {
        "architecture": fit["architecture"],
        "parameters": fit["parameters"],
        "stop": fit["restored_at"],
        "psnr": fit["restored_psnr"],
        "ssim": fit["restored_ssim"],
        "best": fit["best_ema_at"],
        "best_psnr": fit["best_psnr_ema"],
        "output_curve": thousandths("psnr", CURVE_INTERVAL),
        "ema_curve": thousandths("psnr_ema", CURVE_INTERVAL),
        "biased_ema_curve": thousandths("psnr_biased_ema"),
        "validation_curve": curve("validation", CURVE_INTERVAL),
    }
