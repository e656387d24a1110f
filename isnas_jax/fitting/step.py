"""The iterations of a fit as a pure function, compiled in chunks.

Images are float32 (H, W, C) in [0, 1]. Iteration t, from 0, reports the output before update t,
so that iteration 0 is the untrained network.
"""

import contextlib
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from isnas_jax import _programs
from isnas_jax.fitting.config import FitConfig, Optimizer, Regularizer
from isnas_jax.fitting.result import Start
from isnas_jax.fitting.stopping import Step, StoppingRule
from isnas_jax.networks import padded_side
from isnas_jax.ops import quality
from isnas_jax.problems import Problem

Tree = TypeVar("Tree")

Z_SCALE = 0.1

# Two per network that is fitted now, perhaps for several kinds of problems.
PROGRAMS = _programs.ProgramCache(8)


class FitState(NamedTuple):
    """The state that the loop carries from one iteration to the next."""

    iteration: jax.Array  # [] int32
    stopped: jax.Array  # [] bool
    variables: Any  # the network's parameters
    optimizer: Any  # the optimizer's state
    output: jax.Array  # [H, W, C] latest output
    ema: jax.Array  # [H, W, C] moving average of the outputs
    rule: Any  # the stopping rule's state
    restored: jax.Array  # [H, W, C] the EMA that the rule kept last
    restored_at: jax.Array  # [] int32
    best: jax.Array  # [H, W, C] the EMA closest to the clean image; evaluation only
    best_psnr: jax.Array  # [] dB; 0 before the first iteration
    snapshots: jax.Array  # [S, H, W, C] the EMA at chosen iterations


class Curves(NamedTuple):
    """One value per iteration; nan where there is none.

    A program returns finite values instead, and booleans that mark those that exist.
    """

    loss: Any
    validation: Any  # of the EMA
    psnr: Any  # dB, of the output
    psnr_ema: Any  # dB, of the EMA
    criterion: Any  # of the stopping rule


class Structure(NamedTuple):
    """The part of a fit that is compiled into its program."""

    net: Any
    stopping: StoppingRule
    optimizer: Optimizer
    regularizers: tuple[Regularizer, ...]

    @classmethod
    def create(cls, net: Any, config: FitConfig) -> "Structure":
        return cls(net, config.stopping, config.optimizer, config.regularizers)


class Numbers(NamedTuple):
    """The numbers of a config, which a program takes as arguments."""

    iterations: Any  # [] int32
    learning_rate: Any  # [] float32
    input_noise_std: Any  # [] float32
    ema_decay: Any  # [] float32
    debias: Any  # [] bool
    snapshots: Any  # [S] int32

    @classmethod
    def create(cls, config: FitConfig) -> "Numbers":
        return cls(
            jnp.asarray(config.iterations, jnp.int32),
            jnp.asarray(config.learning_rate, jnp.float32),
            jnp.asarray(config.input_noise_std, jnp.float32),
            jnp.asarray(config.ema_decay, jnp.float32),
            jnp.asarray(config.debias),
            jnp.asarray(config.snapshots, jnp.int32),
        )


class FitInputs(NamedTuple):
    """The arrays that a fit is given and does not change."""

    key: jax.Array  # of the input noise
    z: jax.Array  # [1, H', W', I]
    problem: Problem
    validation: Problem | None
    clean: jax.Array | None  # [H, W, C], for evaluation only
    numbers: Numbers


def update_ema(
    ema: jax.Array, output: jax.Array, decay: Any, iteration: Any, debias: Any = False
) -> jax.Array:
    """Return the exponential moving average after one more output.

    Equation 4: m_1 = x_1, m_t = decay m_(t-1) + (1 - decay) x_t, in which the first output
    keeps the weight decay^(t-1). With bias correction, the average starts from 0 and is divided
    by 1 - decay^t, so that output s has a weight in proportion to decay^(-s).

    The average before, (H, W, C), is ignored at iteration 0.
    """
    age = jnp.asarray(iteration + 1, jnp.float32)
    weight = (1 - decay) / jnp.where(debias, 1 - decay**age, 1)
    return jnp.where(iteration == 0, output, (1 - weight) * ema + weight * output)


