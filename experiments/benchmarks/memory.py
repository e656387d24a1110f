r"""Print memory and memory mappings of a process that fits or scores many networks.

python -m experiments.benchmarks.memory --fits=60 --channels=8
python -m experiments.benchmarks.memory --fits=0 --num_genotypes=300 --channels=8
"""

import time

import jax
from absl import flags

import isnas_jax as isnas

from ..main import FLAGS, run_script
from . import machine


def define_flags() -> None:
    """Define the flags of this script."""
    flags.DEFINE_integer("fits", 60, "Number of different networks to fit.")
    flags.DEFINE_integer("num_genotypes", 0, "Number of genotypes to score, twice.")
    machine.define_size(64, 8)


def main() -> None:
    """Fit networks one after another, then score others, and print the memory meanwhile."""
    problem = isnas.denoising(jax.random.uniform(jax.random.key(0), (FLAGS.size, FLAGS.size, 1)))
    start = time.perf_counter()

    def print_memory(num_networks: int) -> None:
        print(
            f"{num_networks} networks: {machine.mappings()} mappings, "
            f"{machine.resident_memory() / 1e6:.0f} MB resident, "
            f"{time.perf_counter() - start:.0f} s",
            flush=True,
        )

    def networks(num: int) -> list:
        genotypes = isnas.free_space.sample(jax.random.key(5), num, FLAGS.channels)
        return [
            isnas.build_network(genotype, out_channels=1, channels=FLAGS.channels)
            for genotype in genotypes
        ]

    print_memory(0)
    for num_fits, net in enumerate(networks(FLAGS.fits) if FLAGS.fits else [], start=1):
        isnas.fit(jax.random.key(1), net, problem, iterations=2)
        if num_fits % 5 == 0 or num_fits == FLAGS.fits:
            print_memory(num_fits)
    if FLAGS.num_genotypes:
        nets = networks(FLAGS.num_genotypes)
        metrics = {"psd_db_strip_mse": isnas.psd_db_strip_mse}
        for key in jax.random.split(jax.random.key(2)):
            isnas.score(key, nets, problem, metrics)
            print_memory(len(nets))


if __name__ == "__main__":
    run_script(main, define_flags)
