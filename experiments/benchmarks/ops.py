r"""Time each implementation of single operations, relative to this machine's limits.

    python -m experiments.benchmarks.ops --plot=roofline.png

The limits are the rate of a matrix product, P, and the rate of a copy. F is the number of
floating-point operations of a forward pass, t the time.
"""

import functools
import itertools
import math
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import flags
from jax import lax

from isnas_jax import ops
from isnas_jax._programs import compiler_options
from isnas_jax.io import records

from ..main import run_script
from . import machine

FLAGS = flags.FLAGS


class Case(NamedTuple):
    """One operation at one size.

    Attributes:
      name: The operation.
      arguments: The feature map (1, H, W, C) and, if the operation has one, the kernel.
      flops: F by the operation's definition, the same for all implementations.
      implementations: Functions of the arguments by name, "isnas_jax" first.
    """

    name: str
    arguments: tuple[jax.Array, ...]
    flops: float
    implementations: dict[str, Callable[..., jax.Array]]


def _xla(stride: int = 1, dilation: int = 1, groups: int = 1) -> Callable[..., jax.Array]:
    """Return XLA's convolution, padded so that a side becomes side / stride * dilation."""

    def convolution(x, kernel):
        half = kernel.shape[0] // 2
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride,) * 2,
            [(half, half + dilation - 1)] * 2,
            lhs_dilation=(dilation,) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
            precision=lax.Precision.HIGHEST,
        )

    return convolution


