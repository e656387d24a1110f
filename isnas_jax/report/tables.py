"""Tables as text, Markdown, LaTeX and CSV, from pandas frames; needs tabulate."""

import pathlib

import pandas as pd
from tabulate import tabulate

from isnas_jax.io import records

FORMATS = {"txt": "simple", "md": "github", "tex": "latex_booktabs"}


def write(path: pathlib.Path, table: pd.DataFrame, *, digits: int = 2) -> str:
    """Writes a table, its index as the first column, beside a path in every format.

    The CSV keeps all digits. Returns the text.
    """
    shown = table.reset_index()
    texts = {
        suffix: tabulate(
            shown,
            headers="keys",
            tablefmt=style,
            floatfmt=f".{digits}f",
            showindex=False,
            missingval="",
        )
        for suffix, style in FORMATS.items()
    }
    for suffix, text in texts.items():
        records.write_bytes(path.with_suffix(f".{suffix}"), (text + "\n").encode())
    records.write_bytes(path.with_suffix(".csv"), table.to_csv(lineterminator="\n").encode())
    return texts["txt"]
