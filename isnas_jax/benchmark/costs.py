"""The cost of a step of every architecture, measured one after another. Needs pyarrow.

costs.parquet     a row per architecture and number of channels: `COSTS`
"""

import dataclasses
import itertools
import math
import pathlib
import statistics
import time

import jax
import pyarrow as pa

from isnas_jax.benchmark.rows import VERSION
from isnas_jax.fitting import FitJob, fit_many, lower_steps
from isnas_jax.running import Event, Progress, ignore
from isnas_jax.study import Case, Study, store
from isnas_jax.study.rows import followed_config

COSTS = pa.schema(
    [
        ("architecture", pa.string()),
        ("channels", pa.int32()),  # of the image
        ("operations", pa.float64()),  # floating-point operations of a step, before optimization
        ("seconds", pa.float32()),  # of a step, the median of some chunks
    ]
)
_CHUNKS = 3  # of steps; the first compiles


def add_costs(folder: pathlib.Path, study: Study, case: Case, progress: Progress = ignore) -> None:
    """Measure a step of each architecture that has no costs in the benchmark yet; see `COSTS`.

    Uses the study's programs, so that a compilation cache already holds them.
    """
    path, channels = folder / "costs.parquet", case.clean.shape[2]
    known = store.read(path).to_pylist() if path.exists() else []
    finished = {row["architecture"] for row in known if row["channels"] == channels}
    missing = [name for name in study.architectures if name not in finished]
    rows = []
    for number, architecture in enumerate(missing, start=1):
        operations, seconds = _cost_of_step(study, case, architecture)
        rows.append((architecture, channels, operations, seconds))
        progress(Event(("costs",), number, len(missing)))
    if rows:
        measured = store.table(rows, COSTS).to_pylist()
        store.write(path, pa.Table.from_pylist([*known, *measured], COSTS), VERSION)


def _cost_of_step(study: Study, case: Case, architecture: str) -> tuple[float, float]:
    """Return operations and seconds of a step."""
    config = followed_config(study, case.task)
    config = dataclasses.replace(config, iterations=_CHUNKS * config.chunk)
    net = study.build(architecture, case.problem)
    clock: list[float] = []
    job = FitJob(jax.random.key(0), net, case.problem, case.clean)
    fit_many([job], config, progress=lambda event: clock.append(time.perf_counter()))
    chunks = [after - before for before, after in itertools.pairwise(clock)]
    lowered = lower_steps(net, case.problem, config, clean=case.clean)
    operations = (lowered.cost_analysis() or {}).get("flops", math.nan)
    return operations, statistics.median(chunks) / config.chunk
