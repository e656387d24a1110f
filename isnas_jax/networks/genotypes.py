"""Architectures as data: one upsampling cell and a 5x5 matrix of skip connections.

A genotype names one network of the NAS-DIP search space (Chen et al., ECCV
2020), which ISNAS-DIP (Arican et al., CVPR 2022) searches: 324 upsampling
cells, 27 of them impossible at 128 channels, times 2**25 skip matrices.
"""

import dataclasses
import re
from typing import NamedTuple

from isnas_jax import figures

LEVELS = 5
NUM_CELLS = 324

RESAMPLERS = ("bilinear", "bicubic", "nearest", "pixel_shuffle")
CONVOLUTIONS = ("conv", "transposed", "split_stack_sum", "separable", "depthwise", "identity")
KERNEL_SIZES = (1, 3, 5, 7)
ACTIVATIONS = ("none", "relu", "leaky_relu")

_SPELLINGS = (
    re.compile(r"(?P<cell>\d+)[:,]\s*(?P<skips>[01]*)"),
    re.compile(r"\d+_(?P<cell>\d+)_iteration_\d+_sigma_\d+_skip_(?P<skips>[01]*)"),
)


class Cell(NamedTuple):
    """What an upsampling cell does, decoded from its index.

    Attributes:
      resample: One of `RESAMPLERS`, or "transposed": the cell is a single
        transposed convolution of stride 2 that resamples by itself.
      convolution: One of `CONVOLUTIONS`.
      kernel: Side of the square kernel; 1 for the identity.
      activation: One of `ACTIVATIONS`.
      convolution_first: Whether the convolution (to four times the channels)
        comes before the pixel shuffle instead of after the resampling.
    """

    resample: str
    convolution: str
    kernel: int
    activation: str
    convolution_first: bool = False


