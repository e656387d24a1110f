"""Working off a study's units, each a job for a runner; results are files, so little comes back."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from typing import Any, TypeAlias

import jax
import numpy as np
import pyarrow as pa

from isnas_jax.fitting import Fit, FitJob, Progress, RunToEnd, batched_by_default, fit_stream
from isnas_jax.io import Checkpoint, identity, records
from isnas_jax.networks import network_for, parse_architecture
from isnas_jax.ops import quality
from isnas_jax.problems import Problem, denoising
from isnas_jax.running import ProgressCallback, Runner, Threads, WorkerDiedError, silent
from isnas_jax.searching import evaluate, random_outputs
from isnas_jax.study import store
from isnas_jax.study.compaction import Folded
from isnas_jax.study.units import (
    Case,
    FitUnit,
    ScoreUnit,
    Study,
    Unit,
    group_by_program,
    key_of,
    units,
)


def network(study: Study, architecture: str, problem: Problem) -> Any:
    """An architecture's network for a problem, as the study has it."""
    parsed = parse_architecture(architecture, study.space)
    return network_for(problem, parsed, study.network, study.space)


def _fits(
    study: Study,
    todo: Sequence[FitUnit],
    *,
    progress: Callable[[Unit, Progress], None] = lambda *_: None,
    checkpoints: Sequence[Checkpoint] | None = None,
) -> Iterator[tuple[FitUnit, pa.Table | FloatingPointError]]:
    """The rows of fits that share a program, each as it ends, errors in their place."""
    task = todo[0].case.task
    net = network(study, todo[0].architecture, todo[0].case.problem)
    config = study.fit[task]
    followed = dataclasses.replace(
        config,
        iterations=study.follow[task],
        stopping=RunToEnd(config.stopping, config.iterations),
    )
    resumed = [None] * len(todo) if checkpoints is None else checkpoints
    asked = [
        FitJob(
            key_of(study.seed, "fit", unit.case.image, task, unit.seed),
            net,
            unit.case.problem,
            unit.case.clean,
            checkpoint,
        )
        for unit, checkpoint in zip(todo, resumed, strict=True)
    ]
    for index, found in fit_stream(
        asked, followed, progress=lambda index, news: progress(todo[index], news)
    ):
        unit = todo[index]
        yield unit, _fit_row(unit, found) if isinstance(found, Fit) else found


def _fit_row(unit: FitUnit, result: Fit) -> pa.Table:
    case = unit.case
    psnr, psnr_ema = np.asarray(result.psnr), np.asarray(result.psnr_ema)
    same_size = case.problem.observed.shape == case.clean.shape
    row = (
        unit.architecture,
        case.image,
        case.task,
        unit.seed,
        sum(leaf.size for leaf in jax.tree.leaves(result.variables)),
        len(result.loss),
        quality.psnr(case.problem.observed, case.clean) if same_size else None,
        psnr.max(),
        psnr.argmax(),
        psnr_ema.max(),
        psnr_ema.argmax(),
        psnr[-1],
        psnr_ema[-1],
        result.loss[-1],
        result.restored_at,
        quality.psnr(result.restored, case.clean),
        quality.ssim(result.restored, case.clean),
        result.loss,
        psnr,
        psnr_ema,
        result.criterion,
        store.to_bytes(result.restored),
        store.to_bytes(result.best),
    )
    return store.table([row], store.FITS)


def _scores(study: Study, unit: ScoreUnit) -> pa.Table:
    drawn: dict[Sequence[int], jax.Array] = {}
    rows = []
    for case in study.cases:
        shape = case.problem.shape
        if shape not in drawn:
            drawn[shape] = draw_outputs(study, unit.architecture, case.problem)
        rows += score_rows(study, unit.architecture, case, drawn[shape])
    return store.table(rows, store.score_schema(study.metrics))


def draw_outputs(study: Study, architecture: str, problem: Problem) -> jax.Array:
    """An architecture's random outputs for images of a problem's shape: (draws, H, W, C)."""
    net = network(study, architecture, problem)
    return random_outputs(key_of(study.seed, "score"), net, problem.shape, study.inits)


def score_rows(study: Study, architecture: str, case: Case, outputs: jax.Array) -> list[tuple]:
    """The rows of a case's scores."""
    rows = []
    for reference, (problem, seen) in _comparisons(case, outputs).items():
        scores = evaluate(seen, problem, study.metrics)
        for output in range(study.inits.num):
            row = (architecture, case.image, case.task, reference, output)
            rows.append((*row, *(scores[name][output] for name in study.metrics)))
    return rows


def _comparisons(case: Case, outputs: jax.Array) -> dict[str, tuple[Problem, jax.Array]]:
    """What is compared with which outputs, by reference: see `score_schema`."""
    problem, observed = case.problem, denoising(case.problem.observed)
    comparisons = {"observed": (problem, outputs), "clean": (denoising(case.clean), outputs)}
    if bool((problem.weights == 0).any()):
        known = problem.weights > 0
        comparisons["masked"] = (observed, known * jax.vmap(problem.operator)(outputs))
    return comparisons


