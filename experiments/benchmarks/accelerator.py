r"""What a TPU's compiler plans for the steps of a fit or for scores, without a TPU.

    python -m experiments.benchmarks.accelerator --size=512 --topologies=v5e:2x2

Needs libtpu (the extra `tpu-check`). Compiling takes a minute or more a program.
Operations and bytes are the compiler's own counts of one step, or of scoring some
genotypes of a cell at a time (--scoring=8); times are not
estimated. The memory is that of arguments, results and temporaries together.
"""

import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any

# The compiler looks for the machine it is not on; this process computes on the CPU.
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
from isnas_jax.io import records
from isnas_jax.networks import cell_network
from isnas_jax.searching import lower_scores

from .. import cli
from . import machine

FLAGS = flags.FLAGS

flags.DEFINE_list("topologies", ["v5e:2x2", "v6e:2x2"], "TPUs to compile for.")
flags.DEFINE_integer("size", 512, "Side of the image in pixels.")
flags.DEFINE_integer("channels", 128, "Width of the networks.")
flags.DEFINE_list("genotypes", list(machine.GENOTYPES), "Whose steps to compile.")
flags.DEFINE_list("implementations", ["conv"], "Also: products.")
flags.DEFINE_list("dtypes", ["float32", "bfloat16"], "Of feature maps.")
flags.DEFINE_boolean("joint", False, "Instead, the network that serves all genotypes of a cell.")
flags.DEFINE_integer("scoring", 0, "Instead, scores of so many genotypes of the cell at a time.")
flags.DEFINE_boolean("remat", False, "Trade time for memory: keep fewer feature maps.")
flags.DEFINE_string("json", None, "File to write the figures to.")


def planned(text: str, numerics: isnas.Numerics, device: Any) -> dict[str, float]:
    """What a device's compiler plans for a step of a genotype's fit, or for its cell's scores."""
    net = isnas.build_network(
        isnas.Genotype.parse(text),
        out_channels=3,
        channels=FLAGS.channels,
        remat=FLAGS.remat,
        numerics=numerics,
    )
    problem = isnas.denoising(jax.numpy.zeros((FLAGS.size, FLAGS.size, 3)))
    begun = time.perf_counter()
    if FLAGS.scoring:
        metrics = {"psd_db_strip_mse": isnas.METRICS["psd_db_strip_mse"]}
        lowered = lower_scores(net, problem, metrics, device, genotypes=FLAGS.scoring)
    else:
        served = cell_network(net)[0] if FLAGS.joint else net
        lowered = lower_steps(served, problem, isnas.FitConfig(1, chunk=1), target=device)
    compiled = lowered.compile()
    seconds = time.perf_counter() - begun
    memory: Any = compiled.memory_analysis()
    costs: Any = compiled.cost_analysis()
    return {
        "memory_gb": program_memory(compiled) / 1e9,
        "temporaries_gb": memory.temp_size_in_bytes / 1e9,
        "bytes_gb": costs["bytes accessed"] / 1e9,
        "operations_t": costs["flops"] / 1e12,
        "compile_s": seconds,
    }


def main(_: Sequence[str]) -> None:
    """The story: every genotype in every form for every device."""
    rows = []
    for topology in FLAGS.topologies:
        device = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]
        for text in FLAGS.genotypes:
            for implementation in FLAGS.implementations:
                for dtype in FLAGS.dtypes:
                    numerics = isnas.Numerics(implementation, dtype=dtype)
                    row = planned(text, numerics, device)
                    rows.append(
                        {"device": topology, "genotype": text}
                        | {"implementation": implementation, "dtype": dtype}
                        | row
                    )
                    print(
                        f"{topology} {text} {implementation} {dtype}: {row['memory_gb']:.1f} GB, "
                        f"{row['temporaries_gb']:.1f} of them temporaries; "
                        f"{row['bytes_gb']:.1f} GB and {row['operations_t']:.2f} T operations; "
                        f"compiled in {row['compile_s']:.0f} s",
                        flush=True,
                    )
    if FLAGS.json:
        names = "size", "channels", "joint", "scoring", "remat"
        config = {name: FLAGS[name].value for name in names}
        records.write_json(pathlib.Path(FLAGS.json), {"config": config, "programs": rows})


if __name__ == "__main__":
    cli.run(main)