def cases(side: int, channels: int) -> Iterator[Case]:
    """Yield the operations on a feature map (1, side, side, channels)."""
    x_key, kernel_key = jax.random.split(jax.random.key(0))
    x = jax.random.normal(x_key, (1, side, side, channels))

    def kernel(size, in_channels=channels):
        return jax.random.normal(kernel_key, (size, size, in_channels, channels)) / size

    def direct(x, kernel):
        return ops.correlate(ops.pad(x, kernel.shape[0] // 2, "zeros"), kernel)

    def strided(x, kernel):
        return ops.convolution(x, kernel, stride=2)

    multiplications = x.size * channels
    implementations: dict[str, Callable[..., jax.Array]]
    for size in (1, 3, 5, 7):
        implementations = {"isnas_jax": ops.convolution, "not tiled": direct, "XLA": _xla()}
        name, flops = f"convolution {size} x {size}", 2 * multiplications * size**2
        yield Case(name, (x, kernel(size)), flops, implementations)
    implementations = {"isnas_jax": strided, "XLA": _xla(stride=2)}
    yield Case("3 x 3, stride 2", (x, kernel(3)), 2 * multiplications * 9 / 4, implementations)
    implementations = {"isnas_jax": ops.transposed_convolution, "XLA": _xla(dilation=2)}
    yield Case("3 x 3, transposed", (x, kernel(3)), 2 * multiplications * 9, implementations)
    for size in (3, 7):
        implementations = {"isnas_jax": ops.depthwise_convolution, "XLA": _xla(groups=channels)}
        arguments = (x, kernel(size, in_channels=1))
        yield Case(f"depthwise {size} x {size}", arguments, 2 * x.size * size**2, implementations)
    # An output pixel has 1, 2 or 4 taps along each axis: nearest needs no operations.
    for method, taps in (("nearest", 0), ("bilinear", 2), ("bicubic", 4)):

        def double(x, method=method):
            return ops.upsample(x, method=method)

        flops = x.size * (2 + 4) * max(2 * taps - 1, 0)
        yield Case(f"upsample, {method}", (x,), flops, {"isnas_jax": double})

    def normalize(x):
        return ops.batch_norm(x, jnp.ones(channels), jnp.zeros(channels))

    yield Case("batch norm", (x,), 7 * x.size, {"isnas_jax": normalize})
    yield Case("leaky ReLU", (x,), x.size, {"isnas_jax": ops.leaky_relu})
    yield Case("pixel shuffle", (x,), 0, {"isnas_jax": ops.pixel_shuffle})


def measure(
    implementation: Callable[..., jax.Array], arguments: tuple[jax.Array, ...]
) -> list[float]:
    """Return the seconds of a forward pass, and of one with all gradients."""

    def with_gradients(*arguments):
        output, vjp = jax.vjp(implementation, *arguments)
        return vjp(output)  # the output serves as its own cotangent

    times = []
    for function in (implementation, with_gradients):
        program = jax.jit(function, compiler_options=compiler_options())
        jax.block_until_ready(program(*arguments))
        times.append(machine.median_seconds(functools.partial(program, *arguments), repeats=7))
    return times


def roofline(path: pathlib.Path, rows: Sequence[dict[str, Any]], record: dict[str, Any]) -> None:
    """Plot FLOP/s over FLOPs per byte of input and output, with the limits of the machine."""
    import matplotlib.pyplot as plt

    from isnas_jax.figures import BLUE, GRAY, GREEN, ORANGE

    rows = [row for row in rows if row["implementation"] == "isnas_jax" and row["flops"]]
    peak, bandwidth = record["matmul_gflops"], record["copy_gbytes"]
    figure, axes = plt.subplots(figsize=(8, 5))
    span = [min(row["intensity"] for row in rows) / 2, max(row["intensity"] for row in rows) * 2]
    knots = sorted([*span, peak / bandwidth])
    axes.loglog(knots, [min(peak, bandwidth * knot) for knot in knots], color=GRAY)
    knee = (peak / bandwidth, peak)
    axes.annotate(f"matrix product, {peak:.0f} GFLOP/s", knee, color=GRAY, ha="right", va="bottom")
    styles = zip("osD", (BLUE, GREEN, ORANGE), strict=True)
    sides = sorted({row["side"] for row in rows})
    for side, (marker, color) in zip(sides, itertools.cycle(styles), strict=False):
        points = [(row["intensity"], row["gflops"]) for row in rows if row["side"] == side]
        axes.scatter(*zip(*points, strict=True), marker=marker, color=color, label=f"{side} px")
    largest = [row for row in rows if row["side"] == max(row["side"] for row in rows)]
    for row, height in zip(largest, itertools.cycle((1, -8)), strict=False):
        point, name = (row["intensity"], row["gflops"]), row["operation"]
        name = name.removeprefix("convolution ")
        axes.annotate(name, point, (6, height), textcoords="offset points", fontsize=8)
    axes.annotate(f"copy, {bandwidth:.0f} GB/s", (span[0], bandwidth * span[0]), color=GRAY)
    axes.set_xlabel("FLOPs by definition per byte of input and output")
    axes.set_ylabel("GFLOP/s")
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=150, bbox_inches="tight")


def define_flags() -> None:
    """Define the flags of this script."""
    flags.DEFINE_list("sizes", ["32", "64", "128"], "Sides of the feature maps in pixels.")
    flags.DEFINE_integer("channels", 128, "Channels of the feature maps.")
    flags.DEFINE_string("only", "", "Time only operations whose name contains this.")
    flags.DEFINE_string("json", None, "File for the results.")
    flags.DEFINE_string("plot", None, "File for a roofline plot, .png or .pdf.")


def main() -> None:
    """Measure the limits, then every implementation of every operation; print ratios."""
    record = machine.describe() | {"copy_gbytes": machine.copy_rate() / 1e9}
    print(
        f"P {record['matmul_gflops']:.0f} GFLOP/s, copies {record['copy_gbytes']:.0f} GB/s\n"
        f"{'operation':22}{'px':>5} {'implementation':15}{'ms':>8}{'(F/t)/P':>9}"
        f"{'with gradients':>16}{'(3F/t)/P':>10}"
    )
    rows = []
    for side in map(int, FLAGS.sizes):
        for case in cases(side, FLAGS.channels):
            if FLAGS.only not in case.name:
                continue
            for name, implementation in case.implementations.items():
                forward, step = measure(implementation, case.arguments)
                output = jax.eval_shape(implementation, *case.arguments)
                num_bytes = 4 * (sum(a.size for a in case.arguments) + math.prod(output.shape))
                row = {
                    "operation": case.name,
                    "side": side,
                    "implementation": name,
                    "flops": case.flops,
                    "intensity": case.flops / num_bytes,
                    "forward_ms": 1e3 * forward,
                    "with_gradients_ms": 1e3 * step,
                    "gflops": case.flops / forward / 1e9,
                    "gbytes": num_bytes / forward / 1e9,
                }
                rows.append(row)
                ratios = [
                    rate / 1e9 / record["matmul_gflops"]
                    for rate in (case.flops / forward, 3 * case.flops / step)
                ]
                print(
                    f"{case.name:22}{side:5} {name:15}{1e3 * forward:8.2f}{ratios[0]:9.2f}"
                    f"{1e3 * step:16.2f}{ratios[1]:10.2f}",
                    flush=True,
                )
    if not rows:
        raise ValueError(f"no operation's name contains --only={FLAGS.only}")
    if FLAGS.json:
        records.write_json(pathlib.Path(FLAGS.json), record | {"operations": rows})
    if FLAGS.plot:
        roofline(pathlib.Path(FLAGS.plot), rows, record)


if __name__ == "__main__":
    run_script(main, define_flags)
