"""Studies of many architectures: fits and scores over a grid, kept as Parquet files.

A unit of work is one fit, or the scores of one architecture. It is a pure
function of the study and its own name: every key follows from the study's seed
and the names of what is computed, so that it does not matter when, where or
beside what a unit runs, or in what order things are listed. A finished unit is one
file (two with its time), written whole or not at all.

    fits/TASK-IMAGE-ARCHITECTURE-SEED.parquet     one row: `FITS`
    scores/ARCHITECTURE.parquet                   a row a case, reference and output: `score_schema`
    timings/....parquet                           one row a unit: `TIMINGS`
    images/IMAGE-TASK.parquet                     one row: `IMAGES`

Timings are apart because nothing else differs between equal runs. Pictures in the
files are 8-bit, rows first, (height, width, channels). Images are float32
(H, W, C) in [0, 1]. Needs pyarrow.
"""

import dataclasses
import functools
import io
import pathlib
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from isnas_jax import observations, quality, records
from isnas_jax.checkpoints import Checkpoint
from isnas_jax.fitting import Progress, fit, forget_programs
from isnas_jax.genotypes import Genotype
from isnas_jax.metrics import Metric
from isnas_jax.networks import BASELINES, build_network
from isnas_jax.observations import Problem
from isnas_jax.scoring import evaluate, random_outputs
from isnas_jax.search import FitSettings
from isnas_jax.stopping import RunToEnd

_UNIT = [
    ("architecture", pa.string()),  # a genotype CELL:BITS, or the name of a baseline
    ("image", pa.string()),
    ("task", pa.string()),
    ("seed", pa.int32()),
]
_CURVE = pa.list_(pa.float32())

FITS = pa.schema(
    [
        *_UNIT,
        ("error", pa.string()),  # why the fit failed, all that follows being null; null if not
        ("parameters", pa.int64()),  # numbers that the fit adapts
        ("iterations", pa.int32()),  # T
        ("observed_psnr", pa.float32()),  # dB; null where the observation has another size
        ("best_psnr", pa.float32()),  # dB, of the output, at its best iteration, from 0
        ("best_at", pa.int32()),
        ("best_psnr_mean", pa.float32()),  # dB, of the exponential mean
        ("best_mean_at", pa.int32()),  # the optimal stopping iteration
        ("last_psnr", pa.float32()),
        ("last_psnr_mean", pa.float32()),
        ("last_loss", pa.float32()),
        ("restored_at", pa.int32()),  # where the stopping rule kept the mean
        ("restored_psnr", pa.float32()),
        ("restored_ssim", pa.float32()),
        ("loss", _CURVE),  # [T]
        ("psnr", _CURVE),  # [T] dB
        ("psnr_mean", _CURVE),  # [T] dB
        ("criterion", _CURVE),  # [T] of the stopping rule; nan before there is one
        ("restored", pa.binary()),  # picture of the mean at restored_at
        ("best", pa.binary()),  # picture of the mean at best_mean_at
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
        ("truth", pa.binary()),
        ("observed", pa.binary()),
    ]
)

TIMINGS = pa.schema(
    [
        ("unit", pa.string()),  # the unit's file
        ("seconds", pa.float64()),  # of its last uninterrupted stretch, compilation included
        ("device", pa.string()),
    ]
)


def score_schema(metrics: Iterable[str]) -> pa.Schema:
    """Columns of the scores: a metric each beside architecture, image, task and two more.

    `reference` says what the metric compares with: "observed" is
    metric(observation, operator(output)), the paper's N; "truth" is
    metric(clean image, output), its GT; "whole" is metric(observation, output),
    the published code's N of inpainting, where the operator keeps the image's
    size and changes it. `output` counts the random outputs.
    """
    fixed = [*_UNIT[:3], ("reference", pa.string()), ("output", pa.int32())]
    return pa.schema(fixed + [(name, pa.float64()) for name in metrics])


@dataclasses.dataclass(frozen=True)
class Case:
    """An image in a task.

    Attributes:
      image: Its name.
      task: Name in `observations.TASKS`.
      truth: (H, W, C).
      problem: What a fit gets to see.
    """

    image: str
    task: str
    truth: jax.Array
    problem: Problem


