"""Computing the units of a study: each a job for a runner, whose results are files."""

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, as_completed

import pyarrow as pa

from isnas_jax.fitting import batched_by_default
from isnas_jax.io import Checkpoint, cache, identity, records
from isnas_jax.running import Event, Pool, Progress, Runner, Threads, WorkerDiedError, ignore
from isnas_jax.study import store
from isnas_jax.study.compaction import Folded
from isnas_jax.study.rows import compute_fits, compute_scores, image_row
from isnas_jax.study.units import FitUnit, Study, Unit, group_by_program, units


@dataclasses.dataclass(frozen=True)
class Work:
    """A study with the folder of its dataset."""

    study: Study
    folder: pathlib.Path

    def __reduce__(self) -> tuple[type["Work"], tuple[Study, pathlib.Path]]:
        """Omit the digest: a worker computes that of its own code."""
        return Work, (self.study, self.folder)

    @functools.cached_property
    def digest(self) -> str:
        """The digest of the study, which its files contain."""
        return identity.digest(identity.describe_inputs({"study": self.study}))

    @functools.cached_property
    def units(self) -> dict[tuple[str, ...], Unit]:
        """The study's units by their names."""
        return {unit.name: unit for unit in units(self.study)}

    @functools.cached_property
    def folded(self) -> Folded:
        """The units that are in folded files."""
        return Folded(self.folder, self.digest)

    def open(self) -> None:
        """Claim the folder for the study and store the images; ValueError for another study."""
        cache.claim_folder(self.folder, {"study": self.study}, name="study")
        for case in self.study.cases:
            path = self.folder / store.unit_path("images", case.image, case.task)
            if not store.holds(path, self.digest):
                store.write(path, image_row(case), self.digest)

    def has_ended(self, unit: Unit) -> bool:
        """Return whether a unit is finished or has failed."""
        return self._is_finished(unit) or store.holds(self._failure(unit), self.digest)

    def _is_finished(self, unit: Unit) -> bool:
        name = store.unit_path(*unit.name)
        # In this order: a unit's own file disappears once it is in a folded one.
        return store.holds(self.folder / name, self.digest) or name in self.folded

    def _failure(self, unit: Unit) -> pathlib.Path:
        return self.folder / "failures" / store.unit_path(*unit.name)

    def _checkpoint(self, unit: Unit) -> pathlib.Path:
        name = store.unit_path(*unit.name)
        return self.folder / "work" / f"{name.parent}-{name.stem}.checkpoint"

    def compute(
        self, todo: Sequence[Unit], *, progress: Progress = ignore, wait: bool = True
    ) -> list[Unit]:
        """Compute units that share a program; an interrupted fit resumes from its checkpoint.

        The failure of a unit is recorded, that of a file is raised. Units that have ended are
        skipped. Wait for other processes with single units only, because two processes could wait
        for each other.

        Returns:
          The units that other processes are computing, without `wait`.
        """
        ours, locked_elsewhere = [], []
        with contextlib.ExitStack() as stack:
            for unit in todo:
                if self.has_ended(unit):
                    continue
                file = self._checkpoint(unit).with_suffix(".unit")
                if not stack.enter_context(records.file_lock(file, wait=wait)):
                    locked_elsewhere.append(unit)
                elif not self.has_ended(unit):
                    ours.append(unit)
            self._compute(ours, progress)
        return locked_elsewhere

    def record_failure(self, unit: Unit, error: BaseException) -> None:
        """Write down why a unit failed."""
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        row = store.table([(str(store.unit_path(*unit.name)), reason)], store.FAILURES)
        store.write(self._failure(unit), row, self.digest)

    def failures(self, todo: Iterable[Unit]) -> dict[str, str]:
        """Return the reasons of those units that failed, by their names."""
        return {
            "+".join(unit.name): store.read(file)["reason"][0].as_py()
            for unit in todo
            if (file := self._failure(unit)).exists() and not self._is_finished(unit)
        }

    def forget_failures(self, todo: Iterable[Unit]) -> None:
        """Delete recorded failures and their checkpoints, so that the units run again."""
        for unit in todo:
            if (file := self._failure(unit)).exists():
                self._checkpoint(unit).unlink(missing_ok=True)
                file.unlink(missing_ok=True)

    def _compute(self, todo: list[Unit], progress: Progress) -> None:
        """Compute units that share a program, and store each as soon as it has ended."""

        def end(unit: Unit, rows: pa.Table | FloatingPointError) -> None:
            if isinstance(rows, FloatingPointError):
                self.record_failure(unit, rows)
            else:
                store.write(self.folder / store.unit_path(*unit.name), rows, self.digest)
                self._checkpoint(unit).unlink(missing_ok=True)

        try:
            fits = [unit for unit in todo if isinstance(unit, FitUnit)]
            for unit in todo:
                if not isinstance(unit, FitUnit):
                    end(unit, compute_scores(self.study, unit))
            if fits:
                checkpoints = [Checkpoint(self._checkpoint(unit)) for unit in fits]
                compute_fits(self.study, fits, end, progress, checkpoints)
            return
        except (OSError, ImportError):  # not the fault of a unit
            raise
        except Exception as error:
            left = [unit for unit in todo if not self.has_ended(unit)]
            if not left:
                raise
            if len(left) == 1:
                self.record_failure(left[0], error)
                return
        for unit in left:  # one of them may have caused the error
            self._compute([unit], progress)


