"""A searched network and the steps of its fit in PyTorch, to compare speed and outputs.

It uses PyTorch's operations and optimizer and runs eagerly, like the published code. Unlike
the published code, it computes once the operations that several skips have in common, like
isnas_jax. Feature maps are NCHW.
"""

import itertools
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from flax import traverse_util
from torch.nn import functional

from isnas_jax.networks import SearchedNetwork
from isnas_jax.networks.architectures import ordered_steps
from isnas_jax.networks.genotypes import LEVELS, Cell, decode_cell
from isnas_jax.ops import ACTIVATION_SLOPES

Weights = dict[str, torch.Tensor]


def convert_parameters(net: SearchedNetwork, params: Any, device: str) -> Weights:
    """Convert Flax parameters to tensors with names such as "enc1/down/conv/kernel"."""
    cell = decode_cell(net.genotype.cell)
    weights = {}
    for path, value in traverse_util.flatten_dict(params, sep="/").items():
        array = np.array(value)
        if path.endswith("kernel"):
            is_transposed = cell.convolution == "transposed" and path.startswith(("up", "skip_up"))
            # PyTorch kernels are OIHW; those of transposed convolutions are IOHW and mirrored.
            array = (
                array[::-1, ::-1].transpose(2, 3, 0, 1)
                if is_transposed
                else array.transpose(3, 2, 0, 1)
            )
        weights[path] = torch.from_numpy(np.ascontiguousarray(array)).to(device).requires_grad_()
    return weights


def _block(weights: Weights, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
    kernel = weights[f"{name}/conv/kernel"]
    if kernel.shape[-1] > 1:
        x = functional.pad(x, (1, 1, 1, 1), mode="reflect")
    x = functional.conv2d(x, kernel, weights[f"{name}/conv/bias"], stride)
    return functional.leaky_relu(_batch_norm(weights, f"{name}/norm", x), 0.2)


def _batch_norm(weights: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    scale, bias = weights[f"{name}/scale"], weights[f"{name}/bias"]
    return functional.batch_norm(x, None, None, scale, bias, training=True)


def _cell(cell: Cell, weights: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    bias = weights.get(f"{name}/conv/bias")

    def resample(x):
        if cell.resample == "pixel_shuffle":
            return functional.pixel_shuffle(x, 2)
        corners = None if cell.resample == "nearest" else False
        return functional.interpolate(x, scale_factor=2, mode=cell.resample, align_corners=corners)

    def convolve(x):
        kernel, low = weights[f"{name}/conv/kernel"], cell.kernel // 2
        if cell.convolution == "transposed":
            stride = 2 if cell.resample == "transposed" else 1
            return functional.conv_transpose2d(
                x, kernel, bias, stride, low, output_padding=stride - 1
            )
        if cell.convolution in ("depthwise", "separable"):
            x = functional.conv2d(x, kernel, padding=low, groups=x.shape[1])
            pointwise = weights.get(f"{name}/pointwise/kernel")
            return x if pointwise is None else functional.conv2d(x, pointwise)
        if cell.convolution == "split_stack_sum":
            x = torch.stack(x.chunk(4, 1)).sum(0)
        return functional.conv2d(x, kernel, padding=low)

    for step in ordered_steps(cell, resample, convolve):
        x = step(x)
        if cell.activation != "none":
            x = functional.leaky_relu(x, ACTIVATION_SLOPES[cell.activation])
    return x


def forward(net: SearchedNetwork, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    """Return the network's output (N, O, H, W) for an input (N, I, H, W)."""
    cell, genotype = decode_cell(net.genotype.cell), net.genotype
    sources = [x]
    for level in range(1, LEVELS + 1):
        x = _block(weights, f"enc{level}/down", x, 2)
        x = _block(weights, f"enc{level}/block", x)
        sources.append(x)
    skips: dict[int, list[torch.Tensor]] = {level: [] for level in range(1, LEVELS + 1)}
    for source, features in enumerate(sources[:LEVELS]):
        direct_level = source + 1
        targets = [level for level in skips if genotype.has_skip(level, source)]
        if direct_level in targets:
            skips[direct_level].append(_block(weights, f"skip{direct_level}", features))
        down = up = features
        for level in range(direct_level + 1, max(targets, default=direct_level) + 1):
            down = _block(weights, f"skip_down_{level - 1}_{level}", down, 2)
            if level in targets:
                skips[level].append(down)
        for level in range(direct_level - 1, min(targets, default=direct_level) - 1, -1):
            up = _cell(cell, weights, f"skip_up_{level + 1}_{level}", up)
            if level in targets:
                skips[level].append(up)
    for level in range(LEVELS, 0, -1):
        x = sum(skips[level], _cell(cell, weights, f"up{level}", x))
        x = _batch_norm(weights, f"dec{level}/norm", x)
        for number in (1, 2, 3):
            x = _block(weights, f"dec{level}/block{number}", x)
    x = functional.conv2d(x, weights["output/kernel"], weights["output/bias"])
    return torch.sigmoid(x.float())


def time_steps(
    net: SearchedNetwork, params: Any, z: Any, observed: Any, num_steps: int
) -> Iterator[tuple[float, np.ndarray]]:
    """Time chunks of steps of an endless fit with Adam, input noise and EMA.

    Noise map (1, H, W, I) and observation (H, W, C) are arrays; the network's numerics set dtype
    and precision.

    Yields:
      The seconds of a chunk, and the output (H, W, C) of its first step.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    weights = convert_parameters(net, params, device)
    x, target = (
        torch.from_numpy(np.array(image)).movedim(-1, -3).to(device) for image in (z, observed)
    )
    optimizer = torch.optim.Adam(list(weights.values()), lr=0.01)
    ema = torch.zeros_like(target)
    numerics = net.numerics
    bfloat16, allow_tf32 = numerics.dtype == "bfloat16", numerics.precision != "highest"
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allow_tf32
    for chunk in itertools.count():
        first_output: Any = None
        start = time.perf_counter()
        for step in range(num_steps):
            noisy = x + 0.03 * torch.randn_like(x) if chunk or step else x
            with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
                output = forward(net, weights, noisy)[0]
            first_output = output if first_output is None else first_output
            optimizer.zero_grad()
            functional.mse_loss(output, target).backward()
            optimizer.step()
            ema = 0.99 * ema + 0.01 * output.detach()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        yield seconds, first_output.detach().movedim(0, -1).cpu().numpy()
