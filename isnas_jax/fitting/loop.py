"""Fit a network to one observation: the loop all tasks and networks share.

Images are float32 (H, W, C) in [0, 1]. Iteration t, counted from 0, reports
the output before update t, so iteration 0 is the untrained network.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from isnas_jax import _keys, _programs
from isnas_jax.fitting.config import FitConfig, Optimizer
from isnas_jax.fitting.regularizers import Regularizer
from isnas_jax.fitting.result import Fit, Start
from isnas_jax.fitting.stopping import Step, StoppingRule, needs_validation
from isnas_jax.io import Checkpoint
from isnas_jax.networks import check_network, describe, padded_side
from isnas_jax.ops import quality
from isnas_jax.problems import Problem, check_problem, pixels

Tree = TypeVar("Tree")

Z_SCALE = 0.1

# Two a network, each perhaps for several kinds of problems; besides those in use.
_PROGRAMS = _programs.Programs(8)


class FitState(NamedTuple):
    """What the loop carries from one iteration to the next."""

    iteration: jax.Array  # [] int32
    stopped: jax.Array  # [] bool
    variables: Any  # the network's parameters
    optimizer: Any  # the optimizer's state
    output: jax.Array  # [H, W, C] latest output
    ema: jax.Array  # [H, W, C] exponential mean of the outputs
    rule: Any  # the stopping rule's state
    kept: jax.Array  # [H, W, C] the mean where the rule said to keep it
    kept_at: jax.Array  # [] int32
    best: jax.Array  # [H, W, C] the mean closest to the clean image; evaluation only
    best_psnr: jax.Array  # [] dB; 0 before the first iteration
    snapshots: jax.Array  # [S, H, W, C] the mean at chosen iterations


class Curves(NamedTuple):
    """What one iteration reports; stacked, one value for each iteration; nan where there is none.

    A program returns finite values instead, and booleans that say where there is one.
    """

    loss: Any
    validation: Any  # of the exponential mean
    psnr: Any  # dB, of the output
    psnr_ema: Any  # dB, of the exponential mean
    criterion: Any  # the stopping rule's


class Progress(NamedTuple):
    """Where a fit stands, reported between chunks.

    Attributes:
      iteration: Iterations done.
      iterations: The most there will be; those done once the fit has stopped.
      loss: Of the latest iteration.
      psnr_ema: dB of the exponential mean; nan without a clean image.
    """

    iteration: int
    iterations: int
    loss: float
    psnr_ema: float


class _Structure(NamedTuple):
    """What of the settings is part of the program."""

    net: Any
    stopping: StoppingRule
    optimizer: Optimizer
    regularizers: tuple[Regularizer, ...]


def _structure(net: Any, config: FitConfig) -> _Structure:
    return _Structure(net, config.stopping, config.optimizer, config.regularizers)


class _Numbers(NamedTuple):
    """What of the settings the program is given."""

    iterations: Any  # [] int32
    learning_rate: Any  # [] float32
    input_noise_std: Any  # [] float32
    ema_decay: Any  # [] float32
    debias: Any  # [] bool
    snapshots: Any  # [S] int32


class Given(NamedTuple):
    """What a fit is given and does not change.

    Attributes:
      key: Of the regularizing noise.
      z: The network's input, (1, H', W', I).
      problem: What to fit to.
      validation: What to validate with, or None.
      clean: The clean image, for evaluation only, or None.
      numbers: Of the settings.
    """

    key: jax.Array
    z: jax.Array
    problem: Problem
    validation: Problem | None
    clean: jax.Array | None
    numbers: _Numbers


def update_ema(
    ema: jax.Array, output: jax.Array, decay: Any, iteration: Any, debias: Any = False
) -> jax.Array:
    """Return the exponential moving average after one more output.

    Equation 4: m_1 = x_1, m_t = decay m_(t-1) + (1 - decay) x_t, in which the first output
    keeps the weight decay^(t-1). With bias correction, the average starts from 0 and is divided
    by 1 - decay^t, so that output s has a weight in proportion to decay^(-s).

    Args:
      ema: (H, W, C), the average before; ignored at iteration 0.
      output: (H, W, C), the output of this iteration.
      decay: In [0, 1).
      iteration: Counted from 0.
      debias: Whether to correct the bias.
    """
    age = jnp.asarray(iteration + 1, jnp.float32)
    weight = (1 - decay) / jnp.where(debias, 1 - decay**age, 1)
    return jnp.where(iteration == 0, output, (1 - weight) * ema + weight * output)


def draw_noise_map(key: jax.Array, net: Any, shape: Sequence[int]) -> jax.Array:
    """A network's fixed input for an image (H, W, C): 0.1 U(0, 1), (1, H', W', I), padded sides."""
    height, width = padded_side(shape[0]), padded_side(shape[1])
    return Z_SCALE * jax.random.uniform(key, (1, height, width, net.in_channels), jnp.float32)


