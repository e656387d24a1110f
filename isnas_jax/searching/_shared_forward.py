"""Forward passes of many genotypes that compute their common parts once.

With one key, a module draws the same weights in every genotype. So the same modules on the same
noise map give the same feature maps: the encoder, the chains of downward skips and, for genotypes
of one cell, the chains of upward skips. Programs are compiled for single blocks and, within cells,
for single operations; a few hundred serve the whole space. Feature maps are NHWC.
"""

import dataclasses
import functools
from typing import Any

import jax
from flax.core.scope import LazyRng

from isnas_jax import _programs
from isnas_jax.networks.architectures import (
    SearchedNetwork,
    UpsamplingCell,
    run_cell,
    run_searched,
)

# About two programs per cell and size. Genotypes in the order of their cells need each of them once
# per initialization.
PROGRAMS = _programs.ProgramCache(400)


@dataclasses.dataclass
class _Memory:
    """Weights by module path, and feature maps by module and input."""

    weights: dict[tuple[str, ...], Any] = dataclasses.field(default_factory=dict)
    results: dict[tuple[str, int], jax.Array] = dataclasses.field(default_factory=dict)

    def holds(self, x: jax.Array) -> bool:
        return any(x is result for result in self.results.values())


@dataclasses.dataclass
class Shared:
    """The common parts of genotypes at one initialization, for one cell at a time.

    Parts in `common` do not depend on the cell; those in `of_cell` belong to `cell`.
    """

    key: jax.Array  # of the weights
    z: jax.Array  # [1, H, W, I]
    cell: int | None = None
    common: _Memory = dataclasses.field(default_factory=_Memory)
    of_cell: _Memory = dataclasses.field(default_factory=_Memory)


def _apply(block: Any, weights: Any, x: jax.Array) -> jax.Array:
    """Apply a module by a program for it and these shapes."""

    def make():
        return jax.jit(block.apply, compiler_options=_programs.compiler_options())

    return PROGRAMS.get((block, _programs.shapes(weights, x)), make)(weights, x)


def forward(net: SearchedNetwork, shared: Shared) -> jax.Array:
    """Return the output (1, H, W, O) of a network with weights drawn from `shared.key`.

    It equals `net.init_with_output(shared.key, shared.z)[0]` up to float32 rounding. Call it for
    genotypes of one cell in sequence, so that the parts of the cell are reused.
    """
    if net.genotype.cell != shared.cell:
        shared.cell, shared.of_cell = net.genotype.cell, _Memory()

    def run_block(memory, path, kind, fields, x):
        """Run a module by one program, wherever it occurs."""
        block = kind(*fields, parent=None, numerics=net.numerics)
        if path not in memory.weights:
            shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
            memory.weights[path] = block.lazy_init(LazyRng(shared.key, path), shape)
        return _apply(block, memory.weights[path], x)

    def run_module(name, kind, *fields):
        def run(x):
            is_cell = kind is UpsamplingCell
            follows_cell = shared.of_cell.holds(x)
            memory = shared.of_cell if is_cell or follows_cell else shared.common
            key = (name, id(x))
            if key in memory.results:
                return memory.results[key]
            if is_cell:
                cell, features = fields
                result = run_cell(cell, features, x, functools.partial(run_inner, name))
            else:
                result = run_block(shared.common, (name,), kind, fields, x)
            if x is shared.z or follows_cell or shared.common.holds(x):
                memory.results[key] = result
            return result

        return run

    def run_inner(cell, name, kind, *fields):
        return functools.partial(run_block, shared.of_cell, (cell, name), kind, fields)

    return run_searched(net, shared.z, run_module)
