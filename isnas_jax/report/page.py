"""A run's folder as one HTML file without external resources.

The page is regenerated from the folder's records alone. Needs jinja2, pandas and pillow.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from isnas_jax.io import records
from isnas_jax.report import elements
from isnas_jax.report.elements import Section
from isnas_jax.report.run_page import preview_page, result_page
from isnas_jax.report.study_page import tables_page

PAGE = "report.html"
# Seconds after which the page of an unfinished run reloads itself.
_RELOAD_SECONDS = 5


def write_page(folder: pathlib.Path, status: str | None = None) -> pathlib.Path:
    """Write `report.html` from the records of a folder and return its path.

    Args:
      folder: Folder of a search, a restoration, a comparison or an analysis.
      status: Stage and time left of an unfinished run, whose page shows the images so far and
        reloads itself; "" for an interrupted run; None for a finished one.

    Raises:
      ValueError: If the folder holds no records.
    """
    folder = pathlib.Path(folder)
    texts = {
        path.name: path.read_text(encoding="utf-8")
        for name in ("analysis", "config", "result", "timings")
        if (path := folder / f"{name}.json").is_file()
    }
    if not texts:
        raise ValueError(f"{str(folder)!r} holds no records of a run, such as config.json")
    config = json.loads(texts.get("analysis.json") or texts.get("config.json", "{}"))
    if status is not None:
        page = preview_page(folder, config, status)
    elif "result.json" in texts and "analysis.json" not in texts:
        page = result_page(folder, config, json.loads(texts["result.json"]))
    else:
        page = tables_page(folder, config)
    page = page._replace(sections=[*page.sections, _repeat(folder, config, texts)])
    html = elements.TEMPLATES.get_template("page.html").render(
        page=page, script=config.get("script", "run"), reload=_RELOAD_SECONDS if status else None
    )
    # A path that is not valid Unicode has surrogates, which UTF-8 cannot encode.
    records.write_bytes(folder / PAGE, html.encode(errors="replace"))
    return folder / PAGE


def _repeat(folder: pathlib.Path, flags: Mapping[str, Any], texts: Mapping[str, str]) -> Section:
    """Return the section with the command, the main values of the config, and the records."""
    config = flags.get("config", flags)
    values = {
        "task": flags.get("task"),
        "sigma, gray levels": json.loads(texts.get("result.json", "{}")).get("sigma"),
        "mask": flags.get("mask"),
        "seed": flags.get("seed"),
        "channels": config.get("network", {}).get("channels"),
        "maximum iterations": config.get("fit", {}).get("iterations"),
        **flags.get("versions", {}),
    }
    lines = [f"{name}: {value}" for name, value in values.items() if value is not None]
    blocks = [elements.preformatted("\n".join(lines))]
    if (command := folder / records.COMMAND).is_file():
        text = command.read_bytes().decode(errors="replace").strip()
        blocks.insert(0, elements.preformatted(text))
    for name, text in texts.items():
        record = Markup("<details><summary>{}</summary>{}</details>")
        blocks.append(record.format(name, elements.preformatted(text)))
    return Section("How to repeat it", "command, config, versions, records", blocks)