def draw_noise_map(key: jax.Array, net: Any, shape: Sequence[int]) -> jax.Array:
    """Draw the input of a network for images (H, W, C): (1, padded H, padded W, I), 0.1 U(0, 1)."""
    height, width = padded_side(shape[0]), padded_side(shape[1])
    return Z_SCALE * jax.random.uniform(key, (1, height, width, net.in_channels), jnp.float32)


def copy(tree: Tree) -> Tree:
    """Copy all arrays of a pytree."""
    return jax.tree.map(jnp.copy, tree)


def initial_state(
    structure: Structure, variables: Any, problem: Problem, config: FitConfig, numbers: Numbers
) -> FitState:
    """Return the state before iteration 0."""
    rule, shape = structure.stopping.init(problem, config.iterations), problem.shape

    def create(variables: Any, numbers: Numbers, rule: Any) -> FitState:
        blank = jnp.zeros(shape, jnp.float32)
        state = FitState(
            iteration=jnp.array(0, jnp.int32),
            stopped=jnp.array(False),
            variables=variables,
            optimizer=structure.optimizer(numbers.learning_rate).init(variables),
            output=blank,
            ema=blank,
            rule=rule,
            restored=blank,
            restored_at=jnp.array(0, jnp.int32),
            best=blank,
            best_psnr=jnp.zeros((), jnp.float32),
            snapshots=jnp.zeros((len(numbers.snapshots), *shape), jnp.float32),
        )
        # The loop donates its state, so it must own every array. Weak types would compile the
        # first chunk twice.
        return jax.tree.map(lambda leaf: jnp.array(leaf, jnp.asarray(leaf).dtype, copy=True), state)

    arguments = variables, numbers, rule
    key = ("initial state", structure, shape, _programs.shapes(*arguments))
    return PROGRAMS.get(key, lambda: jax.jit(create))(*arguments)


def _update(
    structure: Structure, inputs: FitInputs, state: FitState
) -> tuple[FitState, tuple[Curves, Curves]]:
    """Run one iteration; return the new state, its values, and which of them exist."""
    iteration, problem, numbers = state.iteration, inputs.problem, inputs.numbers
    height, width, _ = problem.shape
    noise_key = jax.random.fold_in(inputs.key, iteration)
    noise = jax.random.normal(noise_key, inputs.z.shape, jnp.float32)
    noisy_z = inputs.z + numbers.input_noise_std * noise

    def objective(variables):
        output = structure.net.apply(variables, noisy_z)[0, :height, :width]
        loss = problem.loss(output)
        return sum((term(output, problem) for term in structure.regularizers), loss), (loss, output)

    gradient, (loss, output) = jax.grad(objective, has_aux=True)(state.variables)
    optimizer = structure.optimizer(numbers.learning_rate)
    with jax.numpy_dtype_promotion("standard"):  # optax takes powers of floats by integers
        step, optimizer_state = optimizer.update(gradient, state.optimizer, state.variables)
    ema = update_ema(state.ema, output, numbers.ema_decay, iteration, numbers.debias)
    validation, validated = jnp.zeros((), jnp.float32), jnp.array(False)
    if inputs.validation is not None:
        validation, validated = inputs.validation.error(ema), inputs.validation.has_measurements
    rule, decision = structure.stopping.update(
        state.rule, Step(iteration, output, ema, loss, validation, validated, problem)
    )

    best, best_psnr = state.best, state.best_psnr
    psnr = psnr_ema = jnp.zeros((), jnp.float32)
    if inputs.clean is not None:
        psnr, psnr_ema = quality.psnr(output, inputs.clean), quality.psnr(ema, inputs.clean)
        better = (psnr_ema > best_psnr) | (iteration == 0)
        best = jnp.where(better, ema, best)
        best_psnr = jnp.where(better, psnr_ema, best_psnr)
    snapshots = state.snapshots
    if len(snapshots):  # one is written in place: a choice between all would copy them
        due = numbers.snapshots == iteration
        index = jnp.argmax(due)
        snapshots = snapshots.at[index].set(jnp.where(due.any(), ema, snapshots[index]))
    new = FitState(
        iteration=iteration + 1,
        stopped=jnp.asarray(decision.stop),
        variables=optax.apply_updates(state.variables, step),
        optimizer=optimizer_state,
        output=output,
        ema=ema,
        rule=jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), rule, state.rule),
        restored=jnp.where(decision.keep, ema, state.restored),
        restored_at=jnp.where(decision.keep, iteration, state.restored_at),
        best=best,
        best_psnr=best_psnr,
        snapshots=snapshots,
    )
    criterion = 0.0 if decision.criterion is None else decision.criterion
    has_criterion = decision.has_criterion if decision.criterion is not None else False
    curves = Curves(loss, validation, psnr, psnr_ema, criterion)
    evaluated = inputs.clean is not None
    exists = Curves(True, validated, evaluated, evaluated, has_criterion)
    return new, (_cast(jnp.float32, curves), _cast(jnp.bool, exists))