def _image(case: Case) -> pa.Table:
    row = (
        case.image,
        case.task,
        *case.clean.shape,
        *case.problem.observed.shape[:2],
        store.to_bytes(case.clean),
        store.to_bytes(case.problem.observed),
    )
    return store.table([row], store.IMAGES)


# Called with a unit and where its fit is, None once it is done; perhaps in other threads.
Report: TypeAlias = Callable[[Unit, Progress | None], None]


@dataclasses.dataclass(frozen=True)
class Work:
    """A study with its folder: what a unit needs to be done.

    Attributes:
      study: The study.
      folder: Where the dataset is.
    """

    study: Study
    folder: pathlib.Path

    def __reduce__(self) -> tuple[type["Work"], tuple[Study, pathlib.Path]]:
        """Leave out the digest: a worker computes that of its own code."""
        return Work, (self.study, self.folder)

    @functools.cached_property
    def digest(self) -> str:
        """Of the study, as its files carry it."""
        return identity.digest(identity.of({"study": self.study}))

    @functools.cached_property
    def units(self) -> dict[tuple[str, ...], Unit]:
        """The study's units by their names."""
        return {unit.name: unit for unit in units(self.study)}

    def open(self) -> None:
        """Makes the folder the study's, or ValueError that names what differs; keeps the images."""
        records.claim_folder(self.folder, {"study": self.study}, name="study")
        for case in self.study.cases:
            path = self.folder / store.unit_path("images", case.image, case.task)
            if not store.holds(path, self.digest):
                store.write(path, _image(case), self.digest)

    @functools.cached_property
    def folded(self) -> Folded:
        """The units that are in folded files."""
        return Folded(self.folder, self.digest)

    def ended(self, unit: Unit) -> bool:
        """Whether a unit is there, or has failed."""
        return self._there(unit) or store.holds(self._failure(unit), self.digest)

    def _there(self, unit: Unit) -> bool:
        name = store.unit_path(*unit.name)
        # In this order: a unit's own file goes once it is in a folded one.
        return store.holds(self.folder / name, self.digest) or name in self.folded

    def _failure(self, unit: Unit) -> pathlib.Path:
        return self.folder / "failures" / store.unit_path(*unit.name)

    def _checkpoint(self, unit: Unit) -> pathlib.Path:
        name = store.unit_path(*unit.name)
        return self.folder / "work" / f"{name.parent}-{name.stem}.checkpoint"

    def do(
        self, todo: Sequence[Unit], *, progress: ProgressCallback = silent, wait: bool = True
    ) -> list[Unit]:
        """Computes units that share a program; what is begun goes on at its last checkpoint.

        What goes wrong with a unit is written down; what does with files is raised.

        Args:
          todo: The units; those that have ended are left alone.
          progress: Takes a unit's name and where its fit is.
          wait: For another process that is computing one of them; only for one unit,
            for two processes may wait for each other.

        Returns:
          Those that have not ended, for others are at them; without waiting.
        """
        ours, left = {}, []
        with contextlib.ExitStack() as stack:
            for unit in todo:
                if self.ended(unit):
                    continue
                lock = stack.enter_context(contextlib.ExitStack())
                place = self._checkpoint(unit).with_suffix(".unit")
                if not lock.enter_context(records.file_lock(place, wait=wait)):
                    left.append(unit)
                elif not self.ended(unit):
                    ours[unit.name] = lock
            mine = [unit for unit in todo if unit.name in ours]
            for unit in self._compute(mine, lambda of, news: progress("+".join(of.name), news)):
                ours[unit.name].close()
        return left

    def fail(self, unit: Unit, error: BaseException) -> None:
        """Writes down why a unit is not there."""
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        row = store.table([(str(store.unit_path(*unit.name)), reason)], store.FAILURES)
        store.write(self._failure(unit), row, self.digest)

    def failures(self, todo: Iterable[Unit]) -> dict[str, str]:
        """Why some units failed, by their names."""
        found = {}
        for unit in todo:
            failed = self._failure(unit)
            if failed.exists() and not self._there(unit):
                found["+".join(unit.name)] = store.read(failed)["reason"][0].as_py()
        return found

    def forgive(self, todo: Iterable[Unit]) -> None:
        """Forgets that units have failed, so that they are tried again, from the beginning."""
        for unit in todo:
            failed = self._failure(unit)
            if failed.exists():
                self._checkpoint(unit).unlink(missing_ok=True)
                failed.unlink(missing_ok=True)

    def _compute(
        self, todo: list[Unit], progress: Callable[[Unit, Progress], None]
    ) -> Iterator[Unit]:
        """Computes units that share a program; each is kept as soon as it is there, then given."""
        start = time.perf_counter()
        try:
            for unit, rows in self._rows(todo, progress):
                if isinstance(rows, FloatingPointError):
                    self.fail(unit, rows)
                else:
                    self._keep(unit, rows, time.perf_counter() - start)
                    start = time.perf_counter()
                yield unit
        except (OSError, ImportError):  # of no unit's making
            raise
        except Exception as error:
            left = [unit for unit in todo if not self.ended(unit)]
            if not left:
                raise
            if len(left) == 1:
                self.fail(left[0], error)
                yield left[0]
                return
        else:
            return
        for unit in left:  # it may be due to one of them
            yield from self._compute([unit], progress)

    def _rows(
        self, todo: list[Unit], progress: Callable[[Unit, Progress], None]
    ) -> Iterator[tuple[Unit, pa.Table | FloatingPointError]]:
        fits = [unit for unit in todo if isinstance(unit, FitUnit)]
        for unit in todo:
            if isinstance(unit, ScoreUnit):
                yield unit, _scores(self.study, unit)
        if fits:
            checkpoints = [Checkpoint(self._checkpoint(unit)) for unit in fits]
            yield from _fits(self.study, fits, progress=progress, checkpoints=checkpoints)

    def _keep(self, unit: Unit, rows: pa.Table, seconds: float) -> None:
        name = store.unit_path(*unit.name)
        timing = store.table([(str(name), seconds, jax.devices()[0].device_kind)], store.TIMINGS)
        store.write(self.folder / "timings" / name, timing, self.digest)
        store.write(self.folder / name, rows, self.digest)
        self._checkpoint(unit).unlink(missing_ok=True)


