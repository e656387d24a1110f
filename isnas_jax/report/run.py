"""Files of a search or a restoration: images, figures and records in one folder.

Images are float32 (H, W, C) in [0, 1]. Needs matplotlib, scikit-image and tabulate.
"""

import io
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tabulate import tabulate

from isnas_jax import figures
from isnas_jax.fitting import Fit
from isnas_jax.io import images, records
from isnas_jax.ops import quality
from isnas_jax.problems import Problem, Proxy
from isnas_jax.report.page import PAGE, write_page
from isnas_jax.searching import SearchResult, oracle


def write_scores(
    folder: pathlib.Path, genotypes: Sequence[Any], scores: Mapping[str, np.ndarray]
) -> None:
    """Write `scores.csv`: mean and standard deviation over K initializations, a row per genotype.

    The scores are (N, K) for each metric; lower is better.
    """
    columns: dict[str, Any] = {"genotype": map(str, genotypes)}
    for metric, values in scores.items():
        columns[metric] = values.mean(axis=1).tolist()
        columns[f"{metric} std"] = values.std(axis=1).tolist()
    rows = zip(*columns.values(), strict=True)
    records.write_csv(folder / "scores.csv", [dict(zip(columns, row, strict=True)) for row in rows])


def write_timings(folder: pathlib.Path, seconds: Mapping[str, float]) -> None:
    """Write `timings.json`, the seconds of each stage, unless the file exists.

    A resumed run is faster because it reuses cached results, so the first timings stay.
    """
    if not (folder / "timings.json").exists():
        records.write_json(folder / "timings.json", {"seconds": seconds})


def _write_cohort(
    folder: pathlib.Path, result: SearchResult, problem: Problem, proxy: Proxy | None, clean: Any
) -> None:
    """Write the images of a cohort, `cohort.csv` and `decisions.png`; evaluate on the proxy."""
    cohort = result.cohort
    psnrs = None if clean is None else oracle(cohort, problem, proxy, clean)
    errors = None if cohort.folds[0].validation is None else cohort.errors
    rows = []
    for rank, member in enumerate(cohort.members):
        images.save(folder / "cohort" / f"{rank:02d}.png", cohort.images[rank])
        stops = [fit.restored_at for fit in cohort.fits(rank)]
        row = {
            "rank": rank,
            "member": str(member),
            "score": float(cohort.scores[rank]),
            "validation": None if errors is None else float(errors[rank]),
            "weight": float(result.weights[rank]),
            "restored_at": round(float(np.mean(stops)), 1) if stops else None,
            "selected": rank == result.selected,
        }
        if psnrs is not None:
            row["proxy_psnr"] = psnrs[rank]
            row["oracle"] = rank == int(np.argmax(psnrs))
        rows.append(row)
    records.write_csv(folder / "cohort.csv", rows)
    figures.save(result.plot(), folder / "decisions.png")


def write_search(
    folder: pathlib.Path,
    result: SearchResult,
    problem: Problem,
    proxy: Proxy | None,
    metric: str,
    clean: Any = None,
    *,
    bits: int = 8,
) -> dict[str, Any]:
    """Write all files of a search and return the record of its restoration.

    Args:
      folder: Folder to write to.
      result: The search.
      problem: The problem that was restored.
      proxy: The proxy that the cohort was fitted to.
      metric: Name of the metric that scored the candidates.
      clean: The clean image (H, W, C), for evaluation.
      bits: Bits per channel of image files: 8 or 16.
    """
    candidates = result.candidates
    if candidates.scored:
        write_scores(folder, candidates.genotypes, {metric: candidates.scores})
    _write_cohort(folder, result, problem, proxy, clean)
    write_timings(folder, result.seconds)
    members = [
        Member(str(result.cohort.members[rank]), float(result.weights[rank]), fit)
        for rank, (_, fit) in result.restorations.items()
    ]
    return write_restoration(folder, problem, result.restored, members, clean, bits=bits)