def _cast(dtype: Any, curves: Curves) -> Curves:
    return Curves(*(jnp.asarray(value, dtype) for value in curves))


def advance(
    structure: Structure, length: int, state: FitState, inputs: FitInputs
) -> tuple[FitState, tuple[Curves, Curves]]:
    """Run up to `length` iterations; those after the end or the stop change nothing."""
    blank = Curves(*(0,) * len(Curves._fields))
    nothing = _cast(jnp.float32, blank), _cast(jnp.bool, blank)

    def step(state, _):
        return lax.cond(
            state.stopped | (state.iteration >= inputs.numbers.iterations),
            lambda state: (state, nothing),
            functools.partial(_update, structure, inputs),
            state,
        )

    return lax.scan(step, state, length=length)


def chunk_program(
    structure: Structure, chunk: int, state: FitState, inputs: FitInputs, mesh: Mesh | None = None
) -> contextlib.AbstractContextManager[Any]:
    """Open the program that advances a fit; with a mesh, fits stacked along a first axis."""

    def compile_chunk():
        function = functools.partial(advance, structure, chunk)
        if mesh:
            spec = PartitionSpec(mesh.axis_names[0])
            function = jax.shard_map(
                jax.vmap(function), mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
            )
        return jax.jit(function, donate_argnums=0, compiler_options=_programs.compiler_options())

    key = (structure, chunk, mesh, _programs.shapes(state, inputs))
    return PROGRAMS.use(key, compile_chunk)


class EarlierStates:
    """States between chunks, of which a refit will need one: see `refit`.

    Args:
      fraction: `FitConfig.refit_from`; 0 stores nothing.
    """

    def __init__(self, fraction: float) -> None:
        self.fraction = fraction
        self.states: dict[int, Start] = {}

    def _leave_at(self, state: FitState) -> int:
        """Return where a refit of a fit in this state would leave it; drop unneeded states."""
        leave_at = round(self.fraction * (int(state.restored_at) + 1))
        for at in sorted(at for at in self.states if at <= leave_at)[:-1]:
            del self.states[at]
        return leave_at

    def add(self, state: FitState) -> None:
        """Store a state before its chunk runs, which donates it."""
        if self.fraction:
            self.states[int(state.iteration)] = copy(Start(state.variables, state.optimizer))
            self._leave_at(state)

    def replay(self, state: FitState, inputs: FitInputs, advance: Any) -> Start | None:
        """Return the state at which a refit leaves a fit that ended with this state."""
        leave_at = self._leave_at(state)
        if not self.states or (first := min(self.states)) > leave_at:  # resumed after it
            return None
        begin = state._replace(
            iteration=jnp.array(first, jnp.int32),
            stopped=jnp.array(False),
            variables=self.states[first].variables,
            optimizer=self.states[first].optimizer_state,
        )
        numbers = inputs.numbers._replace(iterations=jnp.array(leave_at, jnp.int32))
        with jax.enable_x64(False):
            replayed, _ = advance(copy(begin), inputs._replace(numbers=numbers))
        return Start(replayed.variables, replayed.optimizer)
