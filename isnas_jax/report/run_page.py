"""The page of a search or a restoration, read from its folder."""

import datetime
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from isnas_jax import figures
from isnas_jax.io import images, records
from isnas_jax.networks import Genotype
from isnas_jax.report import elements
from isnas_jax.report.elements import Page, Picture, Section, Stat, plural

_Rows: TypeAlias = Sequence[Mapping[str, Any]]
# Columns of `cohort.csv` and their titles on the page.
_COHORT_COLUMNS = {
    "score": "score",
    "validation": "validation error",
    "weight": "weight",
    "restored_at": "stopped at",
    "proxy_psnr": "proxy PSNR, dB",
}


def result_page(folder: pathlib.Path, config: Mapping[str, Any], result: Mapping[str, Any]) -> Page:
    """Return the page of a finished run with this content of `config.json` and `result.json`."""
    cohort = elements.read_rows(folder / "cohort.csv")
    scores = elements.read_rows(folder / "scores.csv")
    restored = np.load(folder / "restored.npy")
    pictures = _pictures(folder, result, restored)
    width = restored.shape[1]
    caption = "The fit with the greatest weight, by iteration"
    curves = elements.plots(folder / "curves.png", caption)
    return Page(
        title=_title(config),
        lead=_lead(result, cohort, scores),
        pictures=pictures[:2],
        width=width,
        stats=[*_quality_stats(result), *_time_stats(folder), _member_stat(result)],
        sections=[
            *_decision(folder, cohort),
            *([Section("Curves", "loss, stopping criterion, PSNR", curves)] if curves else []),
            *_networks(result, scores, cohort),
            _data(folder, pictures[2:], cohort, width),
        ],
    )


def preview_page(folder: pathlib.Path, config: Mapping[str, Any], status: str) -> Page:
    """Return the page of a run with the best images so far; its status is "" if it stopped."""
    now = datetime.datetime.now().strftime("%H:%M:%S")
    lead = f"Running: {status} at {now}."
    if not status:
        lead = f"Stopped at {now}. Run the same command again to resume."
    with Image.open(folder / "restored.png") as restored:
        width = restored.width
    pictures = [
        _picture(folder / "observed.png", "observed"),
        _picture(folder / "restored.png", "restored so far"),
    ]
    return Page(_title(config), lead, pictures, width)


def _title(config: Mapping[str, Any]) -> str:
    source = config.get("image") or config.get("observed") or "an image"
    task = config.get("task") or "restoration"
    return f"{task.replace('_', '-').capitalize()} of {source}"


def _lead(result: Mapping[str, Any], cohort: _Rows, scores: _Rows) -> str:
    members = result["members"]
    name = f"the weighted mean of {len(members)} members"
    lead = f"Restored by {members[0]['member'] if len(members) == 1 else name}"
    if cohort:
        lead += f" from a cohort of {len(cohort)}"
    if scores:
        lead += f", after a search that scored {len(scores)} candidates"
    return f"{lead}."


def _quality(measured: Mapping[str, Any]) -> str:
    return f"{float(measured['psnr']):.2f} dB, SSIM {measured['ssim']:.3f}"


def _quality_stats(result: Mapping[str, Any]) -> list[Stat]:
    """Return the gain in PSNR; the PSNR where the observation has none; [] without clean image."""
    if "restored" not in result:
        return []
    psnr = float(result["restored"]["psnr"])
    gain = psnr - float(result["observed"]["psnr"]) if "observed" in result else np.nan
    if np.isfinite(gain):
        return [Stat(f"{elements.number(gain, '+z.2f')} dB", "gain in PSNR")]
    return [Stat(f"{psnr:.2f} dB", "PSNR")]


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


def _time_stats(folder: pathlib.Path) -> list[Stat]:
    if not (folder / "timings.json").is_file():
        return []
    seconds = records.read_json(folder / "timings.json")["seconds"]
    stages = [f"{stage} {_duration(value)}" for stage, value in seconds.items()]
    return [Stat(_duration(sum(seconds.values())), "time", stages)]


def _member_stat(result: Mapping[str, Any]) -> Stat:
    members = result["members"]
    weights = [f"{member['weight']:.0%} {member['member']}" for member in members]
    return Stat(plural(len(members), "member"), "of the weighted mean", weights)


def _picture(path: pathlib.Path, title: str, caption: str = "") -> Picture:
    return Picture(title, figures.png_uri(path.read_bytes()), caption)