def generate(net: Any, variables: Any, z: jax.Array, shape: Sequence[int]) -> jax.Array:
    """The network's image (H, W, C): its output cut to the image's size."""
    return net.apply(variables, z)[0, : shape[0], : shape[1]]


def _update(
    structure: _Structure, given: Given, state: FitState
) -> tuple[FitState, tuple[Curves, Curves]]:
    """One iteration: the new state, what it reports, and which values of that there are."""
    iteration, problem, numbers = state.iteration, given.problem, given.numbers
    noise_key = jax.random.fold_in(given.key, iteration)
    noise = jax.random.normal(noise_key, given.z.shape, jnp.float32)
    noisy_z = given.z + numbers.input_noise_std * noise

    def objective(variables):
        output = generate(structure.net, variables, noisy_z, problem.shape)
        loss = problem.loss(output)
        return sum((term(output, problem) for term in structure.regularizers), loss), (loss, output)

    gradient, (loss, output) = jax.grad(objective, has_aux=True)(state.variables)
    optimizer = structure.optimizer(numbers.learning_rate)
    with jax.numpy_dtype_promotion("standard"):  # optax takes powers of floats by integers
        step, optimizer_state = optimizer.update(gradient, state.optimizer, state.variables)
    ema = update_ema(state.ema, output, numbers.ema_decay, iteration, numbers.debias)
    validation, validated = jnp.zeros((), jnp.float32), jnp.array(False)
    if given.validation is not None:
        validation, validated = given.validation.error(ema), given.validation.measured
    rule, decision = structure.stopping.update(
        state.rule, Step(iteration, output, ema, loss, validation, validated, problem)
    )

    best, best_psnr = state.best, state.best_psnr
    psnr = psnr_ema = jnp.zeros((), jnp.float32)
    if given.clean is not None:
        psnr, psnr_ema = quality.psnr(output, given.clean), quality.psnr(ema, given.clean)
        better = (psnr_ema > best_psnr) | (iteration == 0)
        best = jnp.where(better, ema, best)
        best_psnr = jnp.where(better, psnr_ema, best_psnr)
    due = numbers.snapshots == iteration
    new = FitState(
        iteration=iteration + 1,
        stopped=jnp.asarray(decision.stop),
        variables=optax.apply_updates(state.variables, step),
        optimizer=optimizer_state,
        output=output,
        ema=ema,
        rule=jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), rule, state.rule),
        kept=jnp.where(decision.keep, ema, state.kept),
        kept_at=jnp.where(decision.keep, iteration, state.kept_at),
        best=best,
        best_psnr=best_psnr,
        snapshots=jnp.where(due[:, None, None, None], ema[None], state.snapshots),
    )
    judged = decision.has_criterion if decision.criterion is not None else False
    criterion = 0.0 if decision.criterion is None else decision.criterion
    curves = Curves(loss, validation, psnr, psnr_ema, criterion)
    evaluated = given.clean is not None
    known = Curves(True, validated, evaluated, evaluated, judged)
    return new, (_as(jnp.float32, curves), _as(jnp.bool, known))


def _as(dtype: Any, curves: Curves) -> Curves:
    return Curves(*(jnp.asarray(value, dtype) for value in curves))


def _advance(
    structure: _Structure, length: int, state: FitState, given: Given
) -> tuple[FitState, tuple[Curves, Curves]]:
    """Runs up to `length` iterations; those past the end or the stop change nothing."""
    blank = Curves(*(0,) * len(Curves._fields))
    nothing = _as(jnp.float32, blank), _as(jnp.bool, blank)

    def step(state, _):
        return lax.cond(
            state.stopped | (state.iteration >= given.numbers.iterations),
            lambda state: (state, nothing),
            functools.partial(_update, structure, given),
            state,
        )

    return lax.scan(step, state, length=length)