class Member(NamedTuple):
    """One term of the weighted mean that is the restoration.

    Attributes:
      name: Name of an architecture or of a classical restoration.
      weight: Weight in the mean, in [0, 1].
      fit: Fit to the whole problem; None for a classical restoration.
    """

    name: str
    weight: float
    fit: Fit | None

    def record(self) -> dict[str, Any]:
        """Return the member as an entry of `result.json`."""
        record: dict[str, Any] = {"member": self.name, "weight": self.weight}
        if self.fit:
            record |= {"iterations": len(self.fit.loss), "restored_at": self.fit.restored_at}
            if self.fit.psnr_ema is not None:
                record["best_psnr_ema"] = float(np.max(self.fit.psnr_ema))
                record["best_ema_at"] = int(np.argmax(self.fit.psnr_ema))
        return record


def write_restoration(
    folder: pathlib.Path,
    problem: Problem,
    restored: np.ndarray,
    members: Sequence[Member],
    clean: Any = None,
    *,
    bits: int = 8,
) -> dict[str, Any]:
    """Write the images, figures and curves of a restoration.

    Args:
      folder: Folder to write to.
      problem: The problem that was restored.
      restored: The restoration (H, W, C).
      members: Terms of the weighted mean. Curves are written for the fit with the greatest weight.
      clean: The clean image (H, W, C), for evaluation.
      bits: Bits per channel of image files: 8 or 16.

    Returns:
      The content of `result.json`: members, sigma and quality.
    """
    observed = np.asarray(problem.observed)
    record: dict[str, Any] = {"members": [member.record() for member in members]}
    if problem.sigma is not None:
        record["sigma"] = float(problem.sigma)
    shown = {"observed": observed, "restored": restored}
    if clean is not None:
        shown["clean"] = clean = np.asarray(clean)
        record["restored"] = quality.report(restored, clean)
        if observed.shape == clean.shape:
            record["observed"] = quality.report(observed, clean)
    for name, image in shown.items():
        images.save(folder / f"{name}.png", image, bits=bits)
    content = io.BytesIO()
    np.save(content, restored)
    records.write_bytes(folder / "restored.npy", content.getvalue())
    titled = {
        f"{name}\n{record[name]['psnr']:.2f} dB" if name in record else name: image
        for name, image in shown.items()
    }
    figures.save(figures.comparison(titled), folder / "comparison.png")
    figures.save(figures.power_spectra(shown), folder / "spectra.png")
    fitted = [member for member in members if member.fit]
    if fitted:
        _write_curves(folder, max(fitted, key=lambda member: member.weight).fit)
    records.write_json(folder / "result.json", record)
    return record


def _write_curves(folder: pathlib.Path, fit: Any) -> None:
    curves = fit.curves()
    figures.save(figures.curves(curves, fit.restored_at), folder / "curves.png")
    columns = itertools.zip_longest(*(map(float, values) for values in curves.values()))
    rows = (
        {"iteration": iteration} | dict(zip(curves, values, strict=True))
        for iteration, values in enumerate(columns)
    )
    records.write_csv(folder / "curves.csv", rows)


def write_preview(
    folder: pathlib.Path, problem: Problem, restored: np.ndarray, status: str, *, bits: int = 8
) -> None:
    """Write the best restoration so far (H, W, C) and a page that reloads itself.

    `write_restoration` and `write_page` replace both when the run ends. See `write_page` for the
    status; image files have 8 or 16 bits per channel.
    """
    images.save(folder / "observed.png", np.asarray(problem.observed), bits=bits)
    images.save(folder / "restored.png", restored, bits=bits)
    write_page(folder, status)


def summary(record: Mapping[str, Any], folder: pathlib.Path) -> str:
    """Return the content of `result.json` as text for the terminal, with the path of the page."""
    rows = []
    for member in record["members"]:
        row = {"member": member["member"], "weight": member["weight"]}
        row["stopped at"] = member.get("restored_at")
        if "best_psnr_ema" in member:
            row["best PSNR of the EMA, dB (oracle)"] = member["best_psnr_ema"]
        rows.append(row)
    table = tabulate(rows, headers="keys", floatfmt=".2f", missingval="")
    page = f"see {folder / PAGE}"
    if "restored" not in record:
        return f"{table}\n\n{page}"
    restored = record["restored"]
    before = f"{record['observed']['psnr']:.2f} dB to " if "observed" in record else ""
    return f"{table}\n\n{before}{restored['psnr']:.2f} dB, SSIM {restored['ssim']:.3f}; {page}"