def decode_cell(index: int) -> Cell:
    """Decodes a cell index, 0 to 323; ValueError outside of it."""
    if not 0 <= index < NUM_CELLS:
        raise ValueError(f"cell {index} does not exist; cells are 0 to {NUM_CELLS - 1}")
    if index >= 312:
        rest = index - 312
        return Cell("transposed", "transposed", KERNEL_SIZES[rest // 3], ACTIVATIONS[rest % 3])
    convolution_first = index >= 252
    resample = "pixel_shuffle" if convolution_first else RESAMPLERS[index // 63]
    rest = index - 252 if convolution_first else index % 63
    if rest >= 60:
        return Cell(resample, "identity", 1, ACTIVATIONS[rest % 3])
    convolution, kernel = CONVOLUTIONS[rest // 12], KERNEL_SIZES[rest // 3 % 4]
    return Cell(resample, convolution, kernel, ACTIVATIONS[rest % 3], convolution_first)


_RESAMPLING = {
    "bilinear": "bilinear upsampling",
    "bicubic": "bicubic upsampling",
    "nearest": "nearest-neighbor upsampling",
    "pixel_shuffle": "pixel shuffle",
}
_CONVOLVING = {
    "conv": "{} convolution",
    "transposed": "{} transposed convolution",
    "split_stack_sum": "sum of channel quarters, {} convolution",
    "separable": "{} depthwise-separable convolution",
    "depthwise": "{} depthwise convolution",
}
_ACTIVATING = {"none": "", "relu": "ReLU", "leaky_relu": "leaky ReLU"}


def _in_words(cell: Cell) -> str:
    """What a cell does, for people."""
    steps = [] if cell.resample == "transposed" else [_RESAMPLING[cell.resample]]
    if cell.convolution != "identity":
        steps.append(_CONVOLVING[cell.convolution].format(f"{cell.kernel} × {cell.kernel}"))
    if cell.resample == "transposed":
        steps = [f"{steps[0]} of stride 2"]
    if cell.convolution_first:
        steps.reverse()
    if activation := _ACTIVATING[cell.activation]:
        activation = f"; {activation} after each" if len(steps) > 1 else f"; {activation}"
    return ", then ".join(steps) + activation


def why_impossible(index: int, channels: int) -> str | None:
    """The reason why a cell cannot be built at a channel width, or None.

    ValueError if the index does not exist at all.
    """
    cell = decode_cell(index)
    entering = channels
    if cell.resample == "pixel_shuffle" and not cell.convolution_first:
        if channels % 4:
            return f"a pixel shuffle needs channels divisible by 4, not {channels}"
        entering = channels // 4
    leaving = 4 * channels if cell.convolution_first else channels
    if cell.convolution in ("depthwise", "identity") and entering != leaving:
        return f"a {cell.convolution} cell cannot turn {entering} channels into {leaving}"
    if cell.convolution == "split_stack_sum" and entering % 4:
        return f"split-stack-sum needs channels divisible by 4, not {entering}"
    return None


def valid_cells(channels: int) -> list[int]:
    """The indices of the cells that can be built at a channel width."""
    return [index for index in range(NUM_CELLS) if why_impossible(index, channels) is None]


def light_cells() -> tuple[int, ...]:
    """The indices of the cells that interpolate and convolve channels not at all or one by one.

    Depthwise kernels are 1 x 1 or 3 x 3. A step of their networks takes less time than of
    others, and under noise they restore as well (docs/decisions.md, "The fast default").
    """
    return tuple(
        index
        for index, cell in enumerate(map(decode_cell, range(NUM_CELLS)))
        if cell.resample in ("bilinear", "bicubic", "nearest")
        and cell.convolution in ("depthwise", "identity")
        and cell.kernel <= 3
    )


@dataclasses.dataclass(frozen=True, order=True)
class Genotype:
    """One architecture of the search space.

    Attributes:
      cell: Upsampling cell, 0 to 323; see `decode_cell`.
      skips: 25 characters "0" or "1", the rows of the skip matrix one after
        the other: row l is the decoder level (1, the full size, first),
        column j the source e_j, 0 (the network's input) to 4.
    """

    cell: int
    skips: str

    def __post_init__(self) -> None:
        decode_cell(self.cell)
        if len(self.skips) != LEVELS**2 or set(self.skips) - {"0", "1"}:
            raise ValueError(
                f"skips {self.skips!r} has {len(self.skips)} characters; "
                f"it takes {LEVELS**2} bits, each 0 or 1"
            )

    @classmethod
    def parse(cls, text: str) -> "Genotype":
        """Reads any published spelling; ValueError for anything else.

        They are `172:bits`, `172,bits` and
        `0_172_iteration_4000_sigma_25_skip_bits`.
        """
        for spelling in _SPELLINGS:
            if match := spelling.fullmatch(text.strip()):
                return cls(int(match["cell"]), match["skips"])
        raise ValueError(
            f"{text!r} is not a genotype; write CELL:BITS, for example "
            "172:0000011001001001100111101"
        )

    def __str__(self) -> str:
        return f"{self.cell}:{self.skips}"

    def has_skip(self, level: int, source: int) -> bool:
        """Whether e_source (0 to 4) is added at decoder level 1 to 5."""
        return self.skips[(level - 1) * LEVELS + source] == "1"

    def skip_matrix(self) -> list[list[bool]]:
        """The skips, (5, 5): row l - 1 the decoder level l, column j the source e_j."""
        rows = range(0, LEVELS**2, LEVELS)
        return [[bit == "1" for bit in self.skips[row : row + LEVELS]] for row in rows]

    def cell_in_words(self) -> str:
        """What the cell does, for people."""
        return _in_words(decode_cell(self.cell))

    def diagram(self) -> str:
        """The network as SVG text."""
        title = f"Network {self}: {self.skips.count('1')} skips, upward by {self.cell_in_words()}"
        return figures.diagram(self.skip_matrix(), title)

    def _repr_html_(self) -> str:
        return f"{self.diagram()}<p>{self}, upward by {self.cell_in_words()}</p>"

    def check(self, channels: int) -> None:
        """ValueError with the reason if it cannot be built at this width."""
        if reason := why_impossible(self.cell, channels):
            raise ValueError(f"genotype {self} is impossible at {channels} channels: {reason}")


# The networks that NAS-DIP found, one per task, as members of this space.
NAS_DIP = {
    "denoising": Genotype(158, "1111101111001110001100001"),
    "inpainting": Genotype(86, "1100001100101100101100101"),
    "super_resolution": Genotype(119, "1001011001011000011000011"),
}