def chunk_program(
    structure: _Structure, chunk: int, state: FitState, given: Given, mesh: Mesh | None = None
) -> contextlib.AbstractContextManager[Any]:
    """Opens the program that advances a fit; with a mesh, fits stacked along a first axis."""

    def make():
        advance = functools.partial(_advance, structure, chunk)
        if mesh:
            spec = PartitionSpec(mesh.axis_names[0])
            advance = jax.shard_map(
                jax.vmap(advance), mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
            )
        return jax.jit(advance, donate_argnums=0, compiler_options=_programs.compiler_options())

    key = (structure, chunk, mesh, _programs.shapes(state, given))
    return _PROGRAMS.use(key, make)


def _begin(structure: _Structure, variables: Any, problem: Problem, numbers: _Numbers) -> FitState:
    blank = jnp.zeros(problem.shape, jnp.float32)
    state = FitState(
        iteration=jnp.array(0, jnp.int32),
        stopped=jnp.array(False),
        variables=variables,
        optimizer=structure.optimizer(numbers.learning_rate).init(variables),
        output=blank,
        ema=blank,
        rule=structure.stopping.init(problem),
        kept=blank,
        kept_at=jnp.array(0, jnp.int32),
        best=blank,
        best_psnr=jnp.zeros((), jnp.float32),
        snapshots=jnp.zeros((len(numbers.snapshots), *problem.shape), jnp.float32),
    )
    # The loop donates its state, so that nothing in it may be another's array; and a
    # weakly typed start would compile the first chunk for itself.
    return jax.tree.map(lambda leaf: jnp.array(leaf, jnp.asarray(leaf).dtype, copy=True), state)


def start(
    key: jax.Array,
    net: Any,
    problem: Problem,
    config: FitConfig,
    *,
    validation: Problem | None = None,
    clean: Any = None,
    begun: Start = Start(None, None),
    z: Any = None,
) -> tuple[_Structure, FitState, Given]:
    """Checks what a fit is given and draws the rest; arguments are as for `fit`."""
    _keys.check(key)
    check_network(net)
    check_problem(problem)
    _programs.check_concrete("what a fit is given", key, problem, validation, begun, z)
    if clean is not None:
        clean = pixels.check_clean(clean, problem.shape)
    problem, validation, begun, z = _programs.in_32_bits((problem, validation, begun, z))
    with jax.enable_x64(False):
        structure, state, given = _started(
            key, net, problem, config, validation, clean, begun.variables, z
        )
        if begun.optimizer_state is not None:
            state = state._replace(optimizer=_copy(begun.optimizer_state))
    return structure, state, given


def _started(
    key: jax.Array,
    net: Any,
    problem: Problem,
    config: FitConfig,
    validation: Problem | None,
    clean: jax.Array | None,
    variables: Any,
    z: Any,
) -> tuple[_Structure, FitState, Given]:
    """`start`, what it is given being of 32 bits."""
    if validation is None and config.split:
        # The fourth of the key's parts: folding in 0 to 2 would give those above again.
        problem, validation = config.split(jax.random.fold_in(key, 3), problem)
    if validation is None and needs_validation(config.stopping):
        raise ValueError(
            f"{type(config.stopping).__name__} needs a validation problem: give a split"
        )
    if validation is not None and validation.shape != problem.shape:
        raise ValueError(
            f"a validation problem of shape {validation.shape} for an image of {problem.shape}"
        )
    if (channels := getattr(net, "out_channels", problem.shape[2])) != problem.shape[2]:
        raise ValueError(
            f"{describe(net)} makes images of {channels} channels, not of {problem.shape[2]}"
        )
    init_key, z_key, noise_key = jax.random.split(key, 3)
    z = draw_noise_map(z_key, net, problem.shape) if z is None else jnp.asarray(z, jnp.float32)
    if variables is None:
        variables = net.lazy_init(init_key, jax.ShapeDtypeStruct(z.shape, z.dtype))
    structure = _structure(net, config)
    numbers = _Numbers(
        jnp.asarray(config.iterations, jnp.int32),
        jnp.asarray(config.learning_rate, jnp.float32),
        jnp.asarray(config.input_noise_std, jnp.float32),
        jnp.asarray(config.ema_decay, jnp.float32),
        jnp.asarray(config.debias),
        jnp.asarray(config.snapshots, jnp.int32),
    )
    begin = _PROGRAMS.get(
        ("begin", structure, _programs.shapes(variables, problem, numbers)),
        lambda: jax.jit(functools.partial(_begin, structure)),
    )
    state = begin(variables, problem, numbers)
    return structure, state, Given(noise_key, z, problem, validation, clean, numbers)


