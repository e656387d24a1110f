r"""Time the steps of a fit against this machine's matrix products.

python -m experiments.benchmarks.fit --size=64
"""

import itertools
import math
import pathlib
import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

import isnas_jax as isnas
from experiments import cli
from experiments.benchmarks import machine
from isnas_jax.fitting import planned_memory
from isnas_jax.io import records

FLAGS = flags.FLAGS

flags.DEFINE_integer("size", 64, "Side of the image in pixels.")
flags.DEFINE_integer("channels", 128, "Width of the networks.")
flags.DEFINE_list("genotypes", list(machine.GENOTYPES), "What to fit.")
flags.DEFINE_integer("steps", 5, "Steps in a timed chunk.")
flags.DEFINE_integer("chunks", 5, "Timed chunks; their median counts.")
flags.DEFINE_boolean("remat", False, "Trade time for memory: keep fewer feature maps.")
flags.DEFINE_boolean("plan", False, "Print the memory that XLA plans, and fit nothing.")
flags.DEFINE_string("json", None, "File to write the figures to.")


def network(text: str) -> Any:
    """The network to fit."""
    genotype = isnas.Genotype.parse(text)
    return isnas.build_network(genotype, out_channels=3, channels=FLAGS.channels, remat=FLAGS.remat)


def measure(text: str, problem: isnas.Problem) -> dict[str, Any]:
    """Fits one genotype; the first chunk, which compiles, does not count."""
    net = network(text)
    compilations, before = machine.Compilations(), machine.matmul_rate()
    ends = [time.perf_counter()]
    isnas.fit(
        jax.random.key(1),
        net,
        problem,
        iterations=FLAGS.steps * (FLAGS.chunks + 1),
        chunk=FLAGS.steps,
        progress=lambda _: ends.append(time.perf_counter()),
    )
    steps = [(end - start) / FLAGS.steps for start, end in itertools.pairwise(ends[1:])]
    step, rate = statistics.median(steps), statistics.mean([before, machine.matmul_rate()])
    flops = 3 * machine.forward_flops(net.genotype, FLAGS.size, channels=FLAGS.channels)
    return {
        "genotype": text,
        "P_gflops": rate / 1e9,
        "step_ms": 1e3 * step,
        "ratio": flops / step / rate,
        "compilations": compilations.count,
        "compile_s": compilations.seconds,
        "first_chunk_s": ends[1] - ends[0],
        "peak_memory_mb": machine.peak_memory() / 1e6,
    }


def main(_: Sequence[str]) -> None:
    """The story: describe the machine, fit each genotype, print ratios and their mean."""
    image = jax.random.uniform(jax.random.key(0), (FLAGS.size, FLAGS.size, 3))
    problem = isnas.denoising(image)
    if FLAGS.plan:
        for genotype in FLAGS.genotypes:
            planned = planned_memory(network(genotype), problem)
            print(f"{genotype}: XLA plans {planned / 1e9:.2f} GB", flush=True)
        return
    record = machine.describe()
    rows = []
    for genotype in FLAGS.genotypes:
        row = measure(genotype, problem)
        rows.append(row)
        print(
            f"{row['genotype']}: {row['step_ms']:.0f} ms a step, (3F / time) / P = "
            f"{row['ratio']:.2f} (P {row['P_gflops']:.0f} GFLOP/s); {row['compilations']} "
            f"compilations in {row['compile_s']:.1f} s; peak memory {row['peak_memory_mb']:.0f} MB",
            flush=True,
        )
    mean = math.exp(statistics.fmean(math.log(row["ratio"]) for row in rows))
    print(f"geometric mean of the ratios at {FLAGS.size} px: {mean:.2f}")
    if FLAGS.json:
        settings = {"size": FLAGS.size, "channels": FLAGS.channels, "remat": FLAGS.remat}
        result = record | settings | {"geometric_mean": mean, "fits": rows}
        records.write_json(pathlib.Path(FLAGS.json), result)


if __name__ == "__main__":
    cli.run(main)
