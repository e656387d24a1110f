r"""Time the steps of a fit against this machine's matrix products, and PyTorch's if wanted.

    python -m experiments.benchmarks.fit --size=64
    python -m experiments.benchmarks.fit --size=512 --steps=20 --pytorch \
        --forms=conv:highest:float32,convolutions:default:bfloat16

PyTorch has to be there for that; no extra installs it.
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
from isnas_jax import fitting
from isnas_jax.io import records

from .. import cli
from . import machine

FLAGS = flags.FLAGS

flags.DEFINE_integer("size", 64, "Side of the image in pixels.")
flags.DEFINE_integer("channels", 128, "Width of the networks.")
flags.DEFINE_list("genotypes", list(machine.GENOTYPES), "What to fit.")
flags.DEFINE_integer("steps", 5, "Steps in a timed chunk.")
flags.DEFINE_integer("chunks", 5, "Timed chunks; their median counts.")
flags.DEFINE_integer("batch", 1, "Fits at a time, of as many seeds; times are a fit's share.")
flags.DEFINE_boolean("remat", False, "Trade time for memory: keep fewer feature maps.")
flags.DEFINE_list(
    "forms",
    [""],
    "How to compute feature maps, IMPLEMENTATION:PRECISION:DTYPE; by default as a fit does.",
)
flags.DEFINE_boolean("pytorch", False, "Also time the same network and step in PyTorch.")
flags.DEFINE_boolean("plan", False, "Print the memory that XLA plans, and fit nothing.")
flags.DEFINE_string("json", None, "File to write the figures to.")


def network(text: str, form: str = "") -> Any:
    """The network to fit."""
    genotype = isnas.Genotype.parse(text)
    numerics = isnas.Numerics(*form.split(":")) if form else isnas.Numerics()
    return isnas.build_network(
        genotype,
        out_channels=3,
        channels=FLAGS.channels,
        remat=FLAGS.remat,
        numerics=numerics,
    )


def pytorch_step(net: Any, problem: isnas.Problem) -> tuple[float, float]:
    """Seconds of PyTorch's step, and how far its first output is from ours at most."""
    from . import pytorch

    z = fitting.draw_noise_map(jax.random.key(1), net, problem.shape)
    ours, variables = jax.jit(net.init_with_output)(jax.random.key(2), z)
    timed = pytorch.steps(net, variables["params"], z, problem.observed, FLAGS.steps)
    first, *chunks = itertools.islice(timed, FLAGS.chunks + 1)
    step = statistics.median(seconds for seconds, _ in chunks) / FLAGS.steps
    return step, float(abs(first[1] - ours[0]).max())


def measure(text: str, form: str, problem: isnas.Problem) -> dict[str, Any]:
    """Fits one genotype; the first chunk, which compiles, does not count."""
    net = network(text, form)
    compilations, before = machine.Compilations(), machine.matmul_rate()
    ends, batch = [time.perf_counter()], set()

    def note(position: int, _: fitting.Progress) -> None:
        if position == 0:
            ends.append(time.perf_counter())
        if len(ends) == 2:
            batch.add(position)

    asked = [isnas.FitJob(jax.random.key(1 + i), net, problem) for i in range(FLAGS.batch)]
    config = isnas.FitConfig(FLAGS.steps * (FLAGS.chunks + 1), chunk=FLAGS.steps)
    isnas.fit_many(asked, config, together=FLAGS.batch > 1, progress=note)
    if len(batch) < FLAGS.batch:
        raise ValueError(f"memory suffices for a batch of {len(batch)}, not {FLAGS.batch}")
    taken = FLAGS.steps * FLAGS.batch
    steps = [(end - start) / taken for start, end in itertools.pairwise(ends[1:])]
    step, rate = statistics.median(steps), statistics.mean([before, machine.matmul_rate()])
    flops = 3 * machine.forward_flops(net.genotype, FLAGS.size, channels=FLAGS.channels)
    row = {
        "genotype": text,
        "form": form,
        "P_gflops": rate / 1e9,
        "step_ms": 1e3 * step,
        "ratio": flops / step / rate,
        "compilations": compilations.count,
        "compile_s": compilations.seconds,
        "first_chunk_s": ends[1] - ends[0],
        "peak_memory_mb": machine.peak_memory() / 1e6,
    }
    if FLAGS.pytorch:
        theirs, apart = pytorch_step(net, problem)
        row |= {"pytorch_step_ms": 1e3 * theirs, "outputs_apart": apart}
    return row


def main(_: Sequence[str]) -> None:
    """The story: describe the machine, fit each genotype, print ratios and their mean."""
    image = jax.random.uniform(jax.random.key(0), (FLAGS.size, FLAGS.size, 3))
    problem = isnas.denoising(image)
    if FLAGS.plan:
        for genotype in FLAGS.genotypes:
            planned = fitting.fit_memory(network(genotype), problem)
            print(f"{genotype}: XLA plans {planned / 1e9:.2f} GB", flush=True)
        return
    if FLAGS.pytorch and FLAGS.batch > 1:
        raise ValueError("pytorch takes single fits, and no batch")
    record = machine.describe()
    rows = []
    for genotype, form in itertools.product(FLAGS.genotypes, FLAGS.forms):
        row = measure(genotype, form, problem)
        rows.append(row)
        print(
            f"{row['genotype']} {form}: {row['step_ms']:.4g} ms a step, (3F / time) / P = "
            f"{row['ratio']:.2f} (P {row['P_gflops']:.0f} GFLOP/s); {row['compilations']} "
            f"compilations in {row['compile_s']:.1f} s; peak memory {row['peak_memory_mb']:.0f} MB",
            flush=True,
        )
        if FLAGS.pytorch:
            print(
                f"  PyTorch: {row['pytorch_step_ms']:.4g} ms, "
                f"{row['pytorch_step_ms'] / row['step_ms']:.2f} times ours; first outputs "
                f"{row['outputs_apart']:.1e} apart at most",
                flush=True,
            )
    mean = math.exp(statistics.fmean(math.log(row["ratio"]) for row in rows))
    print(f"geometric mean of the ratios at {FLAGS.size} px: {mean:.2f}")
    if FLAGS.json:
        names = "size", "channels", "batch", "remat"
        config = {name: FLAGS[name].value for name in names}
        result = record | config | {"geometric_mean": mean, "fits": rows}
        records.write_json(pathlib.Path(FLAGS.json), result)


if __name__ == "__main__":
    cli.run(main)