def fit(
    key: jax.Array,
    net: Any,
    problem: Problem,
    config: FitConfig | None = None,
    *,
    variables: Any = None,
    optimizer_state: Any = None,
    z: jax.Array | None = None,
    validation: Problem | None = None,
    clean: Any = None,
    progress: Callable[[Progress], None] | None = None,
    checkpoint: Checkpoint | None = None,
    **changes: Any,
) -> Fit:
    """Fits a network to an observation and keeps an exponential mean of its outputs.

    The same key gives the same fit, whatever the chunk and wherever it was
    interrupted. `fit(key, net, problem, iterations=600)` is the everyday call.

    Args:
      key: Random key for the initialization, z and the regularizing noise.
      net: A module of `build_network`, or any Flax module from (1, H', W', I)
        to (1, H', W', C) with an `in_channels` attribute.
      problem: What is known of the image.
      config: How to fit.
      variables: Initial parameters; drawn from the key by default.
      optimizer_state: The optimizer's initial state; a new one by default.
      z: The network's input, (1, H', W', I) with H', W' the padded sides;
        0.1 U(0, 1) by default.
      validation: Measurements that the network is not fitted to: a problem of
        the same image, if it is not to be split off by the settings.
      clean: The clean image (H, W, C), for the PSNR curves only.
      progress: Called between chunks.
      checkpoint: Where to keep the state between chunks, and to resume from.
      **changes: Fields of `FitConfig`, to be put over the settings, or all
        there is without them: iterations, learning_rate, stopping, ...

    Raises:
      ValueError: For settings or shapes that cannot be.
      FloatingPointError: If the loss stops being finite, naming the network
        and the iteration.
    """
    config = dataclasses.replace(config, **changes) if config else FitConfig(**changes)
    structure, state, given = start(
        key,
        net,
        problem,
        config,
        validation=validation,
        clean=clean,
        begun=Start(variables, optimizer_state),
        z=z,
    )
    held: dict[int, Start] = {}
    with contextlib.ExitStack() as stack:
        state, curves = kept_in(stack, checkpoint, net, config, state, given)
        advance = stack.enter_context(chunk_program(structure, config.chunk, state, given))
        while int(state.iteration) < config.iterations and not bool(state.stopped):
            before = int(state.iteration)
            if config.refit_from:
                held[before] = _copy(Start(state.variables, state.optimizer))
                _drop_earlier(held, _left_at(config, state))
            with jax.enable_x64(False):
                state, latest = advance(state, given)
            done = int(state.iteration) - before
            latest = recorded(latest, done)
            check_finite(net, before, latest.loss)
            curves = Curves(*map(np.append, curves, latest))
            if progress:
                last = (float(latest.loss[-1]), float(latest.psnr_ema[-1]))
                most = before + done if bool(state.stopped) else config.iterations
                progress(Progress(before + done, most, *last))
            if checkpoint and checkpoint.due:
                checkpoint.save((state, curves))
        refit_start = _replay(advance, config, state, given, held)
    return finished(config, given, state, curves, refit_start)


def _replay(
    advance: Any, config: FitConfig, state: FitState, given: Given, held: dict[int, Start]
) -> Start | None:
    """Return where a refit leaves this fit, from the states held between chunks."""
    left_at = _left_at(config, state)
    _drop_earlier(held, left_at)
    if not held or min(held) > left_at:  # resumed after that iteration
        return None
    variables, optimizer_state = held[min(held)]
    begun = state._replace(
        iteration=jnp.array(min(held), jnp.int32),
        stopped=jnp.array(False),
        variables=variables,
        optimizer=optimizer_state,
    )
    numbers = given.numbers._replace(iterations=jnp.array(left_at, jnp.int32))
    with jax.enable_x64(False):
        replayed, _ = advance(_copy(begun), given._replace(numbers=numbers))
    return Start(replayed.variables, replayed.optimizer)


def _left_at(config: FitConfig, state: FitState) -> int:
    """Iterations after which a refit leaves this fit's trajectory."""
    return round(config.refit_from * (int(state.kept_at) + 1))


