"""References for the benchmarks: speed and memory of this machine, operations of a network."""

import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from isnas_jax.networks.genotypes import LEVELS, Genotype, decode_cell

# The genotypes of all benchmarks of fits.
GENOTYPES = (
    "172:0000011001001001100111101",
    "53:1000110110000001010101110",
    "5:1101111101110011000011110",
    "114:1010100000101000110001110",
    "200:0001010110110101110010111",
    "316:0001010110110101110010111",
)


def define_size(size: int, channels: int) -> None:
    """Define --size and --channels with defaults."""
    flags.DEFINE_integer("size", size, "Side of the images in pixels.")
    flags.DEFINE_integer("channels", channels, "Channels of the feature maps.")


def median_seconds(function: Callable[[], Any]) -> float:
    """Return the median duration of seven calls in seconds, until their results are ready."""
    times = []
    for _ in range(7):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def matmul_rate() -> float:
    """Return P, the FLOP/s of a matrix product.

    On a CPU it multiplies float32 matrices of 2048 x 2048 by NumPy. On an accelerator it
    multiplies bfloat16 matrices of 8192 x 8192 by JAX.
    """
    if jax.default_backend() != "cpu":
        a, b = jax.random.normal(jax.random.key(0), (2, 8192, 8192), jnp.bfloat16)
        product = jax.jit(jnp.matmul)
        jax.block_until_ready(product(a, b))
        return 2 * 8192**3 / median_seconds(lambda: product(a, b))
    a, b = np.random.default_rng(0).random((2, 2048, 2048), np.float32)
    return 2 * 2048**3 / median_seconds(lambda: a @ b)


def copy_rate() -> float:
    """Return the bytes/s that NumPy reads and writes when it copies 256 MiB."""
    source = np.ones(2**26, np.float32)
    target = np.empty_like(source)
    return 2 * source.nbytes / median_seconds(lambda: np.copyto(target, source))


def _cell_flops(index: int, side: int, channels: int) -> int:
    """Return the operations of an upsampling cell on a feature map of (side, side, channels)."""
    cell, in_channels, out_channels = decode_cell(index), channels, channels
    pixels = (2 * side) ** 2
    if cell.convolution == "identity":
        return 0
    if cell.convolution_first:
        pixels, out_channels = side**2, 4 * channels
    elif cell.resample == "transposed":
        pixels = side**2
    elif cell.resample == "pixel_shuffle":
        in_channels = channels // 4
    if cell.convolution == "split_stack_sum":
        in_channels //= 4
    taps = cell.kernel**2
    if cell.convolution in ("depthwise", "separable"):
        pointwise = out_channels if cell.convolution == "separable" else 0
        return 2 * pixels * in_channels * (taps + pointwise)
    return 2 * pixels * in_channels * out_channels * taps


def forward_flops(
    genotype: Genotype, side: int, *, channels: int = 128, in_channels: int = 3
) -> int:
    """Return F, the multiplications and additions of the convolutions of one forward pass.

    The count is that of the published code, which computes every skip separately, for a square
    image and a noise map of `in_channels`.
    """

    def conv(level, taps, inputs=channels, outputs=channels):
        return 2 * (side >> level) ** 2 * taps * inputs * outputs

    total = conv(0, 1, outputs=in_channels)
    for level in range(1, LEVELS + 1):
        inputs = in_channels if level == 1 else channels
        total += conv(level, 9, inputs) + conv(level, 9)
        total += _cell_flops(genotype.cell, side >> level, channels)
        total += conv(level - 1, 9 + 9 + 1)
        for source in range(LEVELS):
            if not genotype.has_skip(level, source):
                continue
            inputs = in_channels if source == 0 else channels
            if source == level - 1:
                total += conv(source, 1, inputs)
            for step in range(source + 1, level):
                total += conv(step, 9, inputs if step == source + 1 else channels)
            for step in range(source, level - 1, -1):
                total += _cell_flops(genotype.cell, side >> step, channels)
    return total


class CompilationCounter:
    """Counts XLA compilations and their seconds since its creation, without cache hits."""

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0
        jax.monitoring.register_event_duration_secs_listener(self._on_event)

    def _on_event(self, event: str, duration_secs: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            self.count += 1
            self.seconds += duration_secs


def peak_memory() -> int:
    """Return the peak resident memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
