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
    options = {"headers": "keys", "showindex": False, "missingval": "", "floatfmt": f".{digits}f"}
    texts = {}
    for suffix, style in FORMATS.items():
        texts[suffix] = tabulate(table.reset_index(), tablefmt=style, **options)
        records.write_bytes(path.with_suffix(f".{suffix}"), f"{texts[suffix]}\n".encode())
    records.write_bytes(path.with_suffix(".csv"), table.to_csv(lineterminator="\n").encode())
    return texts["txt"]
