"""Search spaces, which sample, parse and build genotypes, and files of genotypes.

A space is a hashable object with three methods:

    sample(key, num, channels) -> genotypes that can be built with these channels
    parse(text) -> genotype
    build(genotype, *, out_channels, channels, in_channels) -> network

`parse` must read str(genotype). `build` returns a network as `build.build_network` does.
"""

import codecs
import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from isnas_jax import _keys
from isnas_jax.networks.architectures import SearchedNetwork
from isnas_jax.networks.genotypes import LEVELS, NUM_CELLS, Genotype, light_cells, valid_cells
from isnas_jax.registry import short_repr


class Space(Protocol):
    """A search space; the module docstring describes its methods."""

    def sample(self, key: jax.Array, num: int, channels: int) -> Sequence[Any]: ...

    def parse(self, text: str) -> Any: ...

    def build(
        self,
        genotype: Any,
        *,
        out_channels: int,
        channels: int,
        in_channels: int | None = None,
    ) -> Any: ...


@dataclasses.dataclass(frozen=True)
class CellsAndSkips:
    """The search space of NAS-DIP and ISNAS-DIP: an upsampling cell and a skip matrix.

    Attributes:
      toeplitz: Whether to draw one bit for each of the 9 diagonals of the skip matrix, as
        NAS-DIP does. Otherwise the 25 bits are independent.
      cells: Indices of the cells to draw from, by default all.
    """

    toeplitz: bool = False
    cells: tuple[int, ...] = dataclasses.field(default=tuple(range(NUM_CELLS)), repr=False)

    def sample(self, key: jax.Array, num: int, channels: int = 128) -> list[Genotype]:
        """Draw genotypes independently, as `sample_genotypes` does.

        A longer sample with the same key begins with the shorter.
        """
        if num < 1:
            raise ValueError(f"the number of genotypes {num} must be at least 1")
        _keys.check(key)
        possible = [cell for cell in valid_cells(channels) if cell in self.cells]
        cells = jnp.asarray(possible, jnp.int32)
        rows, columns = np.indices((LEVELS, LEVELS))
        bit_index = columns - rows + LEVELS - 1 if self.toeplitz else columns + LEVELS * rows
        bit_index = bit_index.ravel()

        def draw(index):
            cell_key, skip_key = jax.random.split(jax.random.fold_in(key, index))
            half = jnp.asarray(0.5, jnp.float32)
            bits = jax.random.bernoulli(skip_key, half, (bit_index.max() + 1,))
            cell = jax.random.randint(cell_key, (), 0, len(cells), jnp.int32)
            return cells[cell], bits[bit_index]

        drawn_cells, skips = map(np.asarray, jax.vmap(draw)(jnp.arange(num, dtype=jnp.int32)))
        return [
            Genotype(int(cell), "".join("01"[bit] for bit in bits.astype(int)))
            for cell, bits in zip(drawn_cells, skips, strict=True)
        ]

    def parse(self, text: str) -> Genotype:
        """Parse a genotype, as `Genotype.parse` does."""
        return Genotype.parse(text)

    def build(
        self,
        genotype: Genotype,
        *,
        out_channels: int,
        channels: int = 128,
        in_channels: int | None = None,
    ) -> SearchedNetwork:
        """Return the network of a genotype; `in_channels` is `out_channels` by default."""
        if not isinstance(genotype, Genotype):
            raise ValueError(
                f"{short_repr(genotype)} is not a genotype of this space; "
                "isnas_jax.Genotype.parse(text) returns one from CELL:BITS"
            )
        genotype.check(channels)
        return SearchedNetwork(genotype, out_channels, channels, in_channels or out_channels)


free_space = CellsAndSkips()
toeplitz_space = CellsAndSkips(toeplitz=True)
light_space = CellsAndSkips(cells=light_cells())


def sample_genotypes(
    key: jax.Array, num: int, *, space: Space = free_space, channels: int = 128
) -> list[Any]:
    """Draw random genotypes.

    >>> [str(genotype) for genotype in isnas.sample_genotypes(jax.random.key(0), 1)]
    ['6:1110100110110100100101100']

    Args:
      key: Random key.
      num: Number of genotypes, at least 1; ValueError otherwise.
      space: The search space.
      channels: Channels of the feature maps with which the genotypes must be possible.
    """
    return list(space.sample(key, num, channels))


def read_genotypes(
    path: str | os.PathLike[str],
    *,
    space: Space | None = None,
    channels: int = 128,
    skip_invalid: bool = False,
) -> tuple[list[Any], list[str]]:
    """Read a file with one genotype on each line; blank lines and # comments are ignored.

    Args:
      path: Text file in UTF-8, or in UTF-16 with a byte order mark, with any line endings.
      space: Search space of the genotypes; by default the free space.
      channels: Channels of the feature maps with which the genotypes must be possible.
      skip_invalid: Whether to skip malformed, impossible and repeated genotypes.

    Returns:
      The genotypes, and a message with file, line and reason for each skipped entry.

    Raises:
      ValueError: If an entry is invalid and `skip_invalid` is false, with its line and the
        reason; or if the file has no valid genotype.
    """
    space = space or free_space
    genotypes: list[Any] = []
    skipped: list[str] = []
    first_lines: dict[str, int] = {}
    for number, line in enumerate(_lines(pathlib.Path(path).read_bytes()), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            if "\ufffd" in line:
                raise ValueError("this is not text; write one genotype on each line")
            genotype = space.parse(line.strip())
            space.build(genotype, out_channels=1, channels=channels)
            if (first := first_lines.setdefault(str(genotype), number)) != number:
                raise ValueError(f"genotype {genotype} is already in line {first}")
        except ValueError as error:
            message = f"{os.fspath(path)}, line {number}: {error}"
            if not skip_invalid:
                raise ValueError(message) from None
            skipped.append(message)
        else:
            genotypes.append(genotype)
    if not genotypes:
        raise ValueError(f"{os.fspath(path)} contains no usable genotype")
    return genotypes, skipped


def _lines(content: bytes) -> list[str]:
    """Decode UTF-8 or UTF-16 to lines; U+FFFD replaces invalid bytes."""
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if is_utf16 else "utf-8", "replace").replace("\ufeff", "")
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
