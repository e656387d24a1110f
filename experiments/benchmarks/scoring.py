r"""Time the scoring of genotypes, relative to this machine's matrix products.

python -m experiments.benchmarks.scoring --num_genotypes=100
"""

import pathlib
import statistics
import time

import jax
from absl import flags

import isnas_jax as isnas
from isnas_jax.io import records

from .. import building
from ..flags import define_scores
from ..main import run_script
from . import machine

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Define the flags of this script."""
    define_scores()
    flags.DEFINE_string("preset", "quick", "Preset with the defaults of the flags.")
    flags.DEFINE_string("space", "free", "Search space to draw genotypes from.")
    flags.DEFINE_integer("size", 64, "Side of the image in pixels.")
    flags.DEFINE_integer("channels", 128, "Channels of the feature maps.")
    FLAGS.set_default("num_genotypes", 100)
    flags.DEFINE_integer("repeats", 3, "Warm runs after the cold one; the result is their median.")
    flags.DEFINE_string("json", None, "File for the results.")


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

    record = machine.describe() | {
        "genotypes": len(genotypes),
        "evaluations": evaluations,
        "size": FLAGS.size,
        "channels": FLAGS.channels,
        "mean_gflop": flops / evaluations / 1e9,
    }
    compilations = machine.CompilationCounter()
    cold, rate = run(0)
    record |= {"cold_s": cold, "cold_ratio": flops / cold / rate, "cold_P_gflops": rate / 1e9}
    record |= {"compilations": compilations.count, "compile_s": compilations.seconds}
    print(
        f"{evaluations} evaluations of {record['mean_gflop']:.2f} GFLOP; first run {cold:.1f} s, "
        f"{compilations.count} compilations in {compilations.seconds:.1f} s; (F x evaluations / "
        f"time) / P = {record['cold_ratio']:.2f} (P {rate / 1e9:.0f} GFLOP/s)",
        flush=True,
    )
    warm = [run(1 + index) for index in range(FLAGS.repeats)]
    if warm:
        record["warm_s"] = [seconds for seconds, _ in warm]
        record["warm_ratio"] = statistics.median(flops / s / rate for s, rate in warm)
        print(
            f"again, with other keys: {', '.join(f'{s:.1f}' for s, _ in warm)} s; "
            f"ratio {record['warm_ratio']:.2f}"
        )
    record["peak_memory_mb"] = machine.peak_memory() / 1e6
    print(f"peak memory of the process: {record['peak_memory_mb']:.0f} MB")
    if FLAGS.json:
        records.write_json(pathlib.Path(FLAGS.json), record)


if __name__ == "__main__":
    run_script(main, define_flags)
