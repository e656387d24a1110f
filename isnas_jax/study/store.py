"""The files of a study: Parquet, one a finished unit, written whole or not at all.

    fits/TASK+IMAGE+ARCHITECTURE+SEED.parquet     one row: `FITS`
    scores/ARCHITECTURE.parquet                   a row a case, reference and output: `score_schema`
    timings/....parquet                           one row a unit: `TIMINGS`
    failures/....parquet                          one row a unit that failed: `FAILURES`
    fits/folded/....parquet                       rows of many units: see `compaction`
    images/IMAGE+TASK.parquet                     one row: `IMAGES`

Names are spelled as in a URL, but @ for a colon, so that no two units have one
file. Timings are apart because nothing else differs between equal runs. Every file
says, in its schema's metadata, of which study it is, and holds a digest of all else
before its footer. Pictures in the files are 8-bit, rows first, (height, width,
channels). Needs pyarrow.
"""

import io
import pathlib
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from isnas_jax.io import identity, records

_UNIT = [
    ("architecture", pa.string()),  # a genotype CELL:BITS, or the name of a baseline
    ("image", pa.string()),
    ("task", pa.string()),
    ("seed", pa.int32()),
]
_CURVE = pa.list_(pa.float32())
_STUDY = b"isnas_jax.study"
# Bytes of the digest before a file's footer.
_SEAL = 16

