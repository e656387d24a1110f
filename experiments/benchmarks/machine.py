"""The yardsticks of the benchmarks: this machine's matrix products, a network's operations."""

import os
import pathlib
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from isnas_jax.io import images
from isnas_jax.networks.genotypes import LEVELS, Genotype, decode_cell

# The genotypes that every benchmark of a fit takes.
GENOTYPES = (
    "172:0000011001001001100111101",
    "53:1000110110000001010101110",
    "5:1101111101110011000011110",
    "114:1010100000101000110001110",
    "200:0001010110110101110010111",
    "316:0001010110110101110010111",
)


def photograph(name: str, size: int) -> np.ndarray:
    """The middle square of a photograph that scikit-image ships with, gray, (size, size, 1)."""
    square = images.crop_to_square(images.load(f"sample:{name}"))
    return images.resize(images.gray(square), size)


def seconds(function: Callable[[], Any], repeats: int = 5) -> float:
    """Median time of a call, its result awaited."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def matmul_rate() -> float:
    """P, FLOP/s of a product of matrices: NumPy's, float32, of 2048 x 2048; bfloat16 elsewhere.

    That is 8192 x 8192 where there is an accelerator.
    """
    if jax.default_backend() != "cpu":
        a, b = jax.random.normal(jax.random.key(0), (2, 8192, 8192), jnp.bfloat16)
        product = jax.jit(jnp.matmul)
        jax.block_until_ready(product(a, b))
        return 2 * 8192**3 / seconds(lambda: product(a, b), repeats=7)
    a, b = np.random.default_rng(0).random((2, 2048, 2048), np.float32)
    return 2 * 2048**3 / seconds(lambda: a @ b, repeats=7)


def copy_rate() -> float:
    """Bytes/s read and written by a NumPy copy far larger than any cache."""
    source = np.ones(2**26, np.float32)
    target = np.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: np.copyto(target, source), repeats=7)


def _cell_flops(index: int, side: int, channels: int) -> int:
    """Of a searched upsampling cell on a map of this side."""
    cell, entering, leaving = decode_cell(index), channels, channels
    pixels = (2 * side) ** 2
    if cell.convolution == "identity":
        return 0
    if cell.convolution_first:
        pixels, leaving = side**2, 4 * channels
    elif cell.resample == "transposed":
        pixels = side**2
    elif cell.resample == "pixel_shuffle":
        entering = channels // 4
    if cell.convolution == "split_stack_sum":
        entering //= 4
    taps = cell.kernel**2
    if cell.convolution in ("depthwise", "separable"):
        pointwise = leaving if cell.convolution == "separable" else 0
        return 2 * pixels * entering * (taps + pointwise)
    return 2 * pixels * entering * leaving * taps


def forward_flops(
    genotype: Genotype, side: int, *, channels: int = 128, in_channels: int = 3
) -> int:
    """F: multiplications and additions of the convolutions of one forward pass.

    Counted as the published code computes it: every skip on its own, no
    matter what it has in common with another.

    Args:
      genotype: The network.
      side: Side of the square image in pixels.
      channels: Width of the feature maps.
      in_channels: Channels of the noise map.
    """

    def conv(level, taps, entering=channels, leaving=channels):
        return 2 * (side >> level) ** 2 * taps * entering * leaving

    total = conv(0, 1, leaving=in_channels)
    for level in range(1, LEVELS + 1):
        entering = in_channels if level == 1 else channels
        total += conv(level, 9, entering) + conv(level, 9)
        total += _cell_flops(genotype.cell, side >> level, channels)
        total += conv(level - 1, 9 + 9 + 1)
        for source in range(LEVELS):
            if not genotype.has_skip(level, source):
                continue
            entering = in_channels if source == 0 else channels
            if source == level - 1:
                total += conv(source, 1, entering)
            for step in range(source + 1, level):
                total += conv(step, 9, entering if step == source + 1 else channels)
            for step in range(source, level - 1, -1):
                total += _cell_flops(genotype.cell, side >> step, channels)
    return total


class Compilations:
    """Counts XLA's compilations from here on, and their seconds; cache hits do not count."""

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, duration_secs: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            self.count += 1
            self.seconds += duration_secs


def peak_memory() -> int:
    """The most bytes this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def mappings() -> int:
    """Memory mappings of this process; Linux allows 65,530 (vm.max_map_count)."""
    return len(pathlib.Path("/proc/self/maps").read_text().splitlines())


def resident_memory() -> int:
    """Bytes that this process holds now."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def describe() -> dict[str, Any]:
    """Where figures come from: versions, device and P."""
    device = jax.devices()[0]
    return {
        "jax": jax.__version__,
        "device": device.device_kind,
        "cores": os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count(),
        "matmul_gflops": matmul_rate() / 1e9,
    }
