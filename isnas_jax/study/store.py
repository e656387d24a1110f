"""The files of a study: one Parquet file per finished unit.

    fits/TASK+IMAGE+ARCHITECTURE+SEED.parquet     one row: `FITS`
    scores/ARCHITECTURE.parquet                   a row per case, reference and random output:
                                                  `score_schema`
    failures/....parquet                          one row per failed unit: `FAILURES`
    fits/folded/....parquet                       rows of many units: see `compaction`
    images/IMAGE+TASK.parquet                     one row: `IMAGES`

Names in paths are percent-encoded, with @ for a colon, so that different units have different
files. Equal runs write equal files. Each file holds the digest of its
study in the metadata of its schema, and a digest of its content before its footer. Writes are
atomic. Images in the files are uint8 (height, width, channels). Needs pyarrow.
"""

import io
import pathlib
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from isnas_jax.io import cache, identity, records

_UNIT = [
    ("architecture", pa.string()),  # a genotype CELL:BITS, or the name of a baseline
    ("image", pa.string()),
    ("task", pa.string()),
    ("seed", pa.int32()),
]
_CURVE = pa.list_(pa.float32())
_STUDY = b"isnas_jax.study"
# Length in bytes of the digest before the footer.
_SEAL_BYTES = 16
# Files are small, and pyarrow's threads can abort a process that ends right after a read.
_ONE_THREAD: dict[str, Any] = {"use_threads": False, "pre_buffer": False}

FITS = pa.schema(
    [
        *_UNIT,
        ("parameters", pa.int64()),  # of the network
        ("iterations", pa.int32()),  # T
        ("observed_psnr", pa.float32()),  # dB; null where the observation has another size
        ("best_psnr", pa.float32()),  # dB, largest of the outputs
        ("best_at", pa.int32()),  # its iteration, from 0
        ("best_psnr_ema", pa.float32()),  # dB, largest of the EMAs
        ("best_ema_at", pa.int32()),  # its iteration: the optimal stopping iteration
        ("last_psnr", pa.float32()),
        ("last_psnr_ema", pa.float32()),
        ("last_loss", pa.float32()),
        ("restored_at", pa.int32()),  # iteration of the EMA that the stopping rule kept
        ("restored_psnr", pa.float32()),
        ("restored_ssim", pa.float32()),
        ("loss", _CURVE),  # [T]
        ("psnr", _CURVE),  # [T] dB
        ("psnr_ema", _CURVE),  # [T] dB
        ("psnr_biased_ema", _CURVE),  # dB, every 20th of T; null if the EMA is biased itself
        ("validation", _CURVE),  # [T] error of the EMA; null without a split
        ("criterion", _CURVE),  # [T] of the stopping rule; nan where it has none
        ("restored", pa.binary()),  # the EMA at restored_at
        ("best", pa.binary()),  # the EMA at best_ema_at
    ]
)

