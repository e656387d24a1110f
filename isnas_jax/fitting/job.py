"""A fit before it runs: its inputs, checked, its first state, and its program."""

import contextlib
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from isnas_jax import _keys, _programs
from isnas_jax.fitting.config import FitConfig
from isnas_jax.fitting.result import Start
from isnas_jax.fitting.step import (
    Curves,
    FitInputs,
    FitState,
    Numbers,
    Structure,
    advance,
    chunk_program,
    copy,
    draw_noise_map,
    initial_state,
)
from isnas_jax.fitting.stopping import Decision, Step, StoppingRule, needs_validation
from isnas_jax.io import Checkpoint
from isnas_jax.networks import check_network, describe
from isnas_jax.problems import Problem, Split, check_problem, pixels


class FitJob(NamedTuple):
    """One fit of `fit_many`.

    Attributes:
      key: Random key of initialization, noise map and input noise.
      net: A module of `build_network`, or any Flax module from (1, H', W', I) to (1, H', W', C)
        with an attribute `in_channels`.
      problem: The problem to fit.
      clean: The clean image (H, W, C), for the PSNR curves only.
      validation: A validation problem of the same image; by default the config's split creates it.
      z: The noise map, (1, H', W', I) with padded sides; 0.1 U(0, 1) by default.
      start: Initial parameters and optimizer state; drawn from the key by default.
      checkpoint: Stores the state between chunks, and resumes from it. A checkpoint of a single
        fit serves one in a batch too, unless the batch holds different genotypes.
    """

    key: jax.Array
    net: Any
    problem: Problem
    clean: Any = None
    validation: Problem | None = None
    z: Any = None
    start: Start = Start()
    checkpoint: Checkpoint | None = None


def prepare(job: FitJob, config: FitConfig) -> tuple[Structure, FitState, FitInputs]:
    """Check a job and draw whatever it leaves open; ValueError for what does not fit together."""
    key, net, problem, clean, validation, z, start, _ = job
    _keys.check(key)
    check_network(net)
    check_problem(problem)
    _programs.check_concrete("the inputs of a fit", key, problem, validation, start, z)
    if clean is not None:
        clean = pixels.check_clean_image(clean, problem.shape)
    problem, validation, start, z = _programs.in_32_bits((problem, validation, start, z))
    with jax.enable_x64(False):
        if validation is None and config.split:
            problem, validation = split_by_key(key, problem, config.split)
        _check_agreement(net, problem, validation, config)
        init_key, z_key, noise_key = jax.random.split(key, 3)
        z = draw_noise_map(z_key, net, problem.shape) if z is None else jnp.asarray(z, jnp.float32)
        variables = start.variables
        if variables is None:
            variables = net.lazy_init(init_key, jax.ShapeDtypeStruct(z.shape, z.dtype))
        structure, numbers = Structure.create(net, config), Numbers.create(config)
        state = initial_state(structure, variables, problem, config, numbers)
        _check_rule(config.stopping, state.rule, problem)
        if start.optimizer_state is not None:
            state = state._replace(optimizer=copy(start.optimizer_state))
    return structure, state, FitInputs(noise_key, z, problem, validation, clean, numbers)


def split_by_key(key: jax.Array, problem: Problem, split: Split) -> tuple[Problem, Problem]:
    """Return the training and the validation problem of a fit with this key."""
    # 3 is not among the three parts that `prepare` splits the key into.
    return split(jax.random.fold_in(key, 3), problem)


def _check_rule(rule: StoppingRule, state: Any, problem: Problem) -> None:
    """Raise ValueError unless `update` keeps the form of the state that `init` returned."""
    name = f"{type(rule).__name__}.update"
    image: Any = jax.ShapeDtypeStruct(problem.shape, jnp.float32)
    scalars: Any = [jax.ShapeDtypeStruct((), dtype) for dtype in (jnp.int32, jnp.float32, bool)]
    iteration, number, boolean = scalars
    step = Step(iteration, image, image, number, number, boolean, problem)
    result = jax.eval_shape(rule.update, state, step)
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Decision)):
        raise ValueError(f"{name} must return (state, Decision)")

    def fits(new: Any, old: Any) -> bool:
        same = new.dtype == old.dtype or np.can_cast(new.dtype, old.dtype, "same_kind")
        return same and new.shape == old.shape

    (new, decision), old = result, jax.eval_shape(lambda: state)
    structure: Any = jax.tree.structure
    if structure(new) != structure(old) or not all(jax.tree.leaves(jax.tree.map(fits, new, old))):
        raise ValueError(
            f"{name} returns the state {new} where init returned {old}; structure, shapes and "
            "types must stay, so that a sum of floats starts with 0.0"
        )
    if any(value.shape for value in jax.tree.leaves(decision)):
        raise ValueError(f"{name} must return a Decision of scalars, not {decision}")


def _check_agreement(
    net: Any, problem: Problem, validation: Problem | None, config: FitConfig
) -> None:
    if validation is None and needs_validation(config.stopping):
        name = type(config.stopping).__name__
        raise ValueError(f"{name} needs a validation problem: give the config a split")
    if validation is not None and validation.shape != problem.shape:
        raise ValueError(
            f"a validation problem of shape {validation.shape} for an image of {problem.shape}"
        )
    if (channels := getattr(net, "out_channels", problem.shape[2])) != problem.shape[2]:
        raise ValueError(
            f"{describe(net)} generates {channels} channels, but the image has {problem.shape[2]}"
        )


def resume(
    stack: contextlib.ExitStack,
    checkpoint: Checkpoint | None,
    net: Any,
    config: FitConfig,
    state: FitState,
    inputs: FitInputs,
) -> tuple[FitState, Curves]:
    """Open a fit's checkpoint until the stack closes; return its state and curves so far."""
    curves = Curves(*(np.zeros(0, np.float32),) * len(Curves._fields))
    if checkpoint is None:
        return state, curves
    depends_on = {"network": net, "config": config, **inputs._asdict()}
    depends_on |= {"variables": state.variables, "optimizer": state.optimizer}
    stack.enter_context(checkpoint.open(depends_on))
    return checkpoint.restore((state, curves))


def lower_steps(
    net: Any,
    problem: Problem,
    config: FitConfig = FitConfig(1),
    *,
    clean: Any = None,
    target: str | jax.Device | None = None,
) -> jax.stages.Lowered:
    """Lower the program that runs one chunk of a fit; see `fit` for the arguments.

    The target is a platform ("cuda", "tpu"), or a device of a described topology, for which the
    program can be compiled without having one; by default this backend. For another platform,
    set the network's `Numerics.implementation`.
    """
    # A split cannot be traced; its parts have the shapes of the problem.
    validation = problem if config.split else None
    config = dataclasses.replace(config, split=None)
    job = FitJob(jax.random.key(0), net, problem, clean, validation)
    state, inputs = jax.eval_shape(lambda: prepare(job, config)[1:])
    structure = Structure.create(net, config)
    with jax.enable_x64(False):
        if target is None:
            with chunk_program(structure, config.chunk, state, inputs) as program:
                return program.lower(state, inputs)
        chunk = jax.jit(functools.partial(advance, structure, config.chunk), donate_argnums=0)
        return _programs.lower(chunk, (state, inputs), target)


def program_memory(compiled: jax.stages.Compiled) -> int:
    """Return the bytes that a compiled program takes: arguments, results and temporaries."""
    plan: Any = compiled.memory_analysis()
    kept = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    return kept + plan.temp_size_in_bytes
