"""What a run leaves in its folder for people: images, figures and tables beside each other.

Images are float32 (H, W, C) in [0, 1]. Needs matplotlib, scikit-image and
tabulate.
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
    folder: pathlib.Path, genotypes: Sequence[Any], values: Mapping[str, np.ndarray]
) -> None:
    """Writes mean and standard deviation of scores (N, K) by metric, a row a genotype."""
    rows = []
    for index, genotype in enumerate(genotypes):
        row: dict[str, Any] = {"genotype": str(genotype)}
        for name, scores in values.items():
            row[name] = float(scores[index].mean())
            row[f"{name} std"] = float(scores[index].std())
        rows.append(row)
    records.write_csv(folder / "scores.csv", rows)


def write_timings(folder: pathlib.Path, seconds: Mapping[str, float]) -> None:
    """Writes how long each stage took, the first time: the one record that differs between runs."""
    if not (folder / "timings.json").exists():
        records.write_json(folder / "timings.json", {"seconds": seconds})


def write_cohort(
    folder: pathlib.Path, found: SearchResult, problem: Problem, proxy: Proxy, clean: Any = None
) -> None:
    """Write the cohort's images, a table and a figure; with a clean image, the oracle's choice."""
    cohort = found.cohort
    psnrs = None if clean is None else oracle(cohort, problem, proxy, clean)
    rows = []
    errors = None if cohort.folds[0].validation is None else cohort.errors
    for rank, member in enumerate(cohort.members):
        stops = [fit.restored_at for fit in cohort.fits(rank)]
        images.save(folder / "cohort" / f"{rank:02d}.png", cohort.images[rank])
        row = {
            "rank": rank,
            "member": str(member),
            "score": float(cohort.scores[rank]),
            "validation": None if errors is None else float(errors[rank]),
            "weight": float(found.weights[rank]),
            "restored_at": round(float(np.mean(stops)), 1) if stops else None,
            "selected": rank == found.selected,
        }
        if psnrs is not None:
            row["proxy_psnr_by_truth"] = psnrs[rank]
            row["oracle_by_truth"] = rank == int(np.argmax(psnrs))
        rows.append(row)
    records.write_csv(folder / "cohort.csv", rows)
    figures.save(found.plot(), folder / "decisions.png")


def write_search(
    folder: pathlib.Path,
    found: SearchResult,
    problem: Problem,
    proxy: Proxy,
    metric: str,
    clean: Any = None,
    *,
    bits: int = 8,
) -> dict[str, Any]:
    """Writes all of a search; returns the record of its restoration."""
    candidates = found.candidates
    if len(candidates.genotypes):
        write_scores(folder, candidates.genotypes, {metric: candidates.scores})
    write_cohort(folder, found, problem, proxy, clean)
    write_timings(folder, found.seconds)
    members = [
        Member(str(found.cohort.members[rank]), float(found.weights[rank]), fit)
        for rank, fit in found.fits.items()
    ]
    return write_restoration(folder, problem, found.restored, members, clean, bits=bits)


class Member(NamedTuple):
    """Whose restoration a result is made of.

    Attributes:
      name: Of the architecture or of a classical restoration.
      weight: Its share.
      fit: Its fit to the whole problem; None of a classical restoration.
    """

    name: str
    weight: float
    fit: Fit | None

    def row(self) -> dict[str, Any]:
        """As a record."""
        row: dict[str, Any] = {"member": self.name, "weight": self.weight}
        if self.fit:
            row |= {"iterations": len(self.fit.loss), "restored_at": self.fit.restored_at}
            if self.fit.psnr_ema is not None:
                row["best_psnr_mean_by_truth"] = float(np.max(self.fit.psnr_ema))
                row["best_iteration_by_truth"] = int(np.argmax(self.fit.psnr_ema))
        return row


def write_restoration(
    folder: pathlib.Path,
    problem: Problem,
    restored: np.ndarray,
    members: Sequence[Member],
    clean: Any = None,
    *,
    bits: int = 8,
) -> dict[str, Any]:
    """Writes images, figures and curves of a restoration.

    Args:
      folder: Where.
      problem: What was restored.
      restored: The result, (H, W, C).
      members: Whose weighted mean it is. The curves are those of the one with
        the greatest weight that has a fit.
      clean: The clean image, for the evaluation.
      bits: Of a channel in the images' files: 8 or 16.

    Returns:
      The record that `result.json` holds.
    """
    fitted = max((member for member in members if member.fit), key=lambda m: m.weight, default=None)
    observed = np.asarray(problem.observed)
    shown = {"observed": observed, "restored": restored}
    record: dict[str, Any] = {"members": [member.row() for member in members]}
    if problem.sigma is not None:
        record["sigma"] = float(problem.sigma)
    if clean is not None:
        clean = np.asarray(clean)
        images.save(folder / "clean.png", clean, bits=bits)
        record["restored"] = quality.report(restored, clean)
        if observed.shape == clean.shape:
            record["observed"] = quality.report(observed, clean)
        quality_of = {"restored": record["restored"], "observed": record.get("observed")}
        shown = {
            f"{title}\n{found['psnr']:.2f} dB" if (found := quality_of[title]) else title: image
            for title, image in shown.items()
        } | {"clean": clean}
    images.save(folder / "observed.png", observed, bits=bits)
    images.save(folder / "restored.png", restored, bits=bits)
    content = io.BytesIO()
    np.save(content, restored)
    records.write_bytes(folder / "restored.npy", content.getvalue())
    figures.save(figures.comparison(shown), folder / "comparison.png")
    planes = {"observed": observed, "restored": restored}
    planes |= {} if clean is None else {"clean": clean}
    figures.save(figures.power_spectra(planes), folder / "spectra.png")
    if fitted and fitted.fit:
        curves = fitted.fit.curves()
        figures.save(figures.curves(curves, fitted.fit.restored_at), folder / "curves.png")
        columns = itertools.zip_longest(*(map(float, values) for values in curves.values()))
        rows = (
            {"iteration": i} | dict(zip(curves, values, strict=True))
            for i, values in enumerate(columns)
        )
        records.write_csv(folder / "curves.csv", rows)
    records.write_json(folder / "result.json", record)
    return record


def write_preview(
    folder: pathlib.Path, problem: Problem, restored: np.ndarray, status: str, *, bits: int = 8
) -> None:
    """Writes the best restoration so far, (H, W, C), and a page that reloads itself.

    `write_restoration` and `write_page` replace both. `write_page` explains the status.
    """
    images.save(folder / "observed.png", np.asarray(problem.observed), bits=bits)
    images.save(folder / "restored.png", restored, bits=bits)
    write_page(folder, status)


def summary(record: Mapping[str, Any], folder: pathlib.Path) -> str:
    """For the terminal: a table of the members, and what came of it."""
    rows = []
    for member in record["members"]:
        row = {"member": member["member"], "weight": member["weight"]}
        row["stopped at"] = member.get("restored_at")
        if "best_psnr_mean_by_truth" in member:
            row["best PSNR, dB (by the clean image)"] = member["best_psnr_mean_by_truth"]
        rows.append(row)
    table = tabulate(rows, headers="keys", floatfmt=".2f", missingval="")
    came = ""
    if "restored" in record:
        before = f"{record['observed']['psnr']:.2f} dB to " if "observed" in record else ""
        came = f"{before}{record['restored']['psnr']:.2f} dB, SSIM {record['restored']['ssim']:.3f}"
    return f"{table}\n\n{came}{'; ' if came else ''}see {folder / PAGE}"
