"""A search space of two levels that compiles quickly, for tests of machinery.

A test imports it; a script takes it by --space=tiny --extensions=tiny, with this folder on
PYTHONPATH. A genotype is written "nearest:0": how a level is upsampled, and whether the full
size has a skip connection. "tiny" and "tiny-skip" are two of these networks as baselines.
"""

import dataclasses
import functools
import itertools

import flax.linen as nn
import jax

import isnas_jax as isnas
from isnas_jax import registries

UPSAMPLINGS = ("nearest", "bilinear", "bicubic")


@dataclasses.dataclass(frozen=True, order=True)
class TinyGenotype:
    """One of six architectures."""

    upsampling: str
    skip: bool

    def __str__(self) -> str:
        return f"{self.upsampling}:{int(self.skip)}"


GENOTYPES = [TinyGenotype(*fields) for fields in itertools.product(UPSAMPLINGS, (False, True))]


def _uniform(key, shape):
    return jax.random.uniform(key, shape, minval=-2.0, maxval=2.0)


class TinyNetwork(nn.Module):
    """Two levels: (N, H, W, I) to (N, H, W, O) in [0, 1].

    All kernels are slices of one array, because every shape that is drawn at random
    costs a program of its own.
    """

    genotype: TinyGenotype
    out_channels: int
    channels: int
    in_channels: int
    remat: bool = False
    numerics: isnas.Numerics = isnas.Numerics()

    @nn.compact
    def __call__(self, x):
        width, number = self.channels, x.shape[-1] + self.channels + self.out_channels
        kernels = self.param("kernels", _uniform, (number, width))
        first, second, last = (
            kernels[: x.shape[-1]],
            kernels[x.shape[-1] : x.shape[-1] + width],
            kernels[x.shape[-1] + width :].T,
        )
        features = nn.leaky_relu(x @ first, 0.2)
        shape = (x.shape[0], x.shape[1] // 2, x.shape[2] // 2, width)
        deep = features.reshape(*shape[:2], 2, shape[2], 2, -1).mean(axis=(2, 4))
        deep = nn.leaky_relu(deep @ second, 0.2)
        up = jax.image.resize(deep, features.shape, self.genotype.upsampling)
        if self.genotype.skip:
            up = up + features
        return nn.sigmoid(up @ last)


@dataclasses.dataclass(frozen=True)
class TinySpace:
    """All six."""

    def sample(self, key, num, channels):
        del channels
        if not 1 <= num <= len(GENOTYPES):
            raise ValueError(f"the tiny space has 1 to {len(GENOTYPES)} genotypes, not {num}")
        return [GENOTYPES[index] for index in jax.random.permutation(key, len(GENOTYPES))[:num]]

    def parse(self, text):
        for genotype in GENOTYPES:
            if str(genotype) == text.strip():
                return genotype
        raise ValueError(
            f"{text!r} is no tiny genotype; choose from {', '.join(map(str, GENOTYPES))}"
        )

    def build(self, genotype, *, out_channels, channels, in_channels=None):
        return TinyNetwork(genotype, out_channels, channels, in_channels or out_channels)


def baseline(genotype, task, *, out_channels, channels, in_channels):
    """Build a named network."""
    del task
    return TinyNetwork(genotype, out_channels, channels, in_channels)


SPACE = registries.SPACES["tiny"] = TinySpace()
TINY = isnas.Baseline("tiny", functools.partial(baseline, GENOTYPES[0]))
TINY_SKIP = isnas.Baseline("tiny-skip", functools.partial(baseline, GENOTYPES[1]))
registries.BASELINES |= {"tiny": TINY, "tiny-skip": TINY_SKIP}
