r"""Time the scoring of genotypes, relative to this machine's matrix products.

python -m experiments.benchmarks.scoring --num_genotypes=100
"""

import statistics
import time

import jax
from absl import flags

import isnas_jax as isnas

from .. import building
from ..flags import define
from ..main import FLAGS, run_script
from . import machine


def define_flags() -> None:
    """Define the flags of this script."""
    define("scores")
    flags.DEFINE_string("preset", "quick", "Preset with the defaults of the flags.")
    flags.DEFINE_string("space", "free", "Search space to draw genotypes from.")
    machine.define_size(64, 128)
    FLAGS.set_default("num_genotypes", 100)
    flags.DEFINE_integer("repeats", 3, "Warm runs after the cold one; the result is their median.")


def main() -> None:
    """Score once with compilation and again without, and print the ratios."""
    draw_key, image_key, score_key = jax.random.split(jax.random.key(0), 3)
    problem = isnas.denoising(jax.random.uniform(image_key, (FLAGS.size, FLAGS.size, 3)))
    config = building.config(problem)
    genotypes = building.genotypes(draw_key, config)
    metrics = {"psd_db_strip_mse": isnas.psd_db_strip_mse}
    inits = config.search.inits
    evaluations = len(genotypes) * inits.num
    flops = inits.num * sum(
        machine.forward_flops(g, FLAGS.size, channels=FLAGS.channels) for g in genotypes
    )
    nets = [isnas.build_network(g, out_channels=3, channels=FLAGS.channels) for g in genotypes]

    def run(index: int) -> tuple[float, float]:
        """Return seconds, and the mean rate of matrix products before and after."""
        rate_before, start = machine.matmul_rate(), time.perf_counter()
        key = jax.random.fold_in(score_key, index)
        isnas.score(key, nets, problem, metrics, inits)
        seconds = time.perf_counter() - start
        return seconds, statistics.mean([rate_before, machine.matmul_rate()])

    compilations = machine.CompilationCounter()
    cold, rate = run(0)
    print(
        f"{evaluations} evaluations of {flops / evaluations / 1e9:.2f} GFLOP; first run "
        f"{cold:.1f} s, {compilations.count} compilations in {compilations.seconds:.1f} s; "
        f"(F x evaluations / time) / P = {flops / cold / rate:.2f} (P {rate / 1e9:.0f} GFLOP/s)",
        flush=True,
    )
    if warm := [run(1 + index) for index in range(FLAGS.repeats)]:
        ratio = statistics.median(flops / seconds / rate for seconds, rate in warm)
        times = ", ".join(f"{seconds:.1f}" for seconds, _ in warm)
        print(f"again, with other keys: {times} s; ratio {ratio:.2f}")
    print(f"peak memory of the process: {machine.peak_memory() / 1e6:.0f} MB")


if __name__ == "__main__":
    run_script(main, define_flags)
