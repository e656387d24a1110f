"""The page of a comparison of methods or of an analysis of a study, read from its folder."""

import pathlib
from collections.abc import Mapping
from typing import Any

import pandas as pd

from isnas_jax.report import elements
from isnas_jax.report.elements import Bar, Chart, Page, Section, plural
from isnas_jax.study.intervals import over_images

# Sections, and the captions of their files by the first part of the file's name.
_SECTIONS = {
    "Images": {
        "comparison": "Clean image, observation and restorations, first seed",
        "qualitative": "Clean image, observation, DIP, NAS-DIP and the genotype of ISNAS-DIP",
    },
    "PSNR": {
        "psnr": "PSNR in dB, mean ± standard error over seeds",
        "psnr_differences": "Mean PSNR in dB, and paired differences with 95 % intervals",
    },
    "SSIM": {
        "ssim": "SSIM, mean ± standard error over seeds",
        "ssim_differences": "Mean SSIM, and paired differences with 95 % intervals",
    },
    "All restorations": {"runs": "PSNR in dB and SSIM of each restoration"},
    "Rank correlation by image": {
        "table1": "Kendall's τ between outcome and score against the observation (N), the clean "
        "image (GT), or at random, with 95 % intervals",
    },
    "Comparison with the paper": {"published": "Kendall's τ in the paper and in this study"},
    "Transfer between images": {
        "figure1": "Standardized PSNR increase of all genotypes, sorted by one image",
        "transfer": "Transfer gap in dB: rows choose the best genotype, columns are restored by it",
        "agreement": "Kendall's τ between images, for best PSNR and for scores",
    },
    "Curves": {"figure2": "PSNR of the EMA by iteration; dots mark the maxima"},
    "Outcomes of all genotypes": {
        "histograms": "Outcomes; the best of cohorts by score and at random are marked",
    },
}
# The outcome of the leading chart, if `table1.csv` has it.
_MAIN_OUTCOME = "best PSNR"


def tables_page(folder: pathlib.Path, config: Mapping[str, Any]) -> Page:
    """Return the page of a comparison or an analysis with this content of its JSON file."""
    if (folder / "runs.csv").is_file():
        page = _comparison(pd.read_csv(folder / "runs.csv"))
    elif "cases" in config:
        page = _study(folder, config)
    else:
        page = Page(config.get("script", "run"), "There are no tables yet.")
    return page._replace(sections=[*page.sections, *_sections(folder)])


def _comparison(runs: pd.DataFrame) -> Page:
    """Return the lead of a comparison: mean PSNR and gain over a reference, by method."""
    means = runs.groupby("method")["psnr"].mean().sort_values(ascending=False)
    reference = "DIP" if "DIP" in means else means.index[-1]
    images, seeds = (plural(runs[name].nunique(), name) for name in ("image", "seed"))
    chart = Chart(
        f"Gain in PSNR over {reference}",
        "Mean of paired differences by image and seed. Lines: 95 % bootstrap intervals over "
        "images. Numbers: gain, its interval, and mean PSNR.",
        [_gain_bar(runs, method, reference) for method in means.index],
    )
    return Page(
        title=f"Comparison of {plural(len(means), 'method')}: "
        f"{', '.join(sorted(set(runs['task'])))}",
        lead=f"{means.index[0]} has the highest mean PSNR over {images} and {seeds}.",
        charts=[chart],
    )


def _gain_bar(runs: pd.DataFrame, method: str, reference: str) -> Bar:
    """Return a method's paired gain over a reference and its mean PSNR, in dB."""
    psnrs = runs.set_index(["task", "image", "seed"]).groupby("method")["psnr"]
    by_case, reference_by_case = psnrs.get_group(method), psnrs.get_group(reference)
    gains = (by_case - reference_by_case).dropna().rename("gain").reset_index()
    gain = over_images(gains, "gain")
    value, low, high = (elements.number(each, "+z.2f") for each in gain)
    detail = f"{by_case.mean():.2f} dB"
    if not pd.isna(gain.low):
        detail = f"{low} to {high}; {detail}"
    return Bar(method, *gain, f"{value} dB", detail, method == reference)


