"""Fitting a network to one observation: the loop all tasks and networks share.

Images are float32 (H, W, C) in [0, 1]. Iteration t, counted from 0, reports
the output before update t, so iteration 0 is the untrained network.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from isnas_jax import quality
from isnas_jax.backends import compiler_options
from isnas_jax.checkpoints import Checkpoint
from isnas_jax.networks import padded_side
from isnas_jax.observations import Problem
from isnas_jax.stopping import FixedIterations, StoppingRule

Z_SCALE = 0.1
REG_NOISE_STD = 1 / 30
FIXED = FixedIterations()


class FitState(NamedTuple):
    """What the loop carries from one iteration to the next."""

    iteration: jax.Array  # [] int32
    stopped: jax.Array  # [] bool
    variables: Any  # the network's parameters
    optimizer: Any  # Adam's moments
    output: jax.Array  # [H, W, C] latest output
    mean: jax.Array  # [H, W, C] exponential mean of the outputs
    rule: Any  # the stopping rule's state
    kept: jax.Array  # [H, W, C] the mean where the rule said to keep it
    kept_at: jax.Array  # [] int32
    best: jax.Array  # [H, W, C] the mean closest to the truth; evaluation only
    best_psnr: jax.Array  # [] dB
    snapshots: jax.Array  # [S, H, W, C] the mean at chosen iterations


class Curves(NamedTuple):
    """What one iteration reports; stacked, one value for each iteration."""

    loss: Any
    psnr: Any  # dB, of the output; nan without a truth
    psnr_mean: Any  # dB, of the exponential mean; nan without a truth
    criterion: Any  # the stopping rule's


@dataclasses.dataclass(frozen=True)
class Fit:
    """A finished fit of T iterations, as NumPy arrays.

    Attributes:
      loss: [T] mean squared error against the observation.
      psnr: [T] dB of the output, or None without a truth.
      psnr_mean: [T] dB of the exponential mean, or None without a truth.
      criterion: [T] of the stopping rule, nan where it has none.
      output: [H, W, C] of the last iteration.
      mean: [H, W, C] exponential mean at the last iteration.
      restored: [H, W, C] the mean that the stopping rule chose.
      restored_at: The iteration of `restored`.
      best: [H, W, C] the mean closest to the truth, or None; an oracle, not a
        restoration.
      snapshots: The mean at chosen iterations, those that were reached.
      variables: The network's parameters after the last update.
    """

    loss: np.ndarray
    psnr: np.ndarray | None
    psnr_mean: np.ndarray | None
    criterion: np.ndarray
    output: np.ndarray
    mean: np.ndarray
    restored: np.ndarray
    restored_at: int
    best: np.ndarray | None
    snapshots: dict[int, np.ndarray]
    variables: Any


@dataclasses.dataclass(frozen=True)
class _Recipe:
    """Everything about the loop that is fixed at compile time."""

    net: Any
    iterations: int
    learning_rate: float
    reg_noise_std: float
    mean_decay: float
    stopping: StoppingRule
    snapshots: tuple[int, ...]

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)


class Progress(NamedTuple):
    """Where a fit stands, reported between chunks.

    Attributes:
      iteration: Iterations done.
      iterations: The most there will be.
      loss: Of the latest iteration.
      psnr_mean: dB of the exponential mean; nan without a truth.
    """

    iteration: int
    iterations: int
    loss: float
    psnr_mean: float


def exponential_mean(mean: jax.Array, output: jax.Array, decay: float, first: Any) -> jax.Array:
    """One step of equation 4: m_1 = x_1, m_t = decay m_(t-1) + (1 - decay) x_t."""
    return jnp.where(first, output, decay * mean + (1 - decay) * output)


def draw_noise_map(key: jax.Array, net: Any, shape: Sequence[int]) -> jax.Array:
    """A network's fixed input for an image (H, W, C): 0.1 U(0, 1), (1, H', W', I), padded sides."""
    height, width = padded_side(shape[0]), padded_side(shape[1])
    return Z_SCALE * jax.random.uniform(key, (1, height, width, net.in_channels))


def generate(net: Any, variables: Any, z: jax.Array, shape: Sequence[int]) -> jax.Array:
    """The network's image (H, W, C): its output cut to the image's size."""
    return net.apply(variables, z)[0, : shape[0], : shape[1]]


