"""A search space of two levels that compiles in about a second, for tests of machinery.

A test imports it, a script takes it by --extensions=tiny (with this folder on PYTHONPATH).
Genotypes are written "nearest:0": how a level is upsampled, and whether the full size has a skip.
The baseline "tiny" is one of these networks; so is "tiny-skip".
"""

import dataclasses
import itertools

import flax.linen as nn
import jax

import isnas_jax as isnas

UPSAMPLINGS = ("nearest", "bilinear", "bicubic")


@dataclasses.dataclass(frozen=True, order=True)
class TinyGenotype:
    """One of six architectures."""

    upsampling: str
    skip: bool

    def __str__(self) -> str:
        return f"{self.upsampling}:{int(self.skip)}"


GENOTYPES = [TinyGenotype(*fields) for fields in itertools.product(UPSAMPLINGS, (False, True))]


class TinyNetwork(nn.Module):
    """Two levels: (N, H, W, I) to (N, H, W, O) in [0, 1]."""

    genotype: TinyGenotype
    out_channels: int
    channels: int
    in_channels: int
    remat: bool = False
    arithmetic: isnas.Arithmetic = isnas.Arithmetic()

    @nn.compact
    def __call__(self, x):
        features = nn.leaky_relu(nn.Dense(self.channels)(x), 0.2)
        shape = (x.shape[0], x.shape[1] // 2, x.shape[2] // 2, self.channels)
        deep = features.reshape(*shape[:2], 2, shape[2], 2, -1).mean(axis=(2, 4))
        deep = nn.leaky_relu(nn.Dense(self.channels)(deep), 0.2)
        up = jax.image.resize(deep, features.shape, self.genotype.upsampling)
        if self.genotype.skip:
            up = up + features
        return nn.sigmoid(nn.Dense(self.out_channels)(up))


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


isnas.SPACES["tiny"] = TinySpace()
