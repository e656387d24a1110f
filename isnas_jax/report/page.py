"""A run's folder as one HTML file without external resources.

The page is regenerated from the folder's records alone. Needs jinja2, pandas and pillow.
"""

import json
import pathlib
from collections.abc import Mapping

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
    page = page._replace(sections=[*page.sections, _repeat(folder, texts)])
    html = elements.TEMPLATES.get_template("page.html").render(
        page=page, script=config.get("script", "run"), reload=_RELOAD_SECONDS if status else None
    )
    # A path that is not valid Unicode has surrogates, which UTF-8 cannot encode.
    records.write_bytes(folder / PAGE, html.encode(errors="replace"))
    return folder / PAGE


def _repeat(folder: pathlib.Path, texts: Mapping[str, str]) -> Section:
    """Return the section with the command and the records."""
    blocks = []
    if (command := folder / records.COMMAND).is_file():
        text = command.read_bytes().decode(errors="replace").strip()
        blocks.append(Markup("<pre>{}</pre>").format(text))
    record = Markup("<details><summary>{}</summary><pre>{}</pre></details>")
    blocks += [record.format(name, text) for name, text in texts.items()]
    return Section("How to repeat it", "command; config, versions and results", blocks)
