"""The fits of one case and seed as arrays, and what follows from them. Needs pyarrow."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from isnas_jax.benchmark.rows import CURVE_INTERVAL
from isnas_jax.searching import Combination
from isnas_jax.study import store


class _Members(NamedTuple):
    """The parts of a `Cohort` that combinations use."""

    members: Sequence[int]
    residuals: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        return np.square(self.residuals).sum(axis=1)


class Fits(NamedTuple):
    """The fits of M architectures in a case, with one seed."""

    rows: Mapping[str, int]  # of an architecture
    columns: Mapping[str, np.ndarray]
    errors: np.ndarray  # (M, M), mean products of errors, in squared gray levels
    residuals: np.ndarray  # (M, M), products of validation residuals

    @classmethod
    def read(cls, path: pathlib.Path) -> "Fits":
        table = store.read(path)
        products = [_symmetric(table.column(f"{name}_products")) for name in ("error", "residual")]
        columns = {
            name: np.array(table[name].to_pylist())
            for name in table.column_names
            if not name.endswith("_products")
        }
        names = columns["architecture"].tolist()
        return cls({name: row for row, name in enumerate(names)}, columns, *products)

    def at(self, row: int) -> dict[str, Any]:
        """Return the values of a row by column."""
        return {name: column[row] for name, column in self.columns.items()}

    def combine(self, rows: list[int], combination: Combination) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights (M,) of members, and the products (M, M) of their residuals."""
        gram = self.residuals[np.ix_(rows, rows)]
        cohort: Any = _Members(rows, vectors_with(gram))
        return combination(cohort, int(cohort.errors.argmin())), gram


def vectors_with(products: np.ndarray) -> np.ndarray:
    """Return M row vectors (M, M) with the given inner products (M, M)."""
    values, vectors = np.linalg.eigh(products)
    return vectors * np.sqrt(np.maximum(values, 0))


def _symmetric(triangle: Iterable[Any]) -> np.ndarray:
    """Return the symmetric matrix whose rows up to the diagonal are given."""
    rows = [np.asarray(row.as_py(), np.float64) for row in triangle]
    matrix = np.array([np.pad(row, (0, len(rows) - len(row))) for row in rows])
    return matrix + np.tril(matrix, -1).T


def psnr_of(squared_error: Any) -> Any:
    """Return the PSNR in dB of mean squared errors in squared gray levels."""
    return 20 * np.log10(255) - 10 * np.log10(squared_error)


def entry(curve: np.ndarray, iteration: Any) -> tuple[int, float]:
    """Check an iteration and return it with its entry of a curve."""
    last = CURVE_INTERVAL * (len(curve) - 1)
    if iteration not in range(0, last + 1, CURVE_INTERVAL):
        raise ValueError(f"at {iteration!r} must be a multiple of 10 from 0 to {last}, or 'stop'")
    return iteration, float(curve[iteration // CURVE_INTERVAL])