def _do(
    progress: ProgressCallback, work: Work, names: list[tuple[str, ...]], wait: bool
) -> list[tuple[str, ...]]:
    """Units as a job: called by their names, for all their data are the study's."""
    left = work.do([work.units[name] for name in names], progress=progress, wait=wait)
    return [unit.name for unit in left]


def unfinished(
    study: Study,
    folder: str | os.PathLike[str],
    todo: Iterable[Unit],
    *,
    retry_failed: bool = False,
) -> list[Unit]:
    """Those of some units that are to be done: not in the folder, and not failed or retried."""
    work, todo = Work(study, pathlib.Path(folder)), list(todo)
    failed = work.failures(todo) if retry_failed else {}
    return [unit for unit in todo if "+".join(unit.name) in failed or not work.ended(unit)]


def run(
    study: Study,
    folder: str | os.PathLike[str],
    todo: Iterable[Unit],
    *,
    runner: Runner = Threads,
    report: Report | None = None,
    retry_failed: bool = False,
    most: int | None = None,
) -> dict[str, str]:
    """Computes units that the folder does not hold yet.

    Others may work on the same folder meanwhile. A killed run goes on where
    it was, within a long fit at its last checkpoint. A unit that fails is written
    down with its reason, and the others go on.

    Args:
      study: The study.
      folder: Where the dataset is.
      todo: Some of its `units`.
      runner: Who does them: see `RUNNERS`.
      report: See `Report`.
      retry_failed: Try again what failed before.
      most: How many fits of one program a worker takes at once; by default all, for
        they fill a batch, where this process has accelerators or several devices,
        else no more than a worker's share of all fits.

    Returns:
      Why units of these failed, by their names: because a loss stopped being finite,
      memory did not suffice, an architecture could not be built, a worker died of it.

    Raises:
      ValueError: If the folder is of another study, naming the difference.
    """
    todo = list(todo)
    work = Work(study, pathlib.Path(folder))
    work.open()
    if retry_failed:
        work.forgive(todo)
    heard: Report = report or (lambda *_: None)
    stages = {"+".join(unit.name): unit for unit in todo}
    left = []
    for unit in todo:
        if work.ended(unit):
            heard(unit, None)
        else:
            left.append(unit)
    with runner(lambda stage, news: heard(stages[stage], news)) as pool:
        shared = pool.broadcast(work)
        if most is None:
            fits = sum(isinstance(unit, FitUnit) for unit in left)
            most = fits if batched_by_default() else -(-fits // pool.workers)
        jobs = group_by_program(left, max(1, most))
        # What another process is at, and what a worker died of that had several to do, is left
        # until the end, one by one.
        for wait in (False, True):
            futures = {
                pool.submit(_do, shared, [unit.name for unit in job], wait): job for job in jobs
            }
            jobs = []
            for future in as_completed(futures):
                job = futures[future]
                try:
                    names = future.result()
                except WorkerDiedError as error:
                    names = [unit.name for unit in job if not work.ended(unit)]
                    if len(job) == 1 and names:
                        work.fail(job[0], error)
                        names = []
                for unit in job:
                    if unit.name in names:
                        jobs.append([unit])
                    else:
                        heard(unit, None)
    return work.failures(todo)
