"""Run by test_programs in processes of its own: prints mappings and resident MB as it goes on."""

import sys

import flax.linen as nn
import jax
from isnas_jax.experiments.benchmarks import machine

import isnas_jax as isnas
from isnas_jax.networks import blocks, cells
from isnas_jax.searching import _cellwise, scoring


class Small(nn.Module):
    """Compiles soon, and for each number anew."""

    number: int
    in_channels: int = 2

    @nn.compact
    def __call__(self, x):
        x = blocks.ConvBlock(4, 3, stride=2)(x)
        x = cells.UpsamplingCell(60, 4)(x)
        return nn.sigmoid(blocks.Conv(1)(x) + self.number / 1000)


problem = isnas.denoising(jax.random.uniform(jax.random.key(0), (64, 64, 1)))
if sys.argv[1] == "fits":
    for number in range(30):
        isnas.fit(jax.random.key(1), Small(number), problem, iterations=2)
        print(machine.mappings(), machine.resident_memory() // 2**20, flush=True)
elif sys.argv[1] == "cells":
    _cellwise.PROGRAMS.most = 2
    for cell in range(5):
        net = isnas.build_network(isnas.Genotype(cell, "0" * 25), out_channels=1, channels=4)
        isnas.score(
            jax.random.key(3),
            [net],
            problem,
            {"m": lambda observed, output: output.mean()},
            together=True,
        )
        assert len(_cellwise.PROGRAMS) <= 2
        print(machine.mappings(), machine.resident_memory() // 2**20)
else:
    genotypes = isnas.SPACES["free"].sample(jax.random.key(2), 130, 4)
    assert len({genotype.cell for genotype in genotypes}) > 90
    nets = [isnas.build_network(genotype, out_channels=1, channels=4) for genotype in genotypes]
    metrics = {"m": isnas.METRICS["psd_db_strip_mse"]}
    scoring.PROGRAMS.most = int(sys.argv[2])
    isnas.score(jax.random.key(3), nets, problem, metrics)
    assert len(scoring.PROGRAMS) <= scoring.PROGRAMS.most
    print(machine.mappings(), machine.resident_memory() // 2**20)
