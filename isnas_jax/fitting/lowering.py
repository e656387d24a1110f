"""The program of a fit's steps without running it: operations, memory, other devices."""

import dataclasses
import functools
from typing import Any

import jax

from isnas_jax import _programs
from isnas_jax.fitting.config import FitConfig
from isnas_jax.fitting.job import FitJob, prepare
from isnas_jax.fitting.step import Structure, advance, chunk_program
from isnas_jax.problems import Problem


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


def fit_memory(net: Any, problem: Problem) -> int:
    """Return the bytes that XLA plans for the steps of a fit on this backend."""
    return program_memory(lower_steps(net, problem).compile())


def program_memory(compiled: jax.stages.Compiled) -> int:
    """Return the bytes that a compiled program takes: arguments, results and temporaries."""
    plan: Any = compiled.memory_analysis()
    kept = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    return kept + plan.temp_size_in_bytes