def _pictures(
    folder: pathlib.Path, result: Mapping[str, Any], restored: np.ndarray
) -> list[Picture]:
    """Return observation and restoration, then clean image and difference where there are some."""
    pictures = [
        _picture(path, title, _quality(result[title]) if title in result else "")
        for title in ("observed", "restored", "clean")
        if (path := folder / f"{title}.png").is_file()
    ]
    with Image.open(folder / "observed.png") as file:
        same_size = file.size == restored.shape[1::-1]
    if same_size:  # a smaller observation may be too small for `images.load`
        difference = images.load(folder / "observed.png") - restored
        uri = figures.image_uri(0.5 + difference)
        pictures.append(Picture("observed minus restored", uri, "mid-gray is no difference"))
    return pictures


def _genotype(name: str) -> Genotype | None:
    """Return the genotype of a name, or None for a baseline or another search space."""
    try:
        return Genotype.parse(name)
    except ValueError:
        return None


def _genotype_columns(name: str) -> dict[str, Any]:
    genotype = _genotype(name)
    return {
        "upsampling cell": genotype.cell_in_words() if genotype else "",
        "skips": Markup(figures.skip_matrix(genotype.skip_matrix())) if genotype else "",
    }


def _decision(folder: pathlib.Path, cohort: _Rows) -> list[Section]:
    if not cohort:
        return []
    rows = []
    for row in cohort:
        member = escape(row["member"])
        if row["selected"]:
            member += Markup(" <strong>selected</strong>")
        columns = {title: row[name] for name, title in _COHORT_COLUMNS.items() if name in row}
        rows.append({"member": member} | columns | _genotype_columns(row["member"]))
    if any(row["validation"] != "" for row in cohort):
        text = (
            "Each network of the cohort was fitted to a training problem. The error on the "
            "validation problem decided when to stop and gave the weights; lower is better."
        )
    else:
        text = (
            "Each network of the cohort was fitted to all measurements until its stopping rule "
            "ended the fit. Selection and combination gave the weights."
        )
    text += " The clean image is used for evaluation only."
    caption = "Errors by iteration; a dot marks the iteration of the restoration"
    blocks = [
        elements.paragraph(text),
        *elements.tables(rows, "Cohort"),
        *elements.plots(folder / "decisions.png", caption),
    ]
    return [Section("How it was decided", "cohort, validation errors, weights", blocks)]


def _networks(result: Mapping[str, Any], scores: _Rows, cohort: _Rows) -> list[Section]:
    """Return the diagrams of the restoration's networks and the scores of all candidates."""
    figure = Markup("<figure>{}<figcaption>{}; upsampling cell: {}</figcaption></figure>")
    diagrams = [
        figure.format(Markup(genotype.diagram()), genotype, genotype.cell_in_words())
        for member in result["members"]
        if (genotype := _genotype(member["member"]))
    ]
    blocks: list[Any] = []
    if diagrams:
        blocks.append(elements.paragraph("Blue: encoder (left) and decoder. Orange: skips."))
        blocks.append(Markup('<div class="diagrams">{}</div>').format(Markup("").join(diagrams)))
    if scores:
        metric = list(scores[0])[1]
        fitted = {row["member"] for row in cohort}
        rows = [
            {"rank": rank, "genotype": row["genotype"], metric: row[metric]}
            | {"cohort": "fitted" if row["genotype"] in fitted else ""}
            | _genotype_columns(row["genotype"])
            for rank, row in enumerate(sorted(scores, key=lambda row: row[metric]), start=1)
        ]
        caption = f"Candidates by score of the untrained network, {metric}; lower is better"
        blocks += elements.tables(rows, caption)
    hint = f"diagrams, scores of {len(scores)} candidates" if scores else "diagrams"
    return [Section("Networks", hint, blocks)] if blocks else []


def _data(folder: pathlib.Path, pictures: Sequence[Picture], cohort: _Rows, width: int) -> Section:
    members = [
        _picture(path, f"cohort: {row['member']}", f"weight {row['weight']:.2f}")
        for row in cohort
        if (path := folder / "cohort" / f"{int(row['rank']):02d}.png").is_file()
    ]
    caption = (
        "Power spectra in dB. Untrained networks whose outputs match the observation in the gray "
        "strip, 0.05 to 0.1 cycles per pixel, score best."
    )
    blocks = [
        elements.render("viewer", width),
        elements.render("images", [*pictures, *members]),
        *elements.plots(folder / "spectra.png", caption),
    ]
    return Section("Data", "all images, differences, power spectra", blocks)