IMAGES = pa.schema(
    [
        ("image", pa.string()),
        ("task", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("channels", pa.int32()),
        ("observed_height", pa.int32()),
        ("observed_width", pa.int32()),
        ("clean", pa.binary()),
        ("observed", pa.binary()),
    ]
)

FAILURES = pa.schema(
    [
        ("unit", pa.string()),  # the path that its file would have
        ("reason", pa.string()),
    ]
)


def score_schema(metrics: Iterable[str]) -> pa.Schema:
    """Return the columns of scores: architecture, image, task, reference, output and the metrics.

    `reference` tells what a metric compares:

    - "observed": observation and operator(output), the paper's N.
    - "clean": clean image and output, the paper's GT.
    - "masked": as "observed", with missing measurements set to 0 in the output too. Only for
      problems with missing measurements.

    `output` is the number of the random output, from 0.
    """
    common = [*_UNIT[:3], ("reference", pa.string()), ("output", pa.int32())]
    return pa.schema(common + [(name, pa.float64()) for name in metrics])


def unit_path(*names: str) -> pathlib.PurePosixPath:
    """Return the path of a unit's file: the first name is the folder, the others the file."""
    folder, *rest = names
    encoded = (urllib.parse.quote(name, safe="").replace("%3A", "@") for name in rest)
    return pathlib.PurePosixPath(folder, f"{'+'.join(encoded)}.parquet")


def table(rows: Iterable[Sequence[Any]], schema: pa.Schema) -> pa.Table:
    """Return a table with rows of Python, NumPy or JAX values."""
    columns = zip(*rows, strict=True)
    arrays = [
        pa.array(map(_to_python, column), field.type)
        for field, column in zip(schema, columns, strict=True)
    ]
    return pa.table(arrays, schema=schema)


def _to_python(value: Any) -> Any:
    """Convert a NumPy or JAX array or scalar to Python values."""
    return np.asarray(value).tolist() if hasattr(value, "dtype") else value


def write(path: pathlib.Path, rows: pa.Table, study: str) -> None:
    """Write a table to a file with the digest of its study."""
    content = io.BytesIO()
    rows = rows.replace_schema_metadata({**(rows.schema.metadata or {}), _STUDY: study})
    # A dictionary of numbers that hardly repeat makes a file larger.
    names = [field.name for field in rows.schema if pa.types.is_string(field.type)]
    pq.write_table(rows, content, compression="zstd", use_dictionary=names)
    body, footer = _split_footer(content.getvalue())
    # Parquet readers start from the footer, and ignore bytes between the columns and the footer.
    seal = identity.digest(body + footer).encode()
    records.write_bytes(path, body + seal + footer)


def _split_footer(content: bytes) -> tuple[bytes, bytes]:
    """Split the content of a Parquet file into columns and footer.

    The footer ends with its length in 4 bytes and 4 magic bytes.
    """
    length = int.from_bytes(content[-8:-4], "little") + 8
    return content[:-length], content[-length:]


def _checked(path: pathlib.Path) -> io.BytesIO:
    """Return the content of a file, or raise DamagedError if its digest does not agree."""
    content = path.read_bytes()
    sealed, footer = _split_footer(content)
    body, seal = sealed[:-_SEAL_BYTES], sealed[-_SEAL_BYTES:]
    if seal != identity.digest(body + footer).encode():
        raise records.DamagedError(path, "its digest does not agree")
    return io.BytesIO(content)


def read(path: pathlib.Path) -> pa.Table:
    """Read a table, or raise DamagedError if its digest does not agree."""
    return pq.read_table(_checked(path), **_ONE_THREAD)


def read_all(
    folder: pathlib.Path,
    columns: Sequence[str] | None = None,
    *,
    units: Iterable[str] | None = None,
    where: Mapping[str, Any] | None = None,
) -> pa.Table:
    """Read the files of a folder, folded ones included, as one table; skip damaged files.

    A row can occur twice, in the file of its unit and in a folded file.

    Args:
      folder: The folder "fits", "scores" or "images" of a dataset.
      columns: Columns to read; all by default.
      units: Names of units' files to read, in addition to all folded files; all by default.
      where: Values that the rows must have, by column.

    Raises:
      ValueError: If the folder holds no undamaged file.
    """
    filters = [(name, "==", value) for name, value in (where or {}).items()] or None
    tables = []
    for path in _files(folder, units):
        try:
            tables.append(
                pq.read_table(_checked(path), columns=columns, filters=filters, **_ONE_THREAD)
            )
        except FileNotFoundError:  # folded in the meantime
            continue
        except records.DamagedError as error:
            records.warn(error, "skipped")
    if not tables:
        raise ValueError(f"{str(folder)!r} holds no undamaged table")
    return pa.concat_tables(tables).replace_schema_metadata(None)


def _files(folder: pathlib.Path, units: Iterable[str] | None) -> Iterator[pathlib.Path]:
    """Yield the files of units, then the folded files.

    In this order no row is missed: a unit's file is deleted after its rows are in a folded file.
    """
    yield from sorted(folder.glob("*.parquet")) if units is None else map(folder.joinpath, units)
    yield from sorted(folder.glob("*/*.parquet"))


def holds(path: pathlib.Path, study: str) -> bool:
    """Return whether an undamaged file exists; ValueError if it belongs to another study."""
    try:
        stored = study_of(path)
    except FileNotFoundError:
        return False
    except records.DamagedError as error:
        records.warn(error, "computed again")
        return False
    cache.check_inputs(path, {"study": stored}, {"study": study})
    return True


def study_of(path: pathlib.Path) -> str:
    """Return the digest of a file's study, or raise DamagedError as `read` does."""
    return pq.read_schema(_checked(path)).metadata[_STUDY].decode()


def to_bytes(image: Any) -> bytes:
    """Convert a float image (H, W, C) in [0, 1] to the uint8 bytes that the tables hold."""
    return np.rint(np.clip(np.asarray(image), 0, 1) * 255).astype(np.uint8).tobytes()


def to_image(content: bytes, shape: Sequence[int]) -> np.ndarray:
    """Convert bytes of a table to a float32 image of a shape, in steps of 1/255."""
    return np.frombuffer(content, np.uint8).reshape(shape) / np.float32(255)
