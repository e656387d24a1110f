"""Elements of a page: images, plots, tables, charts and the sections that hold them.

Elements are `markupsafe.Markup`, or render themselves with the macros in `elements.html`.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import pandas as pd
from markupsafe import Markup
from PIL import Image

from isnas_jax import figures

MAX_ROWS = 500
# Numbers of up to this many characters are shown as their file spells them.
_MAX_CHARACTERS = 7

TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("isnas_jax.report"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


def render(macro: str, *values: Any) -> Markup:
    """Return the HTML of a macro in `elements.html`."""
    return getattr(TEMPLATES.get_template("elements.html").module, macro)(*values)


class Stat(NamedTuple):
    """One figure that matters, with its label and lines of detail."""

    value: str
    label: str
    details: Sequence[str] = ()


class Picture(NamedTuple):
    """An image: its title in a few words, the data URI of its file, and facts about it."""

    title: str
    uri: str
    caption: str


class Table(NamedTuple):
    """Rows with the same columns, by name."""

    rows: Sequence[Mapping[str, Any]]
    caption: str

    def __html__(self) -> Markup:
        return render("table", self)


class Bar(NamedTuple):
    """A row of a chart: a bar from 0 to `value`, with an interval where its ends are not nan."""

    label: str
    value: float
    low: float
    high: float
    text: str  # the value
    detail: str = ""  # further numbers
    muted: bool = False  # for a reference or a control


class Chart(NamedTuple):
    """Horizontal bars from 0 with intervals, on one scale."""

    title: str
    note: str
    bars: Sequence[Bar]

    def limits(self) -> tuple[float, float]:
        """Return the ends of the scale, which includes 0."""
        ends = [end for bar in self.bars for end in (bar.value, bar.low, bar.high)]
        finite = [0.0, *(end for end in ends if math.isfinite(end))]
        low, high = min(finite), max(finite)
        margin = 0.04 * (high - low) or 1.0
        return low - margin, high + margin

    def percent(self, value: float) -> float:
        """Return the position of a value on the scale, in percent."""
        low, high = self.limits()
        return round(100 * (value - low) / (high - low), 2)


class Section(NamedTuple):
    """A folded part of a page: a heading, a hint at the content, and the content."""

    title: str
    hint: str
    blocks: Sequence[Any]


class Page(NamedTuple):
    """A page: a sentence, pictures, charts and statistics, then sections.

    Pictures narrower than 500 pixels, the `width`, are shown pixel by pixel.
    """

    title: str
    lead: str
    pictures: Sequence[Picture] = ()
    width: int = 0
    stats: Sequence[Stat] = ()
    charts: Sequence[Chart] = ()
    sections: Sequence[Section] = ()


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: "1 image", "2 images"."""
    return f"{count} {noun}{'s' * (count != 1)}"


def number(value: float, spec: str = "z.2f") -> str:
    """Return a number by a format specification, with a typographic minus sign."""
    return f"{value:{spec}}".replace("-", "\N{MINUS SIGN}")


def cell(value: Any) -> tuple[Any, float | None]:
    """Return a table cell as it is shown, and its number if it has one."""
    try:
        number = float(value)
    except ValueError:
        return value, None
    spelled = isinstance(value, int) or (isinstance(value, str) and len(value) <= _MAX_CHARACTERS)
    return value if spelled else f"{number:.4g}", number


TEMPLATES.filters["cell"] = cell


def read_rows(path: pathlib.Path, dtype: Any = None) -> list[dict[str, Any]]:
    """Return the rows of a CSV file, missing values as ""; none without the file."""
    if not path.is_file():
        return []
    frame = pd.read_csv(path, dtype=dtype).astype(object)
    return frame.where(frame.notna(), "").to_dict("records")


def paragraph(text: str) -> Markup:
    """Return a paragraph."""
    return Markup("<p>{}</p>").format(text)


def plots(path: pathlib.Path, caption: str) -> list[Markup]:
    """Return a PNG file as a list of one figure; empty without the file."""
    if not path.is_file():
        return []
    with Image.open(path) as figure:
        width = round(figure.width / 1.5)  # 100 pixels per inch of the figure
    return [render("plot", figures.png_uri(path.read_bytes()), caption, width)]


def tables(rows: Sequence[Mapping[str, Any]], caption: str) -> list[Table]:
    """Return rows as a list of one table; empty without rows.

    Empty columns and rows beyond `MAX_ROWS` are dropped; the caption gives the number of all rows.
    """
    if not rows:
        return []
    names = [name for name in rows[0] if any(row[name] != "" for row in rows)]
    if len(rows) > MAX_ROWS:
        caption += f"; the first {MAX_ROWS} of {len(rows)} rows"
    return [Table([{name: row[name] for name in names} for row in rows[:MAX_ROWS]], caption)]
