"""A run's folder as one HTML file that needs nothing else, made of its records alone.

What `report` wrote for a search, a restoration, a comparison or an analysis is
read again, so that the page can be made anew at any time. Needs jinja2, pandas and
pillow.
"""

import datetime
import json
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import markupsafe
import numpy as np
import pandas as pd
from PIL import Image

from isnas_jax import figures
from isnas_jax.io import images, records
from isnas_jax.networks import Genotype

PAGE = "report.html"
MOST_ROWS = 500
# Characters of a number that is shown as its file spells it.
_ROUNDED = 7
# Seconds after which the page of a run that goes on reloads itself.
_RELOAD = 5
# How wide the divided pair of images is shown at first, in pixels.
_WIDE = 600

# Of tables and figures by their files' names, in the order of a page.
_CAPTIONS = {
    "comparison": "Truth, observation and what the methods made of it, first seed",
    "psnr": "PSNR in dB: mean ± standard error over seeds",
    "psnr_differences": "PSNR in dB, paired: what ISNAS-DIP wins, with 95 % intervals",
    "ssim": "SSIM: mean ± standard error over seeds",
    "ssim_differences": "SSIM, paired: what ISNAS-DIP wins, with 95 % intervals",
    "runs": "Every run",
    "table1": "Kendall's τ of scores without training with what came of the fits; negative: the "
    "lower the score, the more of it; with 95 % intervals, and a random score as control",
    "published": "The paper's numbers beside these",
    "figure1": "PSNR increase of all genotypes on each image, in the order of one of them",
    "agreement": "Kendall's τ between images: of what genotypes reach, and of their scores",
    "transfer": "What is lost where another image's best genotypes are taken",
    "figure2": "PSNR of several networks by iteration, peaks marked",
    "histograms": "What all genotypes reach, the best by score beside as many at random",
    "qualitative": "Truth, observation, DIP, NAS-DIP and the genotype of the best score",
}


