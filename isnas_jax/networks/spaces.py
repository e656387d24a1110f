"""Search spaces: where architectures are drawn from, how they are spelled and built.

A space is a hashable object with

    sample(key, num, channels) -> genotypes that can be built at this width
    parse(text) -> genotype
    build(genotype, *, out_channels, channels, in_channels) -> network

where str(genotype) is what `parse` reads, and a network is what
`build.build_network` returns. `SPACES` holds ours; add your own.
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
from isnas_jax.networks.genotypes import LEVELS, NUM_CELLS, Genotype, light_cells, valid_cells
from isnas_jax.networks.searched import SearchedNetwork
from isnas_jax.registry import Registry, shown


class Space(Protocol):
    """See the module's docstring."""

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
    """The space of NAS-DIP and ISNAS-DIP: a cell and a matrix of skips; see `genotypes`.

    Attributes:
      toeplitz: Draw one bit for each of the 9 diagonals of the skip matrix, as
        NAS-DIP does, instead of 25 independent bits.
      cells: Indices of the cells to draw from, all by default.
    """

    toeplitz: bool = False
    cells: tuple[int, ...] = tuple(range(NUM_CELLS))

    def sample(self, key: jax.Array, num: int, channels: int = 128) -> list[Genotype]:
        """Draw genotypes that can be built at a channel width, independently of each other.

        The first n of a longer draw with the same key are the draw of n.
        """
        if num < 1:
            raise ValueError(f"the number of genotypes must be at least 1, not {num}")
        _keys.check(key)
        possible = [cell for cell in valid_cells(channels) if cell in self.cells]
        cells = jnp.asarray(possible, jnp.int32)
        rows, columns = np.indices((LEVELS, LEVELS))
        bit_of = (columns - rows + LEVELS - 1 if self.toeplitz else columns + LEVELS * rows).ravel()

        def draw(index):
            cell_key, skip_key = jax.random.split(jax.random.fold_in(key, index))
            half = jnp.asarray(0.5, jnp.float32)
            bits = jax.random.bernoulli(skip_key, half, (bit_of.max() + 1,))
            cell = jax.random.randint(cell_key, (), 0, len(cells), jnp.int32)
            return cells[cell], bits[bit_of]

        drawn_cells, skips = map(np.asarray, jax.vmap(draw)(jnp.arange(num, dtype=jnp.int32)))
        return [
            Genotype(int(cell), "".join("01"[bit] for bit in bits.astype(int)))
            for cell, bits in zip(drawn_cells, skips, strict=True)
        ]

    def parse(self, text: str) -> Genotype:
        """`Genotype.parse`."""
        return Genotype.parse(text)

    def build(
        self,
        genotype: Genotype,
        *,
        out_channels: int,
        channels: int = 128,
        in_channels: int | None = None,
    ) -> SearchedNetwork:
        """The network of a genotype, its noise map with the image's channels by default."""
        if not isinstance(genotype, Genotype):
            raise ValueError(
                f"{shown(genotype)} is no genotype of this space; isnas_jax.Genotype.parse(text) "
                "makes one of CELL:BITS"
            )
        genotype.check(channels)
        return SearchedNetwork(genotype, out_channels, channels, in_channels or out_channels)


SPACES: Registry[Space] = Registry(
    "search space",
    {
        "free": CellsAndSkips(),
        "toeplitz": CellsAndSkips(toeplitz=True),
        "light": CellsAndSkips(cells=light_cells()),
    },
)


def read_genotypes(
    path: str | os.PathLike[str],
    *,
    space: Space | None = None,
    channels: int = 128,
    skip_invalid: bool = False,
) -> tuple[list[Any], list[str]]:
    """Reads a list of genotypes, one a line.

    Blank lines and lines that start with # are passed over.

    Args:
      path: Text file, UTF-8, or UTF-16 with a byte order mark; line ends of any system.
      space: Whose genotypes they are; the searched one by default.
      channels: Width at which the genotypes must be possible.
      skip_invalid: Leave out malformed, impossible and repeated entries.

    Returns:
      The genotypes, and one line for each entry left out: where and why.

    Raises:
      ValueError: At the first bad entry unless it is to be left out, naming
        line and reason; or if nothing remains.
    """
    space = space or SPACES["free"]
    genotypes: list[Any] = []
    skipped: list[str] = []
    first_lines: dict[str, int] = {}
    for number, line in enumerate(_lines(pathlib.Path(path).read_bytes()), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            if "\ufffd" in line:
                raise ValueError("this is not text; a list holds one genotype a line")
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
        raise ValueError(f"{os.fspath(path)} holds no usable genotype")
    return genotypes, skipped


def _lines(content: bytes) -> list[str]:
    """Lines of text in UTF-8 or UTF-16; U+FFFD stands for what is no text."""
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if marked else "utf-8", "replace").replace("\ufeff", "")
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
