r"""Print the memory and operations that a TPU's compiler plans, without a TPU.

    python -m experiments.benchmarks.accelerator --size=512 --topologies=v5e:2x2

Compiles one step of a fit, or the scoring of several genotypes of a cell (--scoring=8).
Operations and bytes are the compiler's counts; it does not estimate times. Memory is the sum
of arguments, results and temporaries. Compilation takes a minute or more per program. Needs
libtpu (the extra `tpu-check`).
"""

import itertools
import os
import time
from typing import Any

# Without these, libtpu looks for a TPU on this machine. The process computes on the CPU.
os.environ.update(
    JAX_PLATFORMS="cpu",
    TPU_SKIP_MDS_QUERY="1",
    ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    TPU_WORKER_HOSTNAMES="localhost",
)

import jax
from absl import flags
from jax.experimental import topologies

import isnas_jax as isnas
from isnas_jax.fitting import lower_steps, program_memory
from isnas_jax.networks import cell_network
from isnas_jax.searching import lower_scores

from ..main import FLAGS, run_script
from . import machine


def compile_for(device: Any, genotype: str, numerics: isnas.Numerics) -> str:
    """Compile a fit's step or the scoring for a device; describe memory, operations and time."""
    net = isnas.build_network(
        isnas.Genotype.parse(genotype),
        out_channels=3,
        channels=FLAGS.channels,
        remat=FLAGS.remat,
        numerics=numerics,
    )
    problem = isnas.denoising(jax.numpy.zeros((FLAGS.size, FLAGS.size, 3)))
    start = time.perf_counter()
    if FLAGS.scoring:
        metrics = {"psd_db_strip_mse": isnas.psd_db_strip_mse}
        lowered = lower_scores(net, problem, metrics, device, genotypes=FLAGS.scoring)
    else:
        net = cell_network(net)[0] if FLAGS.joint else net
        lowered = lower_steps(net, problem, isnas.FitConfig(1, chunk=1), target=device)
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    memory: Any = compiled.memory_analysis()
    costs: Any = compiled.cost_analysis()
    return (
        f"{program_memory(compiled) / 1e9:.1f} GB of memory "
        f"({memory.temp_size_in_bytes / 1e9:.1f} GB temporaries), "
        f"{costs['bytes accessed'] / 1e9:.1f} GB accessed, "
        f"{costs['flops'] / 1e12:.2f} T operations, compiled in {seconds:.0f} s"
    )


def define_flags() -> None:
    """Define the flags of this script."""
    flags.DEFINE_list("topologies", ["v5e:2x2", "v6e:2x2"], "TPUs to compile for.")
    machine.define_size(512, 128)
    flags.DEFINE_list("genotypes", list(machine.GENOTYPES), "Genotypes to compile.")
    flags.DEFINE_list("implementations", ["conv"], "Of feature maps: conv, matmul.")
    flags.DEFINE_list("dtypes", ["float32", "bfloat16"], "Of feature maps: float32, bfloat16.")
    flags.DEFINE_boolean("joint", False, "Compile the network that serves all genotypes of a cell.")
    flags.DEFINE_integer(
        "scoring", 0, "Compile the scoring of this many genotypes of a cell; 0: a fit."
    )
    flags.DEFINE_boolean("remat", False, "Recompute feature maps to save memory.")


def main() -> None:
    """Compile every genotype with every implementation and dtype for every topology."""
    for topology in FLAGS.topologies:
        device = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]
        variants = itertools.product(FLAGS.genotypes, FLAGS.implementations, FLAGS.dtypes)
        for genotype, implementation, dtype in variants:
            planned = compile_for(device, genotype, isnas.Numerics(implementation, dtype=dtype))
            print(f"{topology} {genotype} {implementation} {dtype}: {planned}", flush=True)


if __name__ == "__main__":
    run_script(main, define_flags)