class Picture(NamedTuple):
    """An image or a figure of the page.

    Attributes:
      title: A word or two.
      uri: Its address.
      alt: For those who do not see it.
      facts: What is known of it.
      width: In pixels.
    """

    title: str
    uri: str
    alt: str
    facts: str = ""
    width: int = 0

    @property
    def zoom(self) -> int:
        """How many times larger it is shown at first."""
        return max(1, _WIDE // self.width)


class Table(NamedTuple):
    """Rows that have the same columns."""

    rows: Sequence[Mapping[str, Any]]
    caption: str


class Drawing(NamedTuple):
    """SVG text and what it shows."""

    svg: markupsafe.Markup
    caption: str


class Section(NamedTuple):
    """A part of the page under a heading."""

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    drawings: Sequence[Drawing] = ()


def write_page(folder: pathlib.Path, status: str | None = None) -> pathlib.Path:
    """Makes `report.html` in a folder of its records; returns its path.

    Args:
      folder: The folder.
      status: Stage and time left of a run that goes on: the page shows the images so far and
        reloads itself. "" for a run that an error ended, None for a finished one.

    Raises:
      ValueError: If there are no records of a run.
    """
    folder = pathlib.Path(folder)
    kept = {
        path.name: path.read_text(encoding="utf-8")
        for name in ("analysis", "config", "result", "timings")
        if (path := folder / f"{name}.json").is_file()
    }
    if not kept:
        raise ValueError(f"{str(folder)!r} holds no records of a run, such as config.json")
    config = json.loads(kept.get("analysis.json") or kept.get("config.json", "{}"))
    if status is not None:
        page = _unfinished(folder, config, status)
    elif "result.json" in kept and "analysis.json" not in kept:
        result = json.loads(kept["result.json"])
        page = _run(folder, config, result)
    else:
        page = _tables(folder, config)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("isnas_jax.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["shown"] = _shown
    command = folder / records.COMMAND
    text = environment.get_template("page.html").render(
        command=command.read_bytes().decode(errors="replace") if command.is_file() else "",
        records=kept,
        reload=_RELOAD if status else None,
        **page,
    )
    # A path that is not Unicode has characters that UTF-8 lacks.
    records.write_bytes(folder / PAGE, text.encode(errors="replace"))
    return folder / PAGE


class _Spelled(float):
    """A number that was rounded where its text was written: 27.70."""

    text: str


def _spelled(text: str) -> _Spelled | str:
    """The number that a text spells, else the text."""
    try:
        number = _Spelled(text)
    except ValueError:
        return text
    number.text = text
    return number


def _shown(value: Any) -> Any:
    if isinstance(value, _Spelled) and len(value.text) <= _ROUNDED:
        return value.text
    return f"{value:.4g}" if isinstance(value, float) else value


def _read(path: pathlib.Path, dtype: Any = None) -> list[dict[str, Any]]:
    """The rows of a CSV file; what is missing is an empty text."""
    if not path.is_file():
        return []
    frame = pd.read_csv(path, dtype=dtype).astype(object)
    return frame.where(frame.notna(), "").to_dict("records")


def _plot(path: pathlib.Path, alt: str) -> list[Picture]:
    return [Picture(path.stem, figures.png_uri(path.read_bytes()), alt)] if path.is_file() else []


def _genotype(name: str) -> Genotype | None:
    """That of a name; None for the name of something else, or another space's."""
    try:
        return Genotype.parse(name)
    except ValueError:
        return None


def _in_words(name: str) -> dict[str, Any]:
    """Columns that say what a genotype is."""
    genotype = _genotype(name)
    if genotype is None:
        return {"upward by": "", "skips": ""}
    drawn = markupsafe.Markup(figures.skip_matrix(genotype.skip_matrix()))
    return {"upward by": genotype.cell_in_words(), "skips": drawn}


def _quality(found: Mapping[str, Any]) -> str:
    return f"{float(found['psnr']):.2f} dB, SSIM {found['ssim']:.3f}"


def _run(
    folder: pathlib.Path, config: Mapping[str, Any], result: Mapping[str, Any]
) -> dict[str, Any]:
    """A search's or a restoration's page."""
    cohort = _read(folder / "cohort.csv")
    members = [f"{member['member']} ({member['weight']:.0%})" for member in result["members"]]
    lead = f"Restored by {', '.join(members)}."
    if "restored" in result:
        before = f"from {_quality(result['observed'])} " if "observed" in result else ""
        lead += f" It goes {before}to {_quality(result['restored'])}, by the clean image."
    sections = [
        _decided(folder, cohort),
        _drawn(result["members"]),
        _ranking(_read(folder / "scores.csv"), [row["member"] for row in cohort]),
        Section(
            "The fit with the greatest weight",
            pictures=_plot(folder / "curves.png", "Its loss and PSNR by iteration"),
        ),
        Section(
            "Power spectra",
            "What the search compares: untrained networks whose outputs have the observation's "
            "spectrum in the gray strip, 0.05 to 0.1 cycles per pixel, score best.",
            pictures=_plot(
                folder / "spectra.png",
                "Spectra in dB as planes, and averaged over circles, of the images above",
            ),
        ),
        _facts(config, folder),
    ]
    return {
        "title": _title(config),
        "lead": lead,
        "images": _images(folder, result, cohort),
        "sections": [part for part in sections if part.pictures or part.tables or part.drawings],
    }


def _title(config: Mapping[str, Any]) -> str:
    source = config.get("image") or config.get("observed") or "an image"
    return f"{config.get('script', 'run')}: {source}, {config.get('task', '')}"


def _unfinished(folder: pathlib.Path, config: Mapping[str, Any], status: str) -> dict[str, Any]:
    """The page of a search or a restoration that has no result yet."""
    with Image.open(folder / "restored.png") as opened:
        width = opened.width
    pictures = [
        Picture(title, figures.png_uri((folder / f"{name}.png").read_bytes()), alt, "", width)
        for name, title, alt in (
            ("observed", "observed", "The image, observed"),
            ("restored", "restored so far", "The best restoration so far"),
        )
    ]
    now = datetime.datetime.now().strftime("%H:%M:%S")
    lead = f"Running: {status} at {now}." if status else f"Stopped at {now}; the command goes on."
    return {"title": _title(config), "lead": lead, "images": pictures, "sections": []}


def _images(
    folder: pathlib.Path, result: Mapping[str, Any], cohort: Sequence[Mapping[str, Any]]
) -> list[Picture]:
    """Observation and result first, for they are compared first."""
    found = []
    restored = np.load(folder / "restored.npy")
    width = restored.shape[1]

    def add(path, title, facts=""):
        if path.is_file():
            uri = figures.png_uri(path.read_bytes())
            found.append(Picture(title, uri, f"The image, {title}", facts, width))

    for title in ("observed", "restored", "clean"):
        add(folder / f"{title}.png", title, _quality(result[title]) if title in result else "")
    with Image.open(folder / "observed.png") as opened:
        same = opened.size == restored.shape[1::-1]
    if same:
        observed = images.load(folder / "observed.png")
        uri = figures.image_uri(0.5 + (observed - restored))
        alt = "Observed less restored; mid-gray is no difference"
        found.append(Picture("difference", uri, alt, "observed less restored", width))
    for row in cohort:
        path = folder / "cohort" / f"{int(row['rank']):02d}.png"
        add(path, f"cohort: {row['member']}", f"weight {row['weight']:.2f}")
    return found


def _decided(folder: pathlib.Path, cohort: Sequence[Mapping[str, Any]]) -> Section:
    """Who was chosen, with what weights, and where each stopped."""
    if not cohort:
        return Section("")
    heads = {
        "member": "member",
        "score": "score",
        "validation": "validation error",
        "weight": "weight",
        "restored_at": "stopped at",
        "proxy_psnr_by_truth": "PSNR, dB (by the clean image)",
    }
    rows = []
    for row in cohort:
        chosen = {"chosen": "selected" if row["selected"] else ""}
        named = {title: row[name] for name, title in heads.items() if name in row}
        rows.append(chosen | named | _in_words(row["member"]))
    said = "; ".join(
        f"{row['member']}"
        + (f" stopped at {row['restored_at']:.0f}" if row["restored_at"] != "" else "")
        + f", weight {row['weight']:.2f}"
        for row in cohort
    )
    return Section(
        "Who was chosen",
        "Each member of the cohort was fitted to a part of what is known, and stopped and weighed "
        "by the rest; lower errors are better. The clean image decides nothing.",
        [Table(rows, "The cohort")],
        _plot(folder / "decisions.png", f"Errors by iteration. {said}"),
    )


def _drawn(members: Sequence[Mapping[str, Any]]) -> Section:
    """The networks of the result."""
    drawings = [
        Drawing(
            markupsafe.Markup(genotype.diagram()),
            f"{genotype}, upward by {genotype.cell_in_words()}",
        )
        for member in members
        if (genotype := _genotype(member["member"]))
    ]
    return Section(
        "The networks",
        "Blue is the encoder, on the left, and the decoder; orange are the skips.",
        drawings=drawings,
    )


def _ranking(scores: Sequence[Mapping[str, Any]], cohort: Sequence[str]) -> Section:
    """All candidates by their scores."""
    if not scores:
        return Section("")
    metric = list(scores[0])[1]
    rows = [
        {"rank": rank, "genotype": row["genotype"], metric: row[metric]}
        | {"fitted": "in the cohort" if row["genotype"] in cohort else ""}
        | _in_words(row["genotype"])
        for rank, row in enumerate(sorted(scores, key=lambda row: row[metric]), start=1)
    ]
    text = "Untrained, by how well the spectra of their random outputs fit; lower is better."
    if len(rows) > MOST_ROWS:
        text += f" The best {MOST_ROWS} of {len(rows)}; all are in scores.csv."
    return Section("All candidates", text, [Table(rows[:MOST_ROWS], f"Scores by {metric}")])


def _facts(flag_values: Mapping[str, Any], folder: pathlib.Path) -> Section:
    """The numbers that people look for first."""
    config = flag_values.get("config", flag_values)
    fit, network = config.get("fit", {}), config.get("network", {})
    found = {
        "seed": flag_values.get("seed"),
        "channels": network.get("channels"),
        "iterations, at most": fit.get("iterations"),
        "sigma": flag_values.get("sigma") if flag_values.get("task") == "denoising" else None,
        **flag_values.get("versions", {}),
    }
    if (file := folder / "timings.json").is_file():
        seconds = records.read_json(file)["seconds"]
        found |= {f"{stage}, seconds": round(value, 1) for stage, value in seconds.items()}
    rows = [
        {"what": name, "value": str(value)} for name, value in found.items() if value is not None
    ]
    return Section("In numbers", tables=[Table(rows, "Of this run")] if rows else ())


def _tables(folder: pathlib.Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """A comparison's or an analysis's page: its tables, as they are spelled, and its figures."""
    sections = []
    stems = _in_order({path.stem for path in folder.glob("*.csv")} | {*_figures(folder)})
    for stem in stems:
        title = _caption(stem)
        rows = [
            {name: _spelled(str(value)) for name, value in row.items()}
            for row in _read(folder / f"{stem}.csv", dtype=str)
        ]
        text = f"The first {MOST_ROWS} of {len(rows)} rows." if len(rows) > MOST_ROWS else ""
        found = [Table(rows[:MOST_ROWS], title)] if rows else []
        sections.append(Section(title, text, found, _plot(folder / f"{stem}.png", title)))
    what = config.get("dataset") or ", ".join(config.get("images") or [])
    return {
        "title": f"{config.get('script', 'run')}: {what}",
        "lead": _of_runs(folder / "runs.csv") or _of_analysis(config),
        "images": [],
        "sections": [*sections, _facts(config, folder)],
    }


def _of_runs(path: pathlib.Path) -> str:
    """What a comparison found, in a sentence or two; nothing without one."""
    if not path.is_file():
        return ""
    runs = pd.read_csv(path)
    means = runs.groupby("method")["psnr"].mean().sort_values(ascending=False)
    reached = ", ".join(f"{method} {psnr:.2f} dB" for method, psnr in means.items())
    numbers = {what: runs[what].nunique() for what in ("image", "seed")}
    size = [f"{number} {what}{'s' * (number != 1)}" for what, number in numbers.items()]
    return f"{', '.join([*sorted(set(runs['task'])), *size])}. Mean PSNR: {reached}."


def _of_analysis(config: Mapping[str, Any]) -> str:
    """What was analysed; nothing of anything else."""
    if "cases" not in config:
        return ""
    cases = "; ".join(f"{task}: {', '.join(images)}" for task, images in config["cases"].items())
    return (
        f"{config['genotypes']} genotypes. Images by task: {cases}. Scores marked N compare with "
        "what was observed, GT with the clean image."
    )


def _in_order(stems: Collection[str]) -> list[str]:
    """Tables and figures as a page has them: first those that have a caption."""
    order = [*_CAPTIONS]

    def place(stem: str) -> tuple[bool, int, str]:
        name = stem.split("-")[0]
        # One that others are excerpts of is long.
        long = any(other.startswith(f"{stem}-") for other in stems)
        return long, order.index(name) if name in order else len(order), stem

    return sorted(stems, key=place)


def _caption(stem: str) -> str:
    """What a table or figure is, by its file's name: NAME-DETAIL-..."""
    name, *details = stem.replace("_", " ").split("-")
    caption = _CAPTIONS.get(stem) or _CAPTIONS.get(name, name)
    return f"{caption} ({', '.join(details)})" if details else caption


def _figures(folder: pathlib.Path) -> list[str]:
    return [path.stem for path in folder.glob("*.png")]