def _compute(
    progress: Progress, work: Work, names: list[tuple[str, ...]], wait: bool
) -> list[tuple[str, ...]]:
    """Compute units, given by their names, as a job; see `Work.compute`."""
    left = work.compute([work.units[name] for name in names], progress=progress, wait=wait)
    return [unit.name for unit in left]


def unfinished(
    study: Study,
    folder: str | os.PathLike[str],
    todo: Iterable[Unit],
    *,
    retry_failed: bool = False,
) -> list[Unit]:
    """Return those of some units that a run would compute; with `retry_failed`, failed ones too."""
    work, todo = Work(study, pathlib.Path(folder)), list(todo)
    failed = work.failures(todo) if retry_failed else {}
    return [unit for unit in todo if "+".join(unit.name) in failed or not work.has_ended(unit)]


def run(
    study: Study,
    folder: str | os.PathLike[str],
    todo: Iterable[Unit],
    *,
    runner: Runner = Threads,
    progress: Progress = ignore,
    retry_failed: bool = False,
    job_fits: int | None = None,
) -> dict[str, str]:
    """Compute the units that a folder does not hold yet.

    Several processes may work on one folder. A killed run resumes; within a fit, from its last
    checkpoint. A unit that fails is recorded with the reason, and the others go on.

    Args:
      study: The study.
      folder: The folder of the dataset.
      todo: Some of its `units`.
      runner: Runs the jobs.
      progress: Takes events with a unit's name as their stage; `done` equals `total` at its end.
      retry_failed: Run failed units again.
      job_fits: Largest number of fits of one program in a job; by default all of them with
        accelerators or several devices, where they fill a batch, and else a worker's part.

    Returns:
      The reasons why units failed, by their names: a loss that became infinite or nan, too little
      memory, an architecture that cannot be built, a worker that died.

    Raises:
      ValueError: If the folder belongs to another study, naming the difference.
    """
    todo = list(todo)
    work = Work(study, pathlib.Path(folder))
    work.open()
    if retry_failed:
        work.forget_failures(todo)

    def report_end(unit: Unit) -> None:
        progress(Event(unit.name, 1, 1))

    left = []
    for unit in todo:
        if work.has_ended(unit):
            report_end(unit)
        else:
            left.append(unit)
    with runner(progress) as pool:
        if job_fits is None:
            fits = sum(isinstance(unit, FitUnit) for unit in left)
            job_fits = fits if batched_by_default() else -(-fits // pool.workers)
        jobs = group_by_program(left, max(1, job_fits))
        _run_jobs(pool, work, jobs, report_end)
    return work.failures(todo)


def _run_jobs(
    pool: Pool, work: Work, jobs: list[list[Unit]], on_end: Callable[[Unit], None]
) -> None:
    """Run jobs; units that are computed elsewhere or whose worker died come last, one by one."""
    shared = pool.broadcast(work)
    for wait in (False, True):
        futures = {
            pool.submit(_compute, shared, [unit.name for unit in job], wait): job for job in jobs
        }
        jobs = []
        for future in as_completed(futures):
            left = _units_left(work, futures[future], future)
            jobs += [[unit] for unit in left]
            for unit in futures[future]:
                if unit not in left:
                    on_end(unit)


def _units_left(work: Work, job: Sequence[Unit], future: Future) -> list[Unit]:
    """Return the units of a finished job to try again; record the one that killed its worker."""
    try:
        names = future.result()
    except WorkerDiedError as error:
        left = [unit for unit in job if not work.has_ended(unit)]
        if len(job) > 1 or not left:
            return left
        work.record_failure(job[0], error)
        return []
    return [unit for unit in job if unit.name in names]