def _update(
    recipe: _Recipe, key: jax.Array, z: jax.Array, problem: Problem, truth: Any, state: FitState
) -> tuple[FitState, Curves]:
    iteration = state.iteration
    noise = jax.random.normal(jax.random.fold_in(key, iteration), z.shape)
    noisy_z = z + recipe.reg_noise_std * noise

    def loss_of(variables):
        output = generate(recipe.net, variables, noisy_z, problem.shape)
        return jnp.square(problem.operator(output) - problem.observed).mean(), output

    (loss, output), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.variables)
    step, optimizer = recipe.optimizer.update(gradient, state.optimizer)
    mean = exponential_mean(state.mean, output, recipe.mean_decay, iteration == 0)
    rule, decision = recipe.stopping.update(state.rule, iteration, output)

    best, best_psnr = state.best, state.best_psnr
    psnr = psnr_mean = jnp.array(jnp.nan)
    if truth is not None:
        psnr, psnr_mean = quality.psnr(output, truth), quality.psnr(mean, truth)
        best = jnp.where(psnr_mean > best_psnr, mean, best)
        best_psnr = jnp.maximum(psnr_mean, best_psnr)
    due = jnp.asarray(recipe.snapshots, jnp.int32) == iteration
    new = FitState(
        iteration=iteration + 1,
        stopped=decision.stop,
        variables=optax.apply_updates(state.variables, step),
        optimizer=optimizer,
        output=output,
        mean=mean,
        rule=rule,
        kept=jnp.where(decision.keep, mean, state.kept),
        kept_at=jnp.where(decision.keep, iteration, state.kept_at),
        best=best,
        best_psnr=best_psnr,
        snapshots=jnp.where(due[:, None, None, None], mean, state.snapshots),
    )
    curves = Curves(loss, psnr, psnr_mean, decision.criterion)
    return new, jax.tree.map(lambda value: value.astype(jnp.float32), curves)


def _advance(state, key, z, problem, truth, *, recipe, length):
    """Runs up to `length` iterations; those past the end or the stop change nothing."""

    def step(state, _):
        done = state.stopped | (state.iteration >= recipe.iterations)
        nothing = Curves(*(jnp.full((), jnp.nan, jnp.float32),) * 4)
        return lax.cond(
            done,
            lambda state: (state, nothing),
            functools.partial(_update, recipe, key, z, problem, truth),
            state,
        )

    return lax.scan(step, state, length=length)


@functools.cache
def _chunk_runner(mesh: Mesh | None = None) -> Any:
    """`_advance` as a program; with a mesh, of fits stacked along a first axis."""

    def run(state, key, z, problem, truth, *, recipe, length):
        advance = functools.partial(_advance, recipe=recipe, length=length)
        if mesh:
            spec = PartitionSpec(mesh.axis_names[0])
            advance = jax.shard_map(
                jax.vmap(advance), mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
            )
        return advance(state, key, z, problem, truth)

    return jax.jit(
        run,
        static_argnames=("recipe", "length"),
        donate_argnames="state",
        compiler_options=compiler_options(),
    )


def forget_programs() -> None:
    """Drops the compiled steps of all networks, for runs through so many that they fill memory."""
    _chunk_runner().clear_cache()


@functools.partial(jax.jit, static_argnames="recipe")
def _start(variables, *, recipe, shape_of):
    blank = jnp.zeros_like(shape_of)
    state = FitState(
        iteration=jnp.array(0, jnp.int32),
        stopped=jnp.array(False),
        variables=jax.tree.map(jnp.copy, variables),
        optimizer=recipe.optimizer.init(variables),
        output=blank,
        mean=blank,
        rule=recipe.stopping.init(shape_of.shape),
        kept=blank,
        kept_at=jnp.array(0, jnp.int32),
        best=blank,
        best_psnr=jnp.array(-jnp.inf),
        snapshots=jnp.zeros((len(recipe.snapshots), *shape_of.shape)),
    )
    # A weakly typed start would compile the first chunk for itself.
    return jax.tree.map(lambda leaf: lax.convert_element_type(leaf, leaf.dtype), state)