def _drop_earlier(held: dict[int, Start], iteration: int) -> None:
    """Keep the latest state that is not after an iteration, and those after it."""
    earlier = sorted(at for at in held if at <= iteration)
    for at in earlier[:-1]:
        del held[at]


def _copy(tree: Tree) -> Tree:
    return jax.tree.map(jnp.copy, tree)


def recorded(latest: tuple[Curves, Curves], done: int) -> Curves:
    """What a program reported of the iterations done, on the host, with nan for no value."""
    values, known = latest
    return Curves(
        *(
            np.where(there, value, np.float32(np.nan))[:done]
            for value, there in zip(values, known, strict=True)
        )
    )


def kept_in(
    stack: contextlib.ExitStack,
    checkpoint: Checkpoint | None,
    net: Any,
    config: FitConfig,
    state: FitState,
    given: Given,
) -> tuple[FitState, Curves]:
    """Opens the checkpoint of a fit, if it has one: its state and its curves so far."""
    curves = Curves(*(np.zeros(0, np.float32),) * len(Curves._fields))
    if checkpoint is None:
        return state, curves
    of = {"network": net, "config": config, **given._asdict()}
    of |= {"variables": state.variables, "optimizer": state.optimizer}
    stack.enter_context(checkpoint.opened(of))
    return checkpoint.restore((state, curves))


def check_finite(net: Any, before: int, loss: np.ndarray) -> None:
    """FloatingPointError that names network and iteration, the first of these being `before`."""
    if not np.isfinite(loss).all():
        first = before + int(np.argmin(np.isfinite(loss)))
        raise FloatingPointError(f"the loss of {describe(net)} is not finite at iteration {first}")


def finished(
    config: FitConfig,
    given: Given,
    state: FitState,
    curves: Curves,
    refit_start: Start | None = None,
) -> Fit:
    """The result of a fit that has ended."""
    evaluated = given.clean is not None
    return Fit(
        loss=curves.loss,
        validation=None if np.isnan(curves.validation).all() else curves.validation,
        psnr=curves.psnr if evaluated else None,
        psnr_ema=curves.psnr_ema if evaluated else None,
        criterion=curves.criterion,
        output=np.asarray(state.output),
        ema=np.asarray(state.ema),
        restored=np.asarray(state.kept),
        restored_at=int(state.kept_at),
        best=np.asarray(state.best) if evaluated else None,
        snapshots={
            iteration: image
            for iteration, image in zip(config.snapshots, np.asarray(state.snapshots), strict=True)
            if iteration < len(curves.loss)
        },
        variables=state.variables,
        optimizer_state=state.optimizer,
        start=refit_start,
    )


def lower_steps(
    net: Any,
    problem: Problem,
    config: FitConfig = FitConfig(1),
    *,
    clean: Any = None,
    target: str | jax.Device | None = None,
) -> jax.stages.Lowered:
    """The program of a fit's steps, to be compiled and looked at.

    Args:
      net: As for `fit`.
      problem: As for `fit`.
      config: As for `fit`.
      clean: As for `fit`.
      target: A platform ("cuda", "tpu"), or a device of a described topology, for
        which it can be compiled without one; this backend by default. For
        another one the network has to say by its numerics what suits it.
    """
    key = jax.random.key(0)
    # A split cannot be traced; its parts have the shapes of the problem.
    validation = problem if config.split else None
    config = dataclasses.replace(config, split=None)

    def arguments():
        return start(key, net, problem, config, validation=validation, clean=clean)[1:]

    state, given = jax.eval_shape(arguments)
    structure = _structure(net, config)
    with jax.enable_x64(False):
        if target is None:
            with chunk_program(structure, config.chunk, state, given) as advance:
                return advance.lower(state, given)
        advance = jax.jit(functools.partial(_advance, structure, config.chunk), donate_argnums=0)
        return _programs.lower(advance, (state, given), target)


def fit_memory(net: Any, problem: Problem) -> int:
    """Bytes that XLA plans for the steps of a fit on this backend: state, inputs, temporaries."""
    return program_memory(lower_steps(net, problem).compile())


def program_memory(compiled: jax.stages.Compiled) -> int:
    """Bytes that a compiled program takes: arguments, results, temporaries."""
    plan: Any = compiled.memory_analysis()
    kept = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    return kept + plan.temp_size_in_bytes