@dataclasses.dataclass(frozen=True)
class Study:
    """What to study: every architecture on every case with every seed.

    Attributes:
      seed: Everything random follows from it.
      cases: Images in tasks, no pair twice.
      genotypes: Architectures to score and to fit.
      baselines: Architectures to fit beside them, names in `networks.BASELINES`.
      seeds: Fits of an architecture to a case; all architectures share their
        keys.
      fit: How a restoration would be fitted in each task.
      follow: To which iteration fits go on in each task, for the stopping
        rule only marks what would have been restored.
      metrics: What to score by.
      num_outputs: Random outputs of each genotype.
      weights: See `scoring.random_outputs`.
    """

    seed: int
    cases: Sequence[Case]
    genotypes: Sequence[Genotype]
    baselines: Sequence[str]
    seeds: int
    fit: Mapping[str, FitSettings]
    follow: Mapping[str, int]
    metrics: Mapping[str, Metric]
    num_outputs: int = 1
    weights: str = "fresh"

    def __post_init__(self) -> None:
        for name in self.baselines:
            if name not in BASELINES:
                raise ValueError(
                    f"baseline {name!r} does not exist; choose from {', '.join(BASELINES)}"
                )
        for names in (
            [f"{case.image} for {case.task}" for case in self.cases],
            [*map(str, self.genotypes), *self.baselines],
        ):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{twice[0]} is there twice")
        if self.seeds < 1 or self.num_outputs < 1:
            raise ValueError(
                f"seeds {self.seeds} and num_outputs {self.num_outputs} must be at least 1"
            )
        for task, settings in self.fit.items():
            if self.follow[task] < settings.iterations:
                raise ValueError(
                    f"{task}: fits of {settings.iterations} iterations cannot be followed for "
                    f"{self.follow[task]} only"
                )


class FitUnit(NamedTuple):
    """One fit."""

    architecture: str
    case: Case
    seed: int

    @property
    def file(self) -> pathlib.PurePosixPath:
        name = f"{self.case.task}-{self.case.image}-{_spell(self.architecture)}-{self.seed}"
        return pathlib.PurePosixPath("fits", f"{name}.parquet")


class ScoreUnit(NamedTuple):
    """The scores of one genotype in all cases."""

    architecture: str

    @property
    def file(self) -> pathlib.PurePosixPath:
        return pathlib.PurePosixPath("scores", f"{_spell(self.architecture)}.parquet")


Unit: TypeAlias = FitUnit | ScoreUnit


def _spell(architecture: str) -> str:
    return architecture.replace(":", "_")


def units(study: Study) -> list[Unit]:
    """All there is to do, one architecture after the other: a beginning is a smaller study."""
    todo: list[Unit] = []
    for architecture in [*study.baselines, *map(str, study.genotypes)]:
        if architecture not in study.baselines:
            todo.append(ScoreUnit(architecture))
        # Cases of one task share compiled programs.
        for case in sorted(study.cases, key=lambda case: case.task):
            todo += [FitUnit(architecture, case, seed) for seed in range(study.seeds)]
    return todo


def share(todo: Sequence[Unit], index: int, number: int) -> list[Unit]:
    """Every number-th architecture's units from the index-th on: what one of several does."""
    if not 0 <= index < number:
        raise ValueError(f"share {index} of {number} does not exist; the first is 0")
    architectures = list(dict.fromkeys(unit.architecture for unit in todo))
    ours = set(architectures[index::number])
    return [unit for unit in todo if unit.architecture in ours]


def key_of(seed: int, *names: object) -> jax.Array:
    """The random key of something by its names, whatever else there is."""
    return functools.reduce(
        jax.random.fold_in,
        (zlib.crc32(str(name).encode()) for name in names),
        jax.random.key(seed),
    )


def pose(seed: int, image: str, truth: np.ndarray, task: str, **options: Any) -> Case:
    """Corrupts a clean image (H, W, C) for a task; the options are those of `Task.corrupt`."""
    key = key_of(seed, "corruption", image, task)
    problem = observations.find(task).corrupt(key, jax.numpy.asarray(truth), **options)
    return Case(image, task, jax.numpy.asarray(truth), problem)