def _study(folder: pathlib.Path, config: Mapping[str, Any]) -> Page:
    """Return the lead of a study: Kendall's τ of each metric with the main outcome, by task."""
    cases = "; ".join(f"{task}: {', '.join(images)}" for task, images in config["cases"].items())
    charts = []
    if (folder / "table1.csv").is_file():
        taus = pd.read_csv(folder / "table1.csv")
        taus = taus[(taus["image"] == "mean") & (taus["reference"] == "observed")]
        taus = taus.dropna(subset="tau")  # of an outcome that is the same for all genotypes
        outcomes = sorted(set(taus["outcome"]), key=lambda outcome: outcome != _MAIN_OUTCOME)
        main = taus[taus["outcome"].isin(outcomes[:1])]
        charts = [_tau_chart(outcomes[0], task, rows) for task, rows in main.groupby("task")]
    return Page(
        title=f"Study of training-free metrics: {config.get('dataset', '')}",
        lead=f"Scores of {config['genotypes']} untrained genotypes against the outcomes of their "
        f"fits. Cases: {cases}.",
        charts=charts,
    )


def _tau_chart(outcome: str, task: str, rows: pd.DataFrame) -> Chart:
    """Return Kendall's τ by metric, lowest first, then the random score's."""
    rows = rows.sort_values("tau", kind="stable")
    first = rows.iloc[0]
    taus = list(zip(rows["metric"], rows["tau"], rows["low"], rows["high"], strict=True))
    taus.append(("random score", first["control"], first["control_low"], first["control_high"]))
    bars = []
    for index, (label, tau, low, high) in enumerate(taus):
        interval = f"{elements.number(low)} to {elements.number(high)}"
        muted = index == len(rows)
        bars.append(Bar(label, tau, low, high, elements.number(tau), interval, muted))
    note = (
        f"{task}, {first['n']} genotypes, mean over images, scored against the observation. "
        "Lines: 95 % bootstrap intervals over genotypes. "
        f"Negative: the lower the score, the higher the {outcome}."
    )
    return Chart(f"Kendall's τ between score and {outcome}", note, bars)


def _sections(folder: pathlib.Path) -> list[Section]:
    """Return the tables and figures of a folder by section, unknown names last."""
    tables, figures = ({path.stem for path in folder.glob(f"*.{s}")} for s in ("csv", "png"))
    # A table with excerpts, such as table1, is too wide for the page.
    tables -= {stem for stem in tables if any(other.startswith(f"{stem}-") for other in tables)}
    captions: dict[str, dict[str, str]] = {title: {} for title in _SECTIONS}
    for stem in sorted(tables | figures):
        name, *details = stem.split("-")
        title = next((title for title, names in _SECTIONS.items() if name in names), name)
        caption = _SECTIONS.get(title, {}).get(name, name.replace("_", " "))
        words = ", ".join(details).replace("_", " ")
        captions.setdefault(title, {})[stem] = f"{caption} ({words})" if details else caption
    return [_section(folder, title, stems) for title, stems in captions.items() if stems]


def _section(folder: pathlib.Path, title: str, captions: Mapping[str, str]) -> Section:
    blocks: list[Any] = []
    counts = {"table": 0, "figure": 0}
    for stem, caption in captions.items():
        plots = elements.plots(folder / f"{stem}.png", caption)
        rows = elements.read_rows(folder / f"{stem}.csv", dtype=str)
        tables = elements.tables(rows, caption)
        counts["table"] += len(tables)
        counts["figure"] += len(plots)
        blocks += [*plots, *tables]
    hint = ", ".join(plural(count, noun) for noun, count in counts.items() if count)
    return Section(title, hint, blocks)