FITS = pa.schema(
    [
        *_UNIT,
        ("parameters", pa.int64()),  # numbers that the fit adapts
        ("iterations", pa.int32()),  # T
        ("observed_psnr", pa.float32()),  # dB; null where the observation has another size
        ("best_psnr", pa.float32()),  # dB, of the output, at its best iteration, from 0
        ("best_at", pa.int32()),
        ("best_psnr_ema", pa.float32()),  # dB, of the exponential mean
        ("best_ema_at", pa.int32()),  # the optimal stopping iteration
        ("last_psnr", pa.float32()),
        ("last_psnr_ema", pa.float32()),
        ("last_loss", pa.float32()),
        ("restored_at", pa.int32()),  # where the stopping rule kept the mean
        ("restored_psnr", pa.float32()),
        ("restored_ssim", pa.float32()),
        ("loss", _CURVE),  # [T]
        ("psnr", _CURVE),  # [T] dB
        ("psnr_ema", _CURVE),  # [T] dB
        ("criterion", _CURVE),  # [T] of the stopping rule; nan before there is one
        ("restored", pa.binary()),  # picture of the mean at restored_at
        ("best", pa.binary()),  # picture of the mean at best_ema_at
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

TIMINGS = pa.schema(
    [
        ("unit", pa.string()),  # the unit's file
        # Of its last uninterrupted stretch, compilation included; of several fits in one
        # batch the first has them.
        ("seconds", pa.float64()),
        ("device", pa.string()),
    ]
)


FAILURES = pa.schema(
    [
        ("unit", pa.string()),  # the unit's file, which is not there
        ("reason", pa.string()),
    ]
)


def score_schema(metrics: Iterable[str]) -> pa.Schema:
    """Columns of the scores: a metric each beside architecture, image, task and two more.

    `reference` says what the metric compares with: "observed" is
    metric(observation, operator(output)), the paper's N; "clean" is
    metric(clean image, output), its GT; "masked" is N with the missing
    measurements set to 0 in the output too, where some are missing. `output`
    counts the random outputs.
    """
    fixed = [*_UNIT[:3], ("reference", pa.string()), ("output", pa.int32())]
    return pa.schema(fixed + [(name, pa.float64()) for name in metrics])


def unit_path(*names: str) -> pathlib.PurePosixPath:
    """A unit's file: in a folder of the first name, called by the others."""
    folder, *rest = names
    spelled = "+".join(urllib.parse.quote(name, safe="").replace("%3A", "@") for name in rest)
    return pathlib.PurePosixPath(folder, f"{spelled}.parquet")


def table(rows: Iterable[Sequence[Any]], schema: pa.Schema) -> pa.Table:
    """Rows of Python, NumPy or JAX values as a table."""
    columns = zip(*rows, strict=True)
    arrays = [
        pa.array(map(_plain, column), field.type)
        for field, column in zip(schema, columns, strict=True)
    ]
    return pa.table(arrays, schema=schema)


def _plain(value: Any) -> Any:
    """A NumPy or JAX array or scalar as what Arrow takes."""
    return np.asarray(value).tolist() if hasattr(value, "dtype") else value


def write(path: pathlib.Path, rows: pa.Table, study: str) -> None:
    """Writes a table, saying of which study it is (a digest)."""
    content = io.BytesIO()
    marked = rows.replace_schema_metadata({**(rows.schema.metadata or {}), _STUDY: study})
    pq.write_table(marked, content, compression="zstd")
    body, footer = _parts(content.getvalue())
    # Readers start from the footer, and pass over what lies between.
    records.write_bytes(path, body + _seal(body, footer) + footer)


def _parts(content: bytes) -> tuple[bytes, bytes]:
    """A Parquet file's columns, and its footer with the length and the mark at its end."""
    length = int.from_bytes(content[-8:-4], "little") + 8
    return content[:-length], content[-length:]


def _seal(body: bytes, footer: bytes) -> bytes:
    return identity.digest(body + footer).encode()


def _whole(path: pathlib.Path) -> io.BytesIO:
    """A file's content; `DamagedError` if its digest does not agree."""
    content = path.read_bytes()
    rest, footer = _parts(content)
    if rest[-_SEAL:] != _seal(rest[:-_SEAL], footer):
        raise records.DamagedError(path, "its digest does not agree")
    return io.BytesIO(content)


def read(path: pathlib.Path) -> pa.Table:
    """Reads a table; `DamagedError` if its digest does not agree."""
    return pq.read_table(_whole(path))


def read_all(
    folder: pathlib.Path,
    columns: Sequence[str] | None = None,
    *,
    units: Iterable[str] | None = None,
    where: Mapping[str, Any] | None = None,
) -> pa.Table:
    """Reads the tables of a folder and those inside it as one, damaged ones left out.

    Args:
      folder: A dataset's "fits", "scores" or "images".
      columns: Of those; all by default.
      units: Names of the units' files to look into, besides folded ones; all by default.
      where: Values of columns that the rows must have.

    Raises:
      ValueError: If none is left.
    """
    filters = [(name, "==", value) for name, value in (where or {}).items()] or None
    tables = []
    for path in _files(folder, units):
        try:
            tables.append(pq.read_table(_whole(path), columns=columns, filters=filters))
        except FileNotFoundError:  # folded meanwhile
            continue
        except records.DamagedError as error:
            records.warn_skipped(error)
    if not tables:
        raise ValueError(f"{str(folder)!r} holds no table that is whole")
    return pa.concat_tables(tables).replace_schema_metadata(None)


def _files(folder: pathlib.Path, units: Iterable[str] | None) -> Iterator[pathlib.Path]:
    """Files of units, then folded ones: a unit's own file goes once it is in a folded one."""
    yield from sorted(folder.glob("*.parquet")) if units is None else map(folder.joinpath, units)
    yield from sorted(folder.glob("*/*.parquet"))


def holds(path: pathlib.Path, study: str) -> bool:
    """Whether a file is there, whole; ValueError if it is of another study."""
    try:
        found = study_of(path)
    except FileNotFoundError:
        return False
    except records.DamagedError as error:
        records.warn_recomputed(error)
        return False
    records.check(path, {"study": found}, {"study": study})
    return True


def study_of(path: pathlib.Path) -> str:
    """The digest of the study that a file is of; `DamagedError` as `read`."""
    return pq.read_schema(_whole(path)).metadata[_STUDY].decode()


def to_bytes(image: Any) -> bytes:
    """A picture of an image (H, W, C), as the tables hold it."""
    return np.rint(np.clip(np.asarray(image), 0, 1) * 255).astype(np.uint8).tobytes()


def to_image(content: bytes, shape: Sequence[int]) -> np.ndarray:
    """An image in steps of 1/255 from a picture."""
    return np.frombuffer(content, np.uint8).reshape(shape) / np.float32(255)
