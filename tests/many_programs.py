"""Script of test_programs: compile many programs, and print memory mappings and resident MiB.

The first argument is "fits", "cells" or "scores"; the second is the bound for "scores".
"""

import pathlib
import resource
import sys

import flax.linen as nn
import jax

import isnas_jax as isnas
from isnas_jax.networks import architectures, blocks
from isnas_jax.searching import _cell_programs, scoring


class Small(nn.Module):
    """Network that compiles quickly, with a program of its own for each number."""

    number: int
    in_channels: int = 2

    @nn.compact
    def __call__(self, x):
        x = blocks.ConvBlock(4, 3, stride=2)(x)
        x = architectures.UpsamplingCell(60, 4)(x)
        return nn.sigmoid(blocks.Conv(1)(x) + self.number / 1000)


def print_memory():
    """Print the memory mappings of this process, 65,530 at most on Linux, and resident MiB."""
    mappings = len(pathlib.Path("/proc/self/maps").read_text().splitlines())
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    print(mappings, pages * resource.getpagesize() // 2**20, flush=True)


problem = isnas.denoising(jax.random.uniform(jax.random.key(0), (64, 64, 1)))
if sys.argv[1] == "fits":
    for number in range(30):
        isnas.fit(jax.random.key(1), Small(number), problem, iterations=2)
        print_memory()
elif sys.argv[1] == "cells":
    _cell_programs.PROGRAMS.max_size = 2
    for cell in range(5):
        net = isnas.build_network(isnas.Genotype(cell, "0" * 25), out_channels=1, channels=4)
        isnas.score(
            jax.random.key(3),
            [net],
            problem,
            {"m": lambda observed, output: output.mean()},
            batched=True,
        )
        assert len(_cell_programs.PROGRAMS) <= 2
        print_memory()
else:
    genotypes = isnas.free_space.sample(jax.random.key(2), 130, 4)
    assert len({genotype.cell for genotype in genotypes}) > 90
    nets = [isnas.build_network(genotype, out_channels=1, channels=4) for genotype in genotypes]
    metrics = {"m": isnas.psd_db_strip_mse}
    scoring.PROGRAMS.max_size = int(sys.argv[2])
    isnas.score(jax.random.key(3), nets, problem, metrics)
    assert len(scoring.PROGRAMS) <= scoring.PROGRAMS.max_size
    print_memory()
