"""What programs are told when they are compiled for the default backend."""

import functools

import jax


@functools.cache
def compiler_options() -> dict[str, str] | None:
    """Options of XLA, for `jax.jit`, that measure better than its own (docs/performance.md)."""
    if jax.default_backend() != "cpu" or jax.__version_info__ < (0, 10):
        return None
    options = {
        # Without this pass, barriers last: what `remat` computes again is not found to be
        # the same, and the parts of a long sum stay apart.
        "xla_disable_hlo_passes": "cse_barrier_expander",
        # Compiles sooner; products are library calls and sums run no slower.
        "xla_backend_optimization_level": "1",
    }
    if jax.__version_info__[:2] == (0, 10):
        # There, YNNPACK runs batches of small products on one core.
        options["xla_cpu_experimental_ynn_fusion_type"] = "LIBRARY_FUSION_TYPE_REDUCE"
    return options
