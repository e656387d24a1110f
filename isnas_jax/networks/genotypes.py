"""Genotypes: an upsampling cell and a 5 x 5 matrix of skip connections.

They span the search space of NAS-DIP (Chen et al., ECCV 2020), which ISNAS-DIP (Arican et
al., CVPR 2022) searches too: 324 upsampling cells and 2**25 skip matrices. 27 of the cells
are impossible at 128 channels.
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

_PATTERNS = (
    re.compile(r"(?P<cell>\d+)[:,]\s*(?P<skips>[01]*)"),
    re.compile(r"\d+_(?P<cell>\d+)_iteration_\d+_sigma_\d+_skip_(?P<skips>[01]*)"),
)


class Cell(NamedTuple):
    """Operations of an upsampling cell.

    Attributes:
      resample: One of `RESAMPLERS`, or "transposed" for a single transposed convolution of
        stride 2.
      convolution: One of `CONVOLUTIONS`.
      kernel: Side of the square kernel; 1 for the identity.
      activation: One of `ACTIVATIONS`.
      convolution_first: Whether the convolution, to four times the channels, precedes the
        pixel shuffle. Otherwise it follows the resampling.
    """

    resample: str
    convolution: str
    kernel: int
    activation: str
    convolution_first: bool = False


def decode_cell(index: int) -> Cell:
    """Return the operations of the cell with an index; ValueError unless it is 0 to 323."""
    if not 0 <= index < NUM_CELLS:
        raise ValueError(f"cell {index} does not exist; choose from cells 0 to {NUM_CELLS - 1}")
    if index >= 312:
        kernel, activation = KERNEL_SIZES[(index - 312) // 3], ACTIVATIONS[index % 3]
        return Cell("transposed", "transposed", kernel, activation)
    convolution_first = index >= 252
    resample = "pixel_shuffle" if convolution_first else RESAMPLERS[index // 63]
    offset = index - 252 if convolution_first else index % 63
    activation = ACTIVATIONS[offset % 3]
    if offset >= 60:
        return Cell(resample, "identity", 1, activation)
    convolution, kernel = CONVOLUTIONS[offset // 12], KERNEL_SIZES[offset // 3 % 4]
    return Cell(resample, convolution, kernel, activation, convolution_first)


_RESAMPLER_WORDS = {
    "bilinear": "bilinear upsampling",
    "bicubic": "bicubic upsampling",
    "nearest": "nearest-neighbor upsampling",
    "pixel_shuffle": "pixel shuffle",
}
_CONVOLUTION_WORDS = {
    "conv": "{} convolution",
    "transposed": "{} transposed convolution",
    "split_stack_sum": "sum of channel quarters, {} convolution",
    "separable": "{} depthwise-separable convolution",
    "depthwise": "{} depthwise convolution",
}
_ACTIVATION_WORDS = {"none": "", "relu": "ReLU", "leaky_relu": "leaky ReLU"}


def _describe_cell(cell: Cell) -> str:
    steps = [] if cell.resample == "transposed" else [_RESAMPLER_WORDS[cell.resample]]
    if cell.convolution != "identity":
        steps.append(_CONVOLUTION_WORDS[cell.convolution].format(f"{cell.kernel} × {cell.kernel}"))
    if cell.resample == "transposed":
        steps = [f"{steps[0]} of stride 2"]
    if cell.convolution_first:
        steps.reverse()
    if activation := _ACTIVATION_WORDS[cell.activation]:
        activation = f"; {activation} after each" if len(steps) > 1 else f"; {activation}"
    return ", then ".join(steps) + activation


def invalid_reason(index: int, channels: int) -> str | None:
    """Return the reason why a cell cannot be built with these channels, or None if it can."""
    cell = decode_cell(index)
    in_channels = channels
    if cell.resample == "pixel_shuffle" and not cell.convolution_first:
        if channels % 4:
            return f"a pixel shuffle needs channels divisible by 4, not {channels}"
        in_channels = channels // 4
    out_channels = 4 * channels if cell.convolution_first else channels
    if cell.convolution in ("depthwise", "identity") and in_channels != out_channels:
        return f"a {cell.convolution} cell cannot turn {in_channels} channels into {out_channels}"
    if cell.convolution == "split_stack_sum" and in_channels % 4:
        return f"split-stack-sum needs channels divisible by 4, not {in_channels}"
    return None


def valid_cells(channels: int) -> list[int]:
    """Return the indices of the cells that can be built with this number of channels."""
    return [index for index in range(NUM_CELLS) if invalid_reason(index, channels) is None]


def light_cells() -> tuple[int, ...]:
    """Return the indices of the cells that interpolate, with no or a depthwise convolution.

    Depthwise kernels are 1 x 1 or 3 x 3. Networks of these cells take less time for each
    iteration than others, and denoise as well (docs/decisions.md, "Light genotypes").
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
    """An architecture of the search space.

    Attributes:
      cell: Index of the upsampling cell, 0 to 323; see `decode_cell`.
      skips: The skip matrix as 25 characters "0" or "1", row by row. Rows are the decoder
        levels 1 (full resolution) to 5, columns the sources e_0 (the input) to e_4.

    Raises:
      ValueError: If the cell does not exist or the skips are not 25 bits.
    """

    cell: int
    skips: str

    def __post_init__(self) -> None:
        decode_cell(self.cell)
        if len(self.skips) != LEVELS**2 or set(self.skips) - {"0", "1"}:
            raise ValueError(
                f"skips {self.skips!r} ({len(self.skips)} characters) must be "
                f"{LEVELS**2} bits, each 0 or 1"
            )

    @classmethod
    def parse(cls, text: str) -> "Genotype":
        """Parse `172:BITS`, `172,BITS` or `0_172_iteration_4000_sigma_25_skip_BITS`.

        Raises ValueError for other texts.
        """
        for pattern in _PATTERNS:
            if match := pattern.fullmatch(text.strip()):
                return cls(int(match["cell"]), match["skips"])
        raise ValueError(
            f"{text!r} is not a genotype; write CELL:BITS, for example "
            "172:0000011001001001100111101"
        )

    def __str__(self) -> str:
        return f"{self.cell}:{self.skips}"

    def has_skip(self, level: int, source: int) -> bool:
        """Return whether decoder level 1 to 5 has a skip from e_source, source 0 to 4."""
        return self.skips[(level - 1) * LEVELS + source] == "1"

    def skip_matrix(self) -> list[list[bool]]:
        """Return the skips, (5, 5): row l - 1 is decoder level l, column j the source e_j."""
        rows = range(0, LEVELS**2, LEVELS)
        return [[bit == "1" for bit in self.skips[row : row + LEVELS]] for row in rows]

    def cell_in_words(self) -> str:
        """Return a description of the cell, such as "bilinear upsampling; ReLU"."""
        return _describe_cell(decode_cell(self.cell))

    def diagram(self) -> str:
        """Return a diagram of the network as SVG text."""
        title = f"Network {self}: {self.skips.count('1')} skips, cell: {self.cell_in_words()}"
        return figures.diagram(self.skip_matrix(), title)

    def _repr_html_(self) -> str:
        return f"{self.diagram()}<p>{self}, cell: {self.cell_in_words()}</p>"

    def check(self, channels: int) -> None:
        """Raise ValueError with the reason if the network cannot be built with these channels."""
        if reason := invalid_reason(self.cell, channels):
            raise ValueError(f"genotype {self} is impossible at {channels} channels: {reason}")


# The networks that NAS-DIP found for each task, as genotypes of this space.
NAS_DIP = {
    "denoising": Genotype(158, "1111101111001110001100001"),
    "inpainting": Genotype(86, "1100001100101100101100101"),
    "super_resolution": Genotype(119, "1001011001011000011000011"),
}
