r"""Time each implementation of single operations, relative to this machine's limits.

    python -m experiments.benchmarks.ops --plot=roofline.png

The limits are the rate of a matrix product, P, and the rate of a copy. F is the number of
floating-point operations of a forward pass, t the time.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pandas as pd
from absl import flags
from jax import lax

from isnas_jax import ops
from isnas_jax._programs import compiler_options

from ..main import FLAGS, run_script
from . import machine


class Case(NamedTuple):
    """One operation at one size."""

    name: str
    arguments: tuple[jax.Array, ...]  # the feature map (1, H, W, C) and perhaps the kernel
    flops: float  # F by the operation's definition, the same for all implementations
    implementations: dict[str, Callable[..., jax.Array]]  # by name, "isnas_jax" first


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

    multiplications = x.size * channels
    implementations: dict[str, Callable[..., jax.Array]]
    for size in (1, 3, 5, 7):
        implementations = {"isnas_jax": ops.convolution, "not tiled": direct, "XLA": _xla()}
        name, flops = f"convolution {size} x {size}", 2 * multiplications * size**2
        yield Case(name, (x, kernel(size)), flops, implementations)
    strided = functools.partial(ops.convolution, stride=2)
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
        double = functools.partial(ops.upsample, method=method)
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
        times.append(machine.median_seconds(functools.partial(program, *arguments)))
    return times


def roofline(path: str, points: pd.DataFrame, peak: float, bandwidth: float) -> None:
    """Plot GFLOP/s over FLOPs per byte of input and output, with the limits of the machine.

    The points have the columns operation, side, intensity (FLOPs per byte) and gflops.
    """
    import matplotlib.pyplot as plt

    from isnas_jax.figures import BLUE, GRAY, GREEN, ORANGE

    figure, axes = plt.subplots(figsize=(8, 5))
    span = [points["intensity"].min() / 2, points["intensity"].max() * 2]
    knots = sorted([*span, peak / bandwidth])
    axes.loglog(knots, [min(peak, bandwidth * knot) for knot in knots], color=GRAY)
    knee = (peak / bandwidth, peak)
    axes.annotate(f"matrix product, {peak:.0f} GFLOP/s", knee, color=GRAY, ha="right", va="bottom")
    axes.annotate(f"copy, {bandwidth:.0f} GB/s", (span[0], bandwidth * span[0]), color=GRAY)
    styles = itertools.cycle(zip("osD", (BLUE, GREEN, ORANGE), strict=True))
    for (side, group), (marker, color) in zip(points.groupby("side"), styles, strict=False):
        label = f"{side} px"
        axes.scatter("intensity", "gflops", data=group, marker=marker, color=color, label=label)
    largest = points[points["side"] == points["side"].max()]
    for row, height in zip(largest.itertuples(), itertools.cycle((1, -8)), strict=False):
        name, point = row.operation.removeprefix("convolution "), (row.intensity, row.gflops)
        axes.annotate(name, point, (6, height), textcoords="offset points", fontsize=8)
    axes.set_xlabel("FLOPs by definition per byte of input and output")
    axes.set_ylabel("GFLOP/s")
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=150, bbox_inches="tight")


def define_flags() -> None:
    """Define the flags of this script."""
    flags.DEFINE_list("sizes", ["32", "64", "128"], "Sides of the feature maps in pixels.")
    flags.DEFINE_integer("channels", 128, "Channels of the feature maps.")
    flags.DEFINE_string("only", "", "Time only operations whose name contains this.")
    flags.DEFINE_string("plot", None, "File for a roofline plot, .png or .pdf.")


def main() -> None:
    """Measure the limits, then every implementation of every operation; print ratios."""
    peak, bandwidth = machine.matmul_rate(), machine.copy_rate()
    print(
        f"P {peak / 1e9:.0f} GFLOP/s, copies {bandwidth / 1e9:.0f} GB/s\n"
        f"{'operation':22}{'px':>5} {'implementation':15}{'ms':>8}{'(F/t)/P':>9}"
        f"{'with gradients':>16}{'(3F/t)/P':>10}"
    )
    all_cases = [
        (side, case) for side in map(int, FLAGS.sizes) for case in cases(side, FLAGS.channels)
    ]
    if not (chosen := [pair for pair in all_cases if FLAGS.only in pair[1].name]):
        raise ValueError(f"no operation's name contains --only={FLAGS.only}")
    points = []
    for side, case in chosen:
        for name, implementation in case.implementations.items():
            forward, step = measure(implementation, case.arguments)
            print(
                f"{case.name:22}{side:5} {name:15}{1e3 * forward:8.2f}"
                f"{case.flops / forward / peak:9.2f}{1e3 * step:16.2f}"
                f"{3 * case.flops / step / peak:10.2f}",
                flush=True,
            )
            if name == "isnas_jax" and case.flops:
                output = jax.eval_shape(implementation, *case.arguments)
                num_bytes = 4 * (sum(a.size for a in case.arguments) + math.prod(output.shape))
                intensity, gflops = case.flops / num_bytes, case.flops / forward / 1e9
                points.append((case.name, side, intensity, gflops))
    if FLAGS.plot:
        table = pd.DataFrame(points, columns=["operation", "side", "intensity", "gflops"])
        roofline(FLAGS.plot, table, peak / 1e9, bandwidth / 1e9)


if __name__ == "__main__":
    run_script(main, define_flags)
