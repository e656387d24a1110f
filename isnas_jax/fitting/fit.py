"""Fitting networks to observations: one driver for a single fit and for many."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh

from isnas_jax.fitting import batch
from isnas_jax.fitting.config import FitConfig
from isnas_jax.fitting.job import FitJob, prepare, resume
from isnas_jax.fitting.result import Fit
from isnas_jax.fitting.step import (
    Curves,
    EarlierStates,
    FitInputs,
    FitState,
    Structure,
    chunk_program,
)
from isnas_jax.io import Checkpoint
from isnas_jax.networks import describe
from isnas_jax.problems import Problem
from isnas_jax.running import Event, Progress, ignore

# Receives the index of a job that ended, and its fit or error.
OnEnd: TypeAlias = Callable[[int, Fit | FloatingPointError], None]


def fit(
    key: jax.Array,
    net: Any,
    problem: Problem,
    config: FitConfig | None = None,
    *,
    clean: Any = None,
    progress: Progress = ignore,
    checkpoint: Checkpoint | None = None,
    **changes: Any,
) -> Fit:
    """Fit a network to an observation and keep a moving average of its outputs.

    The same key gives the same fit, whatever the chunk and however often it was interrupted.
    `fit_many` takes more, such as initial parameters or a validation problem.

    Args:
      key: Random key of initialization, noise map and input noise.
      net: A module of `build_network`, or any Flax module from (1, H', W', I) to (1, H', W', C)
        with an attribute `in_channels`.
      problem: The problem to fit.
      config: How to fit.
      clean: The clean image (H, W, C), for the PSNR curves only.
      progress: Called between chunks.
      checkpoint: Stores the state between chunks, and resumes from it.
      **changes: Fields of `FitConfig` that replace those of `config`.

    Raises:
      ValueError: If inputs do not fit together.
      FloatingPointError: If the loss becomes infinite or nan, naming network and iteration.
    """
    config = dataclasses.replace(config, **changes) if config else FitConfig(**changes)
    job = FitJob(key, net, problem, clean, checkpoint=checkpoint)
    (result,) = fit_many([job], config, progress=progress)
    return result


def fit_many(
    jobs: Sequence[FitJob],
    config: FitConfig,
    *,
    batched: bool | None = None,
    progress: Progress = ignore,
) -> list[Fit]:
    """Fit networks to observations, each on its own, by one compiled program.

    Args:
      jobs: Observations of one task and size for one network, or for genotypes of one cell.
      config: How to fit; each fit stops on its own.
      batched: Run fits in batches, divided among all devices; by default with an accelerator
        or several devices; a batch that runs out of memory is halved. Otherwise they run one after
        another.
      progress: Called between chunks with the stage ("fit", number, count).

    Returns:
      The fit of each job, equal to that of `fit` up to rounding.

    Raises:
      ValueError: As `fit`, or if problems or networks differ in size or kind.
      FloatingPointError: As `fit`, after all others have ended.
    """
    results: dict[int, Fit | FloatingPointError] = {}
    fit_each(jobs, config, results.__setitem__, batched=batched, progress=progress)
    for result in results.values():
        if isinstance(result, FloatingPointError):
            raise result
    return [results[index] for index in range(len(jobs))]  # type: ignore[misc]


def fit_each(
    jobs: Sequence[FitJob],
    config: FitConfig,
    on_end: OnEnd,
    *,
    batched: bool | None = None,
    progress: Progress = ignore,
) -> None:
    """Run `fit_many` and pass each fit to a callback when it ends.

    If the loss of a fit becomes infinite or nan, the callback takes its FloatingPointError; the
    others go on.
    """
    batched = batch.batched_by_default() if batched is None else batched
    count = len(jobs)

    def report(index: int, event: Event) -> None:
        progress(event._replace(stage=("fit", index + 1, count)))

    if count < 2 or not batched:
        for index, job in enumerate(jobs):
            _Group({index: job}, [(job.net, None)], config, None, on_end, report).run()
        return
    networks = batch.shared_networks(jobs)
    mesh = Mesh(np.array(jax.devices()), ("fits",))
    left, most = list(range(count)), count

    def end(index: int, result: Fit | FloatingPointError) -> None:
        left.remove(index)
        on_end(index, result)

    while left:
        chosen = {index: jobs[index] for index in left[:most]}
        nets = [networks[index] for index in chosen]
        try:
            with batch.LOCK:
                _Group(chosen, nets, config, mesh, end, report).run()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or len(chosen) <= mesh.size:
                raise
            most = max(mesh.size, len(chosen) // 2 // mesh.size * mesh.size)


class _Group:
    """Fits that run in one program: a batch, or a single fit without a mesh.

    `slots` has the index of the fit in each slot of the stacked `state` and `inputs`.
    """

    slots: list[int]
    state: FitState
    inputs: FitInputs

    def __init__(
        self,
        jobs: Mapping[int, FitJob],
        networks: Sequence[tuple[Any, np.ndarray | None]],
        config: FitConfig,
        mesh: Mesh | None,
        on_end: OnEnd,
        report: Callable[[int, Event], None],
    ) -> None:
        self.jobs, self.config, self.mesh = jobs, config, mesh
        self.on_end, self.report = on_end, report
        self.networks = dict(zip(jobs, networks, strict=True))
        self.running = list(jobs)
        self.curves: dict[int, Curves] = {}
        self.done: dict[int, int] = {}  # iterations
        self.stopped: dict[int, bool] = {}
        self.files = {index: contextlib.ExitStack() for index in jobs}
        self.earlier = EarlierStates(config.refit_from if mesh is None else 0.0)
        self.advance: Any = None  # the program
        self.begin = time.perf_counter()

    def run(self) -> None:
        """Run all fits to their ends."""
        with contextlib.ExitStack() as files, contextlib.ExitStack() as programs:
            for file in self.files.values():
                files.enter_context(file)
            structure = self._prepare()
            self._locate(*jax.device_get((self.state.iteration, self.state.stopped)))
            self._end()
            while self.running:
                if self.advance is None:
                    program = chunk_program(
                        structure, self.config.chunk, self.state, self.inputs, self.mesh
                    )
                    self.advance = programs.enter_context(program)
                self.earlier.add(self.state)
                with jax.enable_x64(False):
                    self.state, latest = self.advance(self.state, self.inputs)
                latest, *position = jax.device_get(
                    (latest, self.state.iteration, self.state.stopped)
                )
                self._locate(*position)
                self._record(latest)
                self._end()
                # Half a batch of fits that have ended is dropped.
                size = batch.round_up(len(self.running), self.mesh.size) if self.mesh else 1
                if self.running and size <= len(self.slots) // 2:
                    self._stack(self._parts(self.running))
                    programs.close()
                    self.advance = None

    def _prepare(self) -> Structure:
        """Stack all fits at their starts or their checkpoints; return their common structure."""
        structure: Any = None
        parts = {}
        for index, job in self.jobs.items():
            net, bits = self.networks[index]
            structure, state, inputs = prepare(job._replace(net=net), self.config)
            state = batch.with_bits(state, bits)
            state, self.curves[index] = resume(
                self.files[index], job.checkpoint, net, self.config, state, inputs
            )
            parts[index] = jax.device_get((state, inputs)) if self.mesh else (state, inputs)
        self._stack(parts)
        return structure

    def _stack(self, parts: Mapping[int, tuple[FitState, FitInputs]]) -> None:
        self.slots, (self.state, self.inputs) = batch.stack(parts, self.mesh)

    def _parts(self, indices: Sequence[int]) -> dict[int, tuple[FitState, FitInputs]]:
        parts = (self.state, self.inputs)
        if self.mesh:  # all shards at once: a program on one of them could wait forever
            parts = jax.device_get(parts)
        return {i: batch.unstack(parts, self.slots.index(i), self.mesh) for i in indices}

    def _locate(self, iteration: Any, stopped: Any) -> None:
        """Note the iterations done by each fit, and whether its rule has stopped it."""
        self.done = dict(zip(self.slots, map(int, np.atleast_1d(iteration)), strict=True))
        self.stopped = dict(zip(self.slots, map(bool, np.atleast_1d(stopped)), strict=True))

    def _record(self, latest: tuple[Curves, Curves]) -> None:
        """Append a chunk's values to the curves, and report them."""
        for index in self.running:
            done, curves = self.done[index], self.curves[index]
            values, exists = batch.unstack(latest, self.slots.index(index), self.mesh)
            new = slice(done - len(curves.loss))
            chunk = [
                np.where(there, value, np.float32(np.nan))[new]
                for value, there in zip(values, exists, strict=True)
            ]
            self.curves[index] = Curves(*map(np.append, curves, chunk))
            total = done if self.stopped[index] else self.config.iterations
            loss, seconds = float(self.curves[index].loss[-1]), time.perf_counter() - self.begin
            self.report(index, Event((), done, total, loss, seconds))

    def _end(self) -> None:
        """Pass on the fits that have ended, and save checkpoints that are due."""
        errors = {index: self._error(index) for index in self.running}
        ended = [
            index
            for index in self.running
            if errors[index] or self.stopped[index] or self.done[index] >= self.config.iterations
        ]
        self.running = [index for index in self.running if index not in ended]
        due = {
            index: checkpoint
            for index in self.running
            if (checkpoint := self.jobs[index].checkpoint) and checkpoint.due
        }
        parts = self._parts([*ended, *due]) if ended or due else {}
        for index, checkpoint in due.items():
            checkpoint.save((parts[index][0], self.curves[index]))
        for index in ended:
            self.files[index].close()
            self.on_end(index, errors[index] or self._result(index, *parts[index]))

    def _error(self, index: int) -> FloatingPointError | None:
        finite = np.isfinite(self.curves[index].loss)
        if finite.all():
            return None
        net = describe(self.jobs[index].net)
        return FloatingPointError(
            f"the loss of {net} is not finite at iteration {int(np.argmin(finite))}"
        )

    def _result(self, index: int, state: FitState, inputs: FitInputs) -> Fit:
        curves, evaluated = self.curves[index], inputs.clean is not None
        start = self.earlier.replay(state, inputs, self.advance)
        state = batch.without_bits(state, self.jobs[index], inputs.z)
        snapshots = zip(self.config.snapshots, np.asarray(state.snapshots), strict=True)
        return Fit(
            loss=curves.loss,
            validation=None if np.isnan(curves.validation).all() else curves.validation,
            psnr=curves.psnr if evaluated else None,
            psnr_ema=curves.psnr_ema if evaluated else None,
            criterion=curves.criterion,
            output=np.asarray(state.output),
            ema=np.asarray(state.ema),
            restored=np.asarray(state.restored),
            restored_at=int(state.restored_at),
            best=np.asarray(state.best) if evaluated else None,
            snapshots={at: image for at, image in snapshots if at < len(curves.loss)},
            variables=state.variables,
            optimizer_state=state.optimizer,
            start=start,
        )