def compute(
    study: Study,
    unit: Unit,
    *,
    progress: Callable[[Progress], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> pa.Table:
    """The rows of a unit. A fit reports its progress and can be resumed from a checkpoint.

    A fit whose loss stops being finite is a row that says so.
    """
    if isinstance(unit, ScoreUnit):
        return _scores(study, Genotype.parse(unit.architecture))
    return _fit(study, unit, progress=progress, checkpoint=checkpoint)


def _fit(study: Study, unit: FitUnit, **options: Any) -> pa.Table:
    case, settings = unit.case, study.fit[unit.case.task]
    architecture = (
        unit.architecture
        if unit.architecture in study.baselines
        else Genotype.parse(unit.architecture)
    )
    net = build_network(
        architecture,
        out_channels=case.problem.shape[2],
        channels=settings.channels,
        task=case.task,
        remat=settings.remat,
    )
    recipe = settings.of_fit(settings.iterations)
    name = (unit.architecture, case.image, case.task, unit.seed)
    try:
        result = fit(
            key_of(study.seed, "fit", case.image, case.task, unit.seed),
            net,
            case.problem,
            iterations=study.follow[case.task],
            truth=case.truth,
            **recipe | {"stopping": RunToEnd(recipe["stopping"])},
            **options,
        )
    except FloatingPointError as error:
        nothing = (None,) * (len(FITS) - len(name) - 1)
        return _table([(*name, str(error), *nothing)], FITS)
    psnr, psnr_mean = np.asarray(result.psnr), np.asarray(result.psnr_mean)
    same_size = case.problem.observed.shape == case.truth.shape
    row = (
        *name,
        None,
        sum(leaf.size for leaf in jax.tree.leaves(result.variables)),
        len(result.loss),
        quality.psnr(case.problem.observed, case.truth) if same_size else None,
        psnr.max(),
        psnr.argmax(),
        psnr_mean.max(),
        psnr_mean.argmax(),
        psnr[-1],
        psnr_mean[-1],
        result.loss[-1],
        result.restored_at,
        quality.psnr(result.restored, case.truth),
        quality.ssim(result.restored, case.truth),
        result.loss,
        psnr,
        psnr_mean,
        result.criterion,
        _picture(result.restored),
        _picture(result.best),
    )
    return _table([row], FITS)


def _scores(study: Study, genotype: Genotype) -> pa.Table:
    @functools.cache
    def outputs(shape: Sequence[int], channels: int) -> jax.Array:
        return random_outputs(
            key_of(study.seed, "score"),
            build_network(genotype, out_channels=shape[2], channels=channels),
            shape,
            study.num_outputs,
            weights=study.weights,
        )

    rows = []
    for case in study.cases:
        for reference, problem in _comparisons(case).items():
            drawn = outputs(case.problem.shape, study.fit[case.task].channels)
            scores = evaluate(drawn, problem, study.metrics)
            for output in range(study.num_outputs):
                row = (str(genotype), case.image, case.task, reference, output)
                rows.append((*row, *(scores[name][output] for name in study.metrics)))
    return _table(rows, score_schema(study.metrics))


def _comparisons(case: Case) -> dict[str, Problem]:
    """What outputs are scored by, as references in `score_schema`."""
    seen = case.problem.operator(case.truth)
    comparisons = {"observed": case.problem, "truth": observations.denoising(case.truth)}
    if seen.shape == case.truth.shape and (seen != case.truth).any():
        comparisons["whole"] = observations.denoising(case.problem.observed)
    return comparisons


def _picture(image: Any) -> bytes:
    return np.rint(np.clip(np.asarray(image), 0, 1) * 255).astype(np.uint8).tobytes()


def _images(case: Case) -> pa.Table:
    row = (
        case.image,
        case.task,
        *case.truth.shape,
        *case.problem.observed.shape[:2],
        _picture(case.truth),
        _picture(case.problem.observed),
    )
    return _table([row], IMAGES)


def _table(rows: Iterable[Sequence[Any]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True)
    arrays = [
        pa.array(map(_plain, column), field.type)
        for field, column in zip(schema, columns, strict=True)
    ]
    return pa.table(arrays, schema=schema)


def _plain(value: Any) -> Any:
    """A NumPy or JAX array or scalar as what Arrow takes."""
    return np.asarray(value).tolist() if hasattr(value, "dtype") else value


def _write(path: pathlib.Path, table: pa.Table) -> None:
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd")
    records.write_bytes(path, content.getvalue())


def run(
    study: Study,
    folder: pathlib.Path,
    todo: Iterable[Unit],
    *,
    progress: Callable[[Unit, Progress | None], None] | None = None,
) -> None:
    """Computes units that the folder does not hold yet, one after the other.

    Others may work on the same folder meanwhile. A killed run goes on where
    it was, within a long fit at its last checkpoint.

    Args:
      study: The study; the folder must not hold another's files.
      folder: Where the dataset is.
      todo: Some of its `units`.
      progress: Called with a unit and where its fit is, None once it is done.
    """
    for case in study.cases:
        path = folder / "images" / f"{case.image}-{case.task}.parquet"
        if not path.exists():
            _write(path, _images(case))
    architecture = None
    for unit in todo:
        path = folder / unit.file
        if not path.exists():
            if unit.architecture != architecture:
                forget_programs()
            architecture = unit.architecture
            start = time.perf_counter()
            checkpoint = folder / "work" / f"{path.stem}.checkpoint"
            table = compute(
                study,
                unit,
                progress=progress and functools.partial(progress, unit),
                checkpoint=Checkpoint(checkpoint),
            )
            seconds = time.perf_counter() - start
            timing = (str(unit.file), seconds, jax.devices()[0].device_kind)
            _write(folder / "timings" / unit.file, _table([timing], TIMINGS))
            _write(path, table)
            checkpoint.unlink(missing_ok=True)
        if progress:
            progress(unit, None)
