"""Elements of a page: images, plots, tables, charts and the sections that hold them.

The template chooses a macro by the name of an element's class.
"""

import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import markupsafe
import numpy as np
import pandas as pd
from PIL import Image

from isnas_jax import figures

MAX_ROWS = 500
MAX_COLUMNS = 8
# Numbers of up to this many characters are shown as their file spells them.
_MAX_CHARACTERS = 7


class Stat(NamedTuple):
    """One figure that matters, with its label and lines of detail."""

    value: str
    label: str
    details: Sequence[str] = ()


class Picture(NamedTuple):
    """An image shown pixel by pixel.

    Attributes:
      title: One or two words.
      uri: Data URI of the file.
      alt: Text alternative.
      caption: Facts to show below the title.
      width: Width of the image in pixels.
    """

    title: str
    uri: str
    alt: str
    caption: str
    width: int


class Images(NamedTuple):
    """A grid of pictures."""

    pictures: Sequence[Picture]


class Viewer(NamedTuple):
    """A slider between any two pictures of the page."""

    pictures: Sequence[Picture]

    @property
    def zoom(self) -> int:
        """Integer factor that enlarges the first picture to at most 600 pixels, at least 1."""
        return max(1, 600 // self.pictures[0].width)


class Text(NamedTuple):
    """A paragraph, or preformatted text with an optional summary that folds it."""

    text: str
    preformatted: bool = False
    summary: str = ""


class Plot(NamedTuple):
    """A figure file.

    Attributes:
      uri: Data URI of the file.
      alt: Text alternative.
      caption: Visible caption.
      width: Width in CSS pixels, at 100 pixels per inch of the figure.
      invertible: Whether dark mode may invert it: it shows no photograph.
    """

    uri: str
    alt: str
    caption: str
    width: int
    invertible: bool


class Table(NamedTuple):
    """Rows with the same columns, by name."""

    rows: Sequence[Mapping[str, Any]]
    caption: str


class Diagrams(NamedTuple):
    """Pairs of SVG and caption, side by side."""

    diagrams: Sequence[tuple[markupsafe.Markup, str]]


class Bar(NamedTuple):
    """A row of a chart.

    Attributes:
      label: Name of the row.
      value: Length of the bar, from 0.
      low: Lower end of the interval; nan without one.
      high: Upper end of the interval; nan without one.
      text: The value as text.
      detail: Further numbers as text.
      muted: Whether the row is a reference or a control.
    """

    label: str
    value: float
    low: float
    high: float
    text: str
    detail: str = ""
    muted: bool = False


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
        return low - margin * (low < 0), high + margin * (high > 0 or low == 0)

    def percent(self, value: float) -> float:
        """Return the position of a value on the scale, in percent."""
        low, high = self.limits()
        return round(100 * (value - low) / (high - low), 2)

    def ticks(self) -> list[float]:
        """Return three to eight round values on the scale."""
        low, high = self.limits()
        power = 10.0 ** math.floor(math.log10(high - low))
        steps = (2 * power, power, power / 2, power / 5)
        step = next(step for step in steps if high - low >= 3 * step)
        first, last = math.ceil(low / step), math.floor(high / step)
        return [round(number * step, 10) for number in range(first, last + 1)]


class Section(NamedTuple):
    """A folded part of a page: a heading, a hint at the content, and the content."""

    title: str
    hint: str
    blocks: Sequence[Any]


class Page(NamedTuple):
    """A page: a lead of pictures, statistics and charts, then sections."""

    title: str
    lead: str
    pictures: Sequence[Picture] = ()
    stats: Sequence[Stat] = ()
    charts: Sequence[Chart] = ()
    sections: Sequence[Section] = ()


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: "1 image", "2 images"."""
    return f"{count} {noun}{'s' * (count != 1)}"


def number(value: float, spec: str = "z.2f") -> str:
    """Return a number by a format specification, with a typographic minus sign."""
    return f"{value:{spec}}".replace("-", "\N{MINUS SIGN}")


class _Spelled(float):
    """A number that keeps the spelling of its file, such as 27.70."""

    text: str


def spelled(text: str) -> "_Spelled | str":
    """Return the number that a text spells, or else the text."""
    try:
        number = _Spelled(text)
    except ValueError:
        return text
    number.text = text
    return number


def cell(value: Any) -> Any:
    """Return a table cell as it is shown."""
    if isinstance(value, _Spelled) and len(value.text) <= _MAX_CHARACTERS:
        return value.text
    return f"{value:.4g}" if isinstance(value, float) else value


def read_rows(path: pathlib.Path, dtype: Any = None) -> list[dict[str, Any]]:
    """Return the rows of a CSV file, missing values as ""; none without the file."""
    if not path.is_file():
        return []
    frame = pd.read_csv(path, dtype=dtype).astype(object)
    return frame.where(frame.notna(), "").to_dict("records")


def plots(
    path: pathlib.Path, caption: str, *, alt: str = "", invertible: bool = False
) -> list[Plot]:
    """Return a PNG file as a list of one plot; empty without the file."""
    if not path.is_file():
        return []
    with Image.open(path) as figure:
        width = round(figure.width / 1.5)
    uri = figures.png_uri(path.read_bytes())
    return [Plot(uri, alt or caption, caption, width, invertible)]


def narrow_tables(rows: Sequence[Mapping[str, Any]], caption: str) -> list[Table]:
    """Split a table into tables of at most `MAX_COLUMNS` columns.

    Each part repeats the leading text columns. Empty columns and rows beyond `MAX_ROWS` are
    dropped; the caption gives the number of all rows.
    """
    if not rows:
        return []
    names = [name for name in rows[0] if any(row[name] != "" for row in rows)]
    rows = [{name: row[name] for name in names} for row in rows]
    if len(rows) > MAX_ROWS:
        caption += f"; the first {MAX_ROWS} of {len(rows)} rows"
    if len(names) <= MAX_COLUMNS:
        return [Table(rows[:MAX_ROWS], caption)]
    is_text = [not any(re.match(r"[-+]?\d", str(row[name])) for row in rows) for name in names]
    num_keys = 1 + int(np.argmin([*is_text[1:3], False]))
    keys, values = names[:num_keys], names[num_keys:]
    num_parts = -(-len(values) // (MAX_COLUMNS - num_keys))
    return [
        Table(
            [{name: row[name] for name in (*keys, *part)} for row in rows[:MAX_ROWS]],
            f"{caption}; part {position} of {num_parts}",
        )
        for position, part in enumerate(np.array_split(values, num_parts), start=1)
    ]
