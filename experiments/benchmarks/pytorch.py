"""A searched network and the step of its fit in PyTorch, to measure against.

Written with PyTorch's own operations and optimizer, run eagerly as the published code
is; unlike there, what several skips have in common is computed once, as in ours.
Feature maps are NCHW.
"""

import contextlib
import itertools
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from flax import traverse_util
from torch.nn import functional

from isnas_jax.networks import SearchedNetwork
from isnas_jax.networks.cells import in_order
from isnas_jax.networks.genotypes import LEVELS, Cell, decode_cell
from isnas_jax.ops import ACTIVATION_SLOPES

Weights = dict[str, torch.Tensor]


def weights_of(net: SearchedNetwork, params: Any, device: str) -> Weights:
    """Parameters of ours as PyTorch's, "enc1/down/conv/kernel" and so on."""
    cell = decode_cell(net.genotype.cell)
    found = {}
    for path, value in traverse_util.flatten_dict(params, sep="/").items():
        array = np.array(value)
        if path.endswith("kernel"):
            turned = cell.convolution == "transposed" and path.startswith(("up", "skip_up"))
            # OIHW; transposed ones are IOHW, mirrored.
            array = (
                array[::-1, ::-1].transpose(2, 3, 0, 1) if turned else array.transpose(3, 2, 0, 1)
            )
        found[path] = torch.from_numpy(np.ascontiguousarray(array)).to(device).requires_grad_()
    return found


def _block(weights: Weights, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
    kernel = weights[f"{name}/conv/kernel"]
    if kernel.shape[-1] > 1:
        x = functional.pad(x, (1, 1, 1, 1), mode="reflect")
    x = functional.conv2d(x, kernel, weights[f"{name}/conv/bias"], stride)
    return functional.leaky_relu(_normalized(weights, f"{name}/norm", x), 0.2)


def _normalized(weights: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    scale, bias = weights[f"{name}/scale"], weights[f"{name}/bias"]
    return functional.batch_norm(x, None, None, scale, bias, training=True)


def _cell(cell: Cell, weights: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    kernel, bias = weights.get(f"{name}/conv/kernel"), weights.get(f"{name}/conv/bias")

    def resample(x):
        if cell.resample == "pixel_shuffle":
            return functional.pixel_shuffle(x, 2)
        corners = None if cell.resample == "nearest" else False
        return functional.interpolate(x, scale_factor=2, mode=cell.resample, align_corners=corners)

    def convolve(x):
        low = cell.kernel // 2
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

    for step in in_order(cell, resample, convolve):
        x = step(x)
        if cell.activation != "none":
            x = functional.leaky_relu(x, ACTIVATION_SLOPES[cell.activation])
    return x


def forward(net: SearchedNetwork, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    """The network's output (N, O, H, W) for an input (N, I, H, W)."""
    cell, genotype = decode_cell(net.genotype.cell), net.genotype
    sources = [x]
    for level in range(1, LEVELS + 1):
        x = _block(weights, f"enc{level}/down", x, 2)
        x = _block(weights, f"enc{level}/block", x)
        sources.append(x)
    arriving: dict[int, list[torch.Tensor]] = {level: [] for level in range(1, LEVELS + 1)}
    for source, carried in enumerate(sources[:LEVELS]):
        own = source + 1
        targets = [level for level in arriving if genotype.has_skip(level, source)]
        if own in targets:
            arriving[own].append(_block(weights, f"skip{own}", carried))
        down = up = carried
        for level in range(own + 1, max(targets, default=own) + 1):
            down = _block(weights, f"skip_down_{level - 1}_{level}", down, 2)
            if level in targets:
                arriving[level].append(down)
        for level in range(own - 1, min(targets, default=own) - 1, -1):
            up = _cell(cell, weights, f"skip_up_{level + 1}_{level}", up)
            if level in targets:
                arriving[level].append(up)
    for level in range(LEVELS, 0, -1):
        x = sum(arriving[level], _cell(cell, weights, f"up{level}", x))
        x = _normalized(weights, f"dec{level}/norm", x)
        for number in (1, 2, 3):
            x = _block(weights, f"dec{level}/block{number}", x)
    x = functional.conv2d(x, weights["output/kernel"], weights["output/bias"])
    return torch.sigmoid(x.float())


@contextlib.contextmanager
def _computing(device: str, dtype: str, precision: str) -> Iterator[None]:
    """bfloat16 by autocasting; float32 in full unless the precision is the default (TF32)."""
    whole = precision == "highest"
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not whole
    with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
        yield


def steps(
    net: SearchedNetwork, params: Any, z: Any, observed: Any, number: int
) -> Iterator[tuple[float, np.ndarray]]:
    """Endlessly: seconds of that many steps of a fit (Adam, noise on z, exponential mean).

    Args:
      net: The network; its numerics says in how many digits.
      params: Its parameters, of ours.
      z: (1, H, W, I).
      observed: (H, W, C).
      number: How many steps to a time.

    Yields:
      Seconds, and the output (H, W, C) of the first of the steps.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    weights = weights_of(net, params, device)
    x, target = (
        torch.from_numpy(np.array(image)).movedim(-1, -3).to(device) for image in (z, observed)
    )
    optimizer = torch.optim.Adam(list(weights.values()), lr=0.01)
    mean = torch.zeros_like(target)
    numerics = net.numerics
    for chunk in itertools.count():
        first: Any = None
        begun = time.perf_counter()
        for index in range(number):
            noisy = x + 0.03 * torch.randn_like(x) if chunk or index else x
            with _computing(device, numerics.dtype, numerics.precision):
                output = forward(net, weights, noisy)[0]
            first = output if first is None else first
            optimizer.zero_grad()
            functional.mse_loss(output, target).backward()
            optimizer.step()
            mean = 0.99 * mean + 0.01 * output.detach()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begun
        yield seconds, first.detach().movedim(0, -1).cpu().numpy()