def fit(
    key: jax.Array,
    net: Any,
    problem: Problem,
    *,
    iterations: int,
    variables: Any = None,
    z: jax.Array | None = None,
    learning_rate: float = 0.01,
    reg_noise_std: float = REG_NOISE_STD,
    mean_decay: float = 0.99,
    stopping: StoppingRule = FIXED,
    truth: Any = None,
    snapshots: Sequence[int] = (),
    chunk: int = 50,
    progress: Callable[[Progress], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Fit:
    """Fits a network to an observation with Adam and keeps an exponential mean.

    The same key gives the same fit, whatever the chunk and wherever it was
    interrupted.

    Args:
      key: Random key for the initialisation, z and the regularising noise.
      net: A module of `build_network`, or any Flax module from (1, H', W', I)
        to (1, H', W', C) with an `in_channels` attribute.
      problem: What is known of the image.
      iterations: The most iterations to run.
      variables: Initial parameters; drawn from the key by default.
      z: The network's input, (1, H', W', I) with H', W' the padded sides;
        0.1 U(0, 1) by default.
      learning_rate: Adam's.
      reg_noise_std: Standard deviation of the normal noise that is added to z
        afresh at every iteration; published: 1/30.
      mean_decay: Gamma of the exponential mean (equation 4).
      stopping: When to stop and which iteration to restore with.
      truth: The clean image (H, W, C), for the PSNR curves only.
      snapshots: Iterations whose mean to return.
      chunk: Iterations between reports; nothing else depends on it.
      progress: Called between chunks.
      checkpoint: Where to keep the state between chunks, and to resume from.

    Raises:
      ValueError: For settings or shapes that cannot be.
      FloatingPointError: If the loss stops being finite, naming the network
        and the iteration.
    """
    recipe = _Recipe(
        net, iterations, learning_rate, reg_noise_std, mean_decay, stopping, tuple(snapshots)
    )
    state, noise_key, z, truth = _prepare(key, recipe, problem, chunk, truth, variables, z)
    curves = Curves(*(np.zeros(0, np.float32),) * 4)
    if checkpoint:
        state, curves = checkpoint.restore((state, curves))
    while int(state.iteration) < iterations and not bool(state.stopped):
        before = int(state.iteration)
        state, latest = _chunk_runner()(
            state, noise_key, z, problem, truth, recipe=recipe, length=min(chunk, iterations)
        )
        done = int(state.iteration) - before
        latest = Curves(*(np.asarray(values)[:done] for values in latest))
        _check_finite(net, before, latest.loss)
        curves = Curves(*map(np.append, curves, latest))
        if progress:
            last = (float(latest.loss[-1]), float(latest.psnr_mean[-1]))
            progress(Progress(before + done, iterations, *last))
        if checkpoint:
            checkpoint.save((state, curves))
    return _finished(recipe, state, curves, truth is not None)


def _prepare(key, recipe, problem, chunk, truth=None, variables=None, z=None):
    """Checks what is given and draws the rest: the state, the noise's key, z and the truth."""
    if recipe.iterations < 1 or chunk < 1:
        raise ValueError(f"iterations {recipe.iterations} and chunk {chunk} must be at least 1")
    if recipe.learning_rate <= 0 or recipe.reg_noise_std < 0 or not 0 <= recipe.mean_decay < 1:
        raise ValueError(
            f"learning_rate {recipe.learning_rate} must be positive, reg_noise_std "
            f"{recipe.reg_noise_std} not negative and mean_decay {recipe.mean_decay} in [0, 1)"
        )
    if truth is not None:
        truth = jnp.asarray(truth, jnp.float32)
        if truth.shape != problem.shape:
            raise ValueError(f"a truth of shape {truth.shape} for an image of {problem.shape}")
    init_key, z_key, noise_key = jax.random.split(key, 3)
    z = draw_noise_map(z_key, recipe.net, problem.shape) if z is None else jnp.asarray(z)
    if variables is None:
        variables = recipe.net.lazy_init(init_key, jax.ShapeDtypeStruct(z.shape, z.dtype))
    state = _start(variables, recipe=recipe, shape_of=jnp.zeros(problem.shape))
    return state, noise_key, z, truth


def _check_finite(net: Any, before: int, loss: np.ndarray) -> None:
    if not np.isfinite(loss).all():
        first = before + int(np.argmin(np.isfinite(loss)))
        raise FloatingPointError(f"the loss of {describe(net)} is not finite at iteration {first}")


def _finished(recipe: _Recipe, state: FitState, curves: Curves, evaluated: bool) -> Fit:
    return Fit(
        loss=curves.loss,
        psnr=curves.psnr if evaluated else None,
        psnr_mean=curves.psnr_mean if evaluated else None,
        criterion=curves.criterion,
        output=np.asarray(state.output),
        mean=np.asarray(state.mean),
        restored=np.asarray(state.kept),
        restored_at=int(state.kept_at),
        best=np.asarray(state.best) if evaluated else None,
        snapshots={
            iteration: image
            for iteration, image in zip(recipe.snapshots, np.asarray(state.snapshots), strict=True)
            if iteration < len(curves.loss)
        },
        variables=state.variables,
    )


def fit_many(
    keys: Sequence[jax.Array] | jax.Array,
    net: Any,
    problems: Sequence[Problem],
    *,
    iterations: int,
    truths: Sequence[Any] | None = None,
    learning_rate: float = 0.01,
    reg_noise_std: float = REG_NOISE_STD,
    mean_decay: float = 0.99,
    stopping: StoppingRule = FIXED,
    snapshots: Sequence[int] = (),
    chunk: int = 50,
    together: bool | None = None,
) -> list[Fit]:
    """Fits one network to many observations, or with many seeds, by one compiled program.

    Args:
      keys: A random key for each fit, F of them.
      net: As for `fit`.
      problems: F problems of one task and size.
      iterations: As for `fit`.
      truths: F clean images, for the PSNR curves only.
      learning_rate: As for `fit`.
      reg_noise_std: As for `fit`.
      mean_decay: As for `fit`.
      stopping: As for `fit`; each fit stops on its own.
      snapshots: As for `fit`.
      chunk: Iterations between looks at whether all fits have ended.
      together: Run all fits as one batch, divided among all devices; by
        default where there is an accelerator or more than one device.
        Otherwise they run one after the other.

    Returns:
      What `fit` would for each, up to rounding.

    Raises:
      ValueError: As `fit` does, and if the problems differ in size or kind.
      FloatingPointError: As `fit` does.
    """
    truths = [None] * len(problems) if truths is None else truths
    if not len(keys) == len(problems) == len(truths) or not problems:
        raise ValueError(
            f"{len(keys)} keys, {len(problems)} problems and {len(truths)} truths; "
            "there must be one of each for every fit, and a fit at least"
        )
    recipe = _Recipe(
        net, iterations, learning_rate, reg_noise_std, mean_decay, stopping, tuple(snapshots)
    )
    if together is None:
        together = jax.default_backend() != "cpu" or jax.device_count() > 1
    if not together:
        options = {name: value for name, value in vars(recipe).items() if name != "net"}
        return [
            fit(key, net, problem, truth=truth, chunk=chunk, **options)
            for key, problem, truth in zip(keys, problems, truths, strict=True)
        ]
    parts = [
        (*_prepare(key, recipe, problem, chunk, truth), problem)
        for key, problem, truth in zip(keys, problems, truths, strict=True)
    ]
    # Every device takes the same number; what fills up the last is thrown away.
    parts += parts[-1:] * (-len(parts) % jax.device_count())
    try:
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    except ValueError:
        shapes = ", ".join(sorted({str(problem.observed.shape) for problem in problems}))
        raise ValueError(f"the problems differ in size or kind; their sizes: {shapes}") from None
    state, noise_keys, z, truth, problem = stacked
    run = _chunk_runner(Mesh(np.array(jax.devices()), ("fits",)))
    latest: list[Curves] = []
    while not bool(((state.iteration >= iterations) | state.stopped).all()):
        state, curves = run(
            state, noise_keys, z, problem, truth, recipe=recipe, length=min(chunk, iterations)
        )
        latest.append(jax.device_get(curves))
    fits = []
    for index in range(len(problems)):
        one = jax.tree.map(lambda leaf, index=index: leaf[index], state)
        columns = [np.concatenate([part[field][index] for part in latest]) for field in range(4)]
        done = Curves(*(column[: int(one.iteration)] for column in columns))
        _check_finite(net, 0, done.loss)
        fits.append(_finished(recipe, one, done, truth is not None))
    return fits


def compile_ahead(
    net: Any,
    problem: Problem,
    *,
    iterations: int,
    learning_rate: float = 0.01,
    reg_noise_std: float = REG_NOISE_STD,
    mean_decay: float = 0.99,
    stopping: StoppingRule = FIXED,
    chunk: int = 50,
) -> None:
    """Compiles what `fit` with these arguments runs, without an iteration: for another thread."""
    recipe = _Recipe(net, iterations, learning_rate, reg_noise_std, mean_decay, stopping, ())
    state, noise_key, z, _ = _prepare(jax.random.key(0), recipe, problem, chunk)
    state = state._replace(stopped=jnp.array(True))
    _chunk_runner()(
        state, noise_key, z, problem, None, recipe=recipe, length=min(chunk, iterations)
    )


def lower_steps(net: Any, problem: Problem) -> jax.stages.Lowered:
    """The program of a fit's steps for this backend, to be compiled and looked at."""
    recipe = _Recipe(net, 1, 0.01, REG_NOISE_STD, 0.99, FIXED, ())

    def arguments():
        state, noise_key, z, _ = _prepare(jax.random.key(0), recipe, problem, 1)
        return state, noise_key, z

    shapes = jax.eval_shape(arguments)
    return _chunk_runner().lower(*shapes, problem, None, recipe=recipe, length=1)


def planned_memory(net: Any, problem: Problem) -> int:
    """Bytes that XLA plans for the steps of a fit on this backend: state, inputs, temporaries."""
    plan: Any = lower_steps(net, problem).compile().memory_analysis()
    kept = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    return kept + plan.temp_size_in_bytes


def describe(net: Any) -> str:
    """A network in words for messages: its genotype where it has one."""
    genotype = getattr(net, "genotype", None)
    return f"genotype {genotype}" if genotype else type(net).__name__
