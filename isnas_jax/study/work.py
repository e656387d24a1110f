"""Working off a study's units, each a job for a runner; results are files, so little comes back."""

import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import as_completed
from typing import Any, TypeAlias

import jax
import numpy as np
import pyarrow as pa

from isnas_jax.fitting import Progress, RunToEnd, fit
from isnas_jax.io import Checkpoint, identity, records
from isnas_jax.networks import network_for, parse_architecture
from isnas_jax.ops import quality
from isnas_jax.problems import Problem, denoising
from isnas_jax.running import Here, ProgressCallback, Runner, WorkerDiedError, silent
from isnas_jax.searching import evaluate, random_outputs
from isnas_jax.study import store
from isnas_jax.study.compaction import Folded
from isnas_jax.study.units import Case, FitUnit, ScoreUnit, Study, Unit, key_of, units


def compute(
    study: Study,
    unit: Unit,
    *,
    progress: Callable[[Progress], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> pa.Table:
    """The rows of a unit. A fit reports its progress and can be resumed from a checkpoint."""
    if isinstance(unit, ScoreUnit):
        return _scores(study, unit)
    return _fit(study, unit, progress=progress, checkpoint=checkpoint)


def network(study: Study, architecture: str, problem: Problem) -> Any:
    """An architecture's network for a problem, as the study has it."""
    parsed = parse_architecture(architecture, study.space)
    return network_for(problem, parsed, study.network, study.space)


def _fit(study: Study, unit: FitUnit, **options: Any) -> pa.Table:
    case, settings = unit.case, study.fit[unit.case.task]
    net = network(study, unit.architecture, case.problem)
    followed = dataclasses.replace(
        settings,
        iterations=study.follow[case.task],
        stopping=RunToEnd(settings.stopping, settings.iterations),
    )
    name = (unit.architecture, case.image, case.task, unit.seed)
    key = key_of(study.seed, "fit", case.image, case.task, unit.seed)
    result = fit(key, net, case.problem, followed, truth=case.truth, **options)
    psnr, psnr_mean = np.asarray(result.psnr), np.asarray(result.psnr_mean)
    same_size = case.problem.observed.shape == case.truth.shape
    row = (
        *name,
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
        store.to_bytes(result.restored),
        store.to_bytes(result.best),
    )
    return store.table([row], store.FITS)


def _scores(study: Study, unit: ScoreUnit) -> pa.Table:
    @functools.cache
    def outputs(shape: Sequence[int], net: Any) -> jax.Array:
        return random_outputs(key_of(study.seed, "score"), net, shape, study.draws)

    rows = []
    for case in study.cases:
        drawn = outputs(case.problem.shape, network(study, unit.architecture, case.problem))
        for reference, (problem, seen) in _comparisons(case, drawn).items():
            scores = evaluate(seen, problem, study.metrics)
            for output in range(study.draws.num):
                row = (unit.architecture, case.image, case.task, reference, output)
                rows.append((*row, *(scores[name][output] for name in study.metrics)))
    return store.table(rows, store.score_schema(study.metrics))


def _comparisons(case: Case, outputs: jax.Array) -> dict[str, tuple[Problem, jax.Array]]:
    """What is compared with which outputs, by reference: see `score_schema`."""
    problem, observed = case.problem, denoising(case.problem.observed)
    comparisons = {"observed": (problem, outputs), "truth": (denoising(case.truth), outputs)}
    if bool((problem.weights == 0).any()):
        known = problem.weights > 0
        comparisons["masked"] = (observed, known * jax.vmap(problem.operator)(outputs))
    return comparisons


def _image(case: Case) -> pa.Table:
    row = (
        case.image,
        case.task,
        *case.truth.shape,
        *case.problem.observed.shape[:2],
        store.to_bytes(case.truth),
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
        records.claim(self.folder, {"study": self.study}, name="study")
        for case in self.study.cases:
            path = self.folder / store.place("images", case.image, case.task)
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
        name = store.place(*unit.name)
        # In this order: a unit's own file goes once it is in a folded one.
        return store.holds(self.folder / name, self.digest) or name in self.folded

    def _failure(self, unit: Unit) -> pathlib.Path:
        return self.folder / "failures" / store.place(*unit.name)

    def _checkpoint(self, unit: Unit) -> pathlib.Path:
        name = store.place(*unit.name)
        return self.folder / "work" / f"{name.parent}-{name.stem}.checkpoint"

    def do(self, unit: Unit, *, progress: ProgressCallback = silent, wait: bool = True) -> bool:
        """Computes a unit unless it has ended; what is begun goes on at its last checkpoint.

        What goes wrong with the unit is written down; what does with files is raised.

        Args:
          unit: The unit.
          progress: Takes its name and where its fit is.
          wait: For another process that is computing it.

        Returns:
          Whether it has ended; without waiting it may not have.
        """
        if not self.ended(unit):
            with records.alone(self._checkpoint(unit).with_suffix(".unit"), wait=wait) as held:
                if not held:
                    return False
                if not self.ended(unit):
                    self._compute(unit, functools.partial(progress, "+".join(unit.name)))
        return True

    def fail(self, unit: Unit, error: BaseException) -> None:
        """Writes down why a unit is not there."""
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        row = store.table([(str(store.place(*unit.name)), reason)], store.FAILURES)
        store.write(self._failure(unit), row, self.digest)

    def failures(self, todo: Iterable[Unit]) -> dict[str, str]:
        """Why some units failed, by their names."""
        found = {}
        for unit in todo:
            failed = self._failure(unit)
            if failed.exists() and not self._there(unit):
                found["+".join(unit.name)] = store.pq.read_table(failed)["reason"][0].as_py()
        return found

    def forgive(self, todo: Iterable[Unit]) -> None:
        """Forgets that units have failed, so that they are tried again, from the beginning."""
        for unit in todo:
            failed = self._failure(unit)
            if failed.exists():
                self._checkpoint(unit).unlink(missing_ok=True)
                failed.unlink(missing_ok=True)

    def _compute(self, unit: Unit, progress: Callable[[Progress], None]) -> None:
        name, checkpoint = store.place(*unit.name), Checkpoint(self._checkpoint(unit))
        start = time.perf_counter()
        try:
            rows = compute(self.study, unit, progress=progress, checkpoint=checkpoint)
        except (OSError, ImportError):  # of no unit's making
            raise
        except Exception as error:
            self.fail(unit, error)
            return
        seconds = time.perf_counter() - start
        timing = store.table([(str(name), seconds, jax.devices()[0].device_kind)], store.TIMINGS)
        store.write(self.folder / "timings" / name, timing, self.digest)
        store.write(self.folder / name, rows, self.digest)
        checkpoint.path.unlink(missing_ok=True)


def _do(progress: ProgressCallback, work: Work, name: tuple[str, ...], wait: bool) -> bool:
    """A unit as a job: called by its name, for all its data are the study's."""
    return work.do(work.units[name], progress=progress, wait=wait)


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
    runner: Runner = Here,
    report: Report | None = None,
    retry_failed: bool = False,
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
            left.append(unit.name)
    with runner(lambda stage, news: heard(stages[stage], news)) as pool:
        shared = pool.share(work)
        # Those that another process is at are left until the end.
        for wait in (False, True):
            futures = {pool.submit(_do, shared, name, wait): name for name in left}
            left = []
            for future in as_completed(futures):
                unit = work.units[futures[future]]
                try:
                    ended = future.result()
                except WorkerDiedError as error:
                    work.fail(unit, error)
                    ended = True
                if ended:
                    heard(unit, None)
                else:
                    left.append(unit.name)
    return work.failures(todo)
