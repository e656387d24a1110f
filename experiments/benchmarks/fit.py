r"""Time the steps of a fit, relative to this machine's matrix products and to PyTorch.

    python -m experiments.benchmarks.fit --size=64
    python -m experiments.benchmarks.fit --size=512 --steps=20 --pytorch \
        --numerics=conv:highest:float32,conv:default:bfloat16

`--pytorch` needs PyTorch, which no extra installs.
"""

import itertools
import statistics
import time
from typing import Any

import jax
from absl import flags

import isnas_jax as isnas
from isnas_jax import fitting

from ..main import FLAGS, run_script
from . import machine


def build_network(genotype: str, numerics: str = "") -> Any:
    """Build a genotype's network with numerics in the format of the flag."""
    return isnas.build_network(
        isnas.Genotype.parse(genotype),
        out_channels=3,
        channels=FLAGS.channels,
        remat=FLAGS.remat,
        numerics=isnas.Numerics(*numerics.split(":")) if numerics else isnas.Numerics(),
    )


def time_pytorch_step(net: Any, problem: isnas.Problem) -> tuple[float, float]:
    """Return seconds per step in PyTorch and the largest difference of the first output."""
    from . import pytorch

    z = fitting.draw_noise_map(jax.random.key(1), net, problem.shape)
    output, variables = jax.jit(net.init_with_output)(jax.random.key(2), z)
    timed_chunks = pytorch.time_steps(net, variables["params"], z, problem.observed, FLAGS.steps)
    (_, first_output), *chunks = itertools.islice(timed_chunks, FLAGS.chunks + 1)
    step = statistics.median(seconds for seconds, _ in chunks) / FLAGS.steps
    return step, float(abs(first_output - output[0]).max())


def measure(genotype: str, numerics: str, problem: isnas.Problem) -> float:
    """Fit one genotype, print its times and return (3F / time) / P.

    The first chunk compiles and is not timed.
    """
    net = build_network(genotype, numerics)
    compilations, rate_before = machine.CompilationCounter(), machine.matmul_rate()
    chunk_ends = [time.perf_counter()]
    isnas.fit(
        jax.random.key(1),
        net,
        problem,
        isnas.FitConfig(FLAGS.steps * (FLAGS.chunks + 1), chunk=FLAGS.steps),
        progress=lambda event: chunk_ends.append(time.perf_counter()),
    )
    steps = [(end - start) / FLAGS.steps for start, end in itertools.pairwise(chunk_ends[1:])]
    step, rate = statistics.median(steps), statistics.mean([rate_before, machine.matmul_rate()])
    flops = 3 * machine.forward_flops(net.genotype, FLAGS.size, channels=FLAGS.channels)
    ratio = flops / step / rate
    print(
        f"{genotype} {numerics}: {1e3 * step:.4g} ms per step, (3F / time) / P = {ratio:.2f} "
        f"(P {rate / 1e9:.0f} GFLOP/s); {compilations.count} compilations in "
        f"{compilations.seconds:.1f} s; peak memory {machine.peak_memory() / 1e6:.0f} MB",
        flush=True,
    )
    if FLAGS.pytorch:
        pytorch_step, difference = time_pytorch_step(net, problem)
        print(
            f"  PyTorch: {1e3 * pytorch_step:.4g} ms, {pytorch_step / step:.2f} times isnas_jax; "
            f"largest difference of the first output {difference:.1e}",
            flush=True,
        )
    return ratio


def define_flags() -> None:
    """Define the flags of this script."""
    machine.define_size(64, 128)
    flags.DEFINE_list("genotypes", list(machine.GENOTYPES), "Genotypes to fit.")
    flags.DEFINE_integer("steps", 5, "Steps per timed chunk.")
    flags.DEFINE_integer("chunks", 5, "Number of timed chunks; the result is their median.")
    flags.DEFINE_boolean("remat", False, "Recompute feature maps to save memory.")
    flags.DEFINE_list(
        "numerics",
        [""],
        "Numerics of the feature maps as IMPLEMENTATION:PRECISION:DTYPE; default: a fit's.",
    )
    flags.DEFINE_boolean("pytorch", False, "Also time the same network and step in PyTorch.")
    flags.DEFINE_boolean("plan", False, "Only print the memory that XLA plans.")


def main() -> None:
    """Fit each genotype with each numerics, print ratios and their geometric mean."""
    image = jax.random.uniform(jax.random.key(0), (FLAGS.size, FLAGS.size, 3))
    problem = isnas.denoising(image)
    if FLAGS.plan:
        for genotype in FLAGS.genotypes:
            steps = fitting.lower_steps(build_network(genotype), problem).compile()
            memory = fitting.program_memory(steps)
            print(f"{genotype}: XLA plans {memory / 1e9:.2f} GB", flush=True)
        return
    ratios = [
        measure(genotype, numerics, problem)
        for genotype, numerics in itertools.product(FLAGS.genotypes, FLAGS.numerics)
    ]
    mean = statistics.geometric_mean(ratios)
    print(f"geometric mean of the ratios at {FLAGS.size} px: {mean:.2f}")


if __name__ == "__main__":
    run_script(main, define_flags)
