r"""Count what a process keeps while it fits and scores many networks.

python -m experiments.benchmarks.memory --fits=60 --channels=8
python -m experiments.benchmarks.memory --fits=0 --num_genotypes=300 --channels=8
"""

import time
from collections.abc import Sequence

import jax
from absl import flags

import isnas_jax as isnas

from .. import cli
from . import machine

FLAGS = flags.FLAGS

flags.DEFINE_integer("fits", 60, "How many different networks to fit.")
flags.DEFINE_integer("num_genotypes", 0, "How many to score, twice.")
flags.DEFINE_integer("size", 64, "Side of the image in pixels.")
flags.DEFINE_integer("channels", 8, "Width of the networks.")


def main(_: Sequence[str]) -> None:
    """The story: one network after the other, and what is left of them."""
    problem = isnas.denoising(jax.random.uniform(jax.random.key(0), (FLAGS.size, FLAGS.size, 1)))
    start = time.perf_counter()

    def tell(done: int) -> None:
        print(
            f"{done}: {machine.mappings()} mappings, {machine.resident_memory() / 1e6:.0f} MB "
            f"resident, {time.perf_counter() - start:.0f} s",
            flush=True,
        )

    def networks(number: int) -> list:
        genotypes = isnas.SPACES["free"].sample(jax.random.key(5), number, FLAGS.channels)
        return [
            isnas.build_network(genotype, out_channels=1, channels=FLAGS.channels)
            for genotype in genotypes
        ]

    tell(0)
    for done, net in enumerate(networks(FLAGS.fits) if FLAGS.fits else [], start=1):
        isnas.fit(jax.random.key(1), net, problem, iterations=2)
        if done % 5 == 0 or done == FLAGS.fits:
            tell(done)
    if FLAGS.num_genotypes:
        nets, metrics = networks(FLAGS.num_genotypes), {"m": isnas.METRICS["psd_db_strip_mse"]}
        for key in jax.random.split(jax.random.key(2)):
            isnas.score(key, nets, problem, metrics)
            tell(len(nets))


if __name__ == "__main__":
    cli.run(main)
