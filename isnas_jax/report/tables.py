"""Pandas tables as text, Markdown, LaTeX and CSV. Needs tabulate."""

import pathlib

import pandas as pd
from tabulate import tabulate

from isnas_jax.io import records

FORMATS = {"txt": "simple", "md": "github", "tex": "latex_booktabs"}


def write(path: pathlib.Path, table: pd.DataFrame, *, digits: int = 2) -> str:
    """Write a table in every format and return its text.

    Args:
      path: Path without suffix.
      table: The table; its index becomes the first columns.
      digits: Decimals of floats. The CSV file keeps all digits.
    """
    columns = table.reset_index()
    texts = {
        suffix: tabulate(
            columns,
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
