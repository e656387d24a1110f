"""What is known of an image: the observation and the operator it came through.

Images are float32 (H, W, C) in [0, 1]. Every task fits a network to an
observation x0 by the mean of (A(f(z)) - x0)**2; tasks differ only by their
operator A. `TASKS` holds the three of the paper; add your own.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

FACTORS = (2, 4, 8)

# Takes pixels (h, w, c), of an observation or a mask, to fewer of them.
Cut: TypeAlias = Callable[[jax.Array], jax.Array]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("observed", "operator"), meta_fields=("shape",)
)
@dataclasses.dataclass(frozen=True)
class Problem:
    """One image to restore: a pytree, so it can be passed through jit and vmap.

    Attributes:
      observed: The corrupted image, (h, w, C) float32.
      operator: A, from an image (H, W, C) to (h, w, C); a pytree itself, for
        which `jax.tree_util.Partial(function, *arrays)` serves.
      shape: (H, W, C) of the image to restore.
    """

    observed: jax.Array
    operator: Callable[[jax.Array], jax.Array]
    shape: tuple[int, int, int]


def _identity(image: jax.Array) -> jax.Array:
    return image


def _mask(mask: jax.Array, image: jax.Array) -> jax.Array:
    return mask * image


def _downsample(rows: jax.Array, columns: jax.Array, image: jax.Array) -> jax.Array:
    return jnp.einsum("hH,HWC,wW->hwC", rows, image, columns)


def _checked(observed: Any) -> jax.Array:
    observed = jnp.asarray(observed, jnp.float32)
    if observed.ndim != 3 or observed.shape[-1] not in (1, 3):
        raise ValueError(f"an image is (H, W, 1) or (H, W, 3), not {observed.shape}")
    if not bool(jnp.isfinite(observed).all()):
        raise ValueError("the image holds values that are not finite")
    return observed


def denoising(observed: Any) -> Problem:
    """A noisy image (H, W, C): the operator is the identity."""
    observed = _checked(observed)
    return Problem(observed, Partial(_identity), observed.shape)


def inpainting(observed: Any, mask: Any) -> Problem:
    """An image (H, W, C) with missing pixels.

    Args:
      observed: The image; what the missing pixels hold is never looked at.
      mask: (H, W), (H, W, 1) or (H, W, C): 1 where a value is known, else 0.
    """
    observed = _checked(observed)
    mask = jnp.asarray(mask, jnp.float32)
    mask = mask[..., None] if mask.ndim == 2 else mask
    if mask.shape not in (observed.shape, (*observed.shape[:2], 1)):
        raise ValueError(f"a mask of shape {mask.shape} for an image of shape {observed.shape}")
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError("a mask holds only 0 (missing) and 1 (known)")
    if not bool(mask.any()):
        raise ValueError("the mask leaves no pixel known")
    return Problem(mask * observed, Partial(_mask, mask), observed.shape)


def lanczos2(x: np.ndarray) -> np.ndarray:
    """Lanczos window of order 2, sinc(x) sinc(x / 2), 0 beyond |x| = 2."""
    return np.where(np.abs(x) < 2, np.sinc(x) * np.sinc(x / 2), 0.0)


def downsampling_matrix(size: int, factor: int) -> np.ndarray:
    """(size / factor, size) float32: Lanczos-2 along one axis, edges repeated.

    Output pixel i sits at the centre of inputs factor i to factor (i + 1) - 1
    and weighs 4 factor of them; weights add up to 1.
    """
    taps = np.arange(4 * factor)
    weights = lanczos2((taps + 0.5) / factor - 2)
    columns = taps - 3 * factor // 2 + factor * np.arange(size // factor)[:, None]
    matrix = np.zeros((size // factor, size))
    np.add.at(
        matrix,
        (np.arange(size // factor)[:, None], np.clip(columns, 0, size - 1)),
        weights / weights.sum(),
    )
    return matrix.astype(np.float32)


def super_resolution(observed: Any, factor: int) -> Problem:
    """A small image (h, w, C) to enlarge 2, 4 or 8 times; the operator is Lanczos-2."""
    if factor not in FACTORS:
        raise ValueError(f"factor {factor} is not supported; choose from {FACTORS}")
    observed = _checked(observed)
    height, width = observed.shape[0] * factor, observed.shape[1] * factor
    rows, columns = (jnp.asarray(downsampling_matrix(side, factor)) for side in (height, width))
    shape = (height, width, observed.shape[2])
    return Problem(observed, Partial(_downsample, rows, columns), shape)


def _add_noise(key: jax.Array, truth: jax.Array, *, sigma: float) -> Problem:
    if not 0 <= sigma <= 255:
        raise ValueError(f"sigma {sigma:g} is outside of 0 to 255 grey levels")
    noise = sigma / 255 * jax.random.normal(key, truth.shape)
    return denoising(jnp.clip(truth + noise, 0, 1))


def _remove_pixels(
    key: jax.Array, truth: jax.Array, *, missing: float = 50.0, mask: Any = None
) -> Problem:
    if mask is None:
        if not 0 < missing < 100:
            raise ValueError(f"missing {missing:g} is outside of 0 to 100 percent, both excluded")
        mask = jax.random.bernoulli(key, 1 - missing / 100, truth.shape[:2])
    return inpainting(truth, mask)


def _downscale(key: jax.Array, truth: jax.Array, *, factor: int) -> Problem:
    del key
    if factor not in FACTORS:
        raise ValueError(f"factor {factor} is not supported; choose from {FACTORS}")
    if truth.shape[0] % factor or truth.shape[1] % factor:
        raise ValueError(
            f"an image of {truth.shape[0]} x {truth.shape[1]} cannot be shrunk by {factor}"
        )
    small = jnp.zeros((truth.shape[0] // factor, truth.shape[1] // factor, truth.shape[2]))
    problem = super_resolution(small, factor)
    return dataclasses.replace(problem, observed=jnp.clip(problem.operator(truth), 0, 1))


def _whole(problem: Problem, cut: Cut) -> Problem:
    return denoising(cut(problem.observed))


def _masked(problem: Problem, cut: Cut) -> Problem:
    (mask,) = problem.operator.args  # type: ignore[attr-defined]
    return inpainting(cut(problem.observed), cut(mask))


def _small(problem: Problem, cut: Cut) -> Problem:
    return super_resolution(cut(problem.observed), problem.shape[0] // problem.observed.shape[0])


@dataclasses.dataclass(frozen=True)
class Task:
    """A kind of restoration problem.

    Attributes:
      pose: The problem of an image as the user has it: (observed, **options).
      corrupt: The problem of a clean image, corrupted here: (key, truth,
        **options); the only place where a clean image enters.
      shrink: The same kind of problem of a part of the observation: (problem,
        cut), where cut takes pixels (h, w, c) to fewer pixels without
        blending any. None if there is no such problem.
      iterations: The published number of iterations.
    """

    pose: Callable[..., Problem]
    corrupt: Callable[..., Problem]
    shrink: Callable[[Problem, Cut], Problem] | None = None
    iterations: int = 1200


TASKS: dict[str, Task] = {
    "denoising": Task(denoising, _add_noise, _whole, 1200),
    "inpainting": Task(inpainting, _remove_pixels, _masked, 9500),
    "super_resolution": Task(super_resolution, _downscale, _small, 4500),
}


def find(name: str) -> Task:
    """The task of this name; ValueError with the valid names."""
    if name not in TASKS:
        raise ValueError(f"task {name!r} does not exist; choose from {', '.join(TASKS)}")
    return TASKS[name]


def centre(size: int) -> Cut:
    """Cuts out the centre, at most size pixels a side: noise and mask stay as they are."""

    def cut(pixels):
        top, left = (max(side - size, 0) // 2 for side in pixels.shape[:2])
        return pixels[top : top + size, left : left + size]

    return cut


def decimate(size: int) -> Cut:
    """Takes evenly spaced rows and columns so that the shorter side is size pixels."""

    def cut(pixels):
        scale = max(min(pixels.shape[:2]) / size, 1.0)
        rows, columns = (
            ((np.arange(round(side / scale)) + 0.5) * scale).astype(int).clip(max=side - 1)
            for side in pixels.shape[:2]
        )
        return pixels[rows][:, columns]

    return cut


def antialias(size: int) -> Cut:
    """Resizes with antialiasing, shorter side size pixels: this averages noise away."""

    def cut(pixels):
        scale = max(min(pixels.shape[:2]) / size, 1.0)
        height, width = (round(side / scale) for side in pixels.shape[:2])
        return jax.image.resize(pixels, (height, width, pixels.shape[2]), "lanczos3").clip(0, 1)

    return cut


def _full(size: int) -> Cut:
    del size
    return lambda pixels: pixels


# Smaller stand-ins for an observation, each from a side in pixels to a cut.
PROXIES: dict[str, Callable[[int], Cut]] = {
    "full": _full,
    "crop": centre,
    "decimate": decimate,
    "resize": antialias,
}


def proxy(problem: Problem, task: str, kind: str, size: int) -> Problem:
    """A smaller problem of the same task, made from the observation alone.

    Args:
      problem: The whole problem.
      task: Its name in `TASKS`.
      kind: "full" is the problem itself; "crop" keeps noise and mask as they
        are; "decimate" drops rows and columns; "resize" averages as the
        published code does, which also averages the noise away and is not
        possible with a mask.
      size: Side of the stand-in, in pixels of the observation.
    """
    shrink = find(task).shrink
    if kind not in PROXIES:
        raise ValueError(f"proxy {kind!r} does not exist; choose from {', '.join(PROXIES)}")
    if size < 16:
        raise ValueError(f"a proxy of {size} pixels is too small; the smallest side is 16")
    if kind == "full":
        return problem
    if shrink is None:
        raise ValueError(f"task {task!r} has no proxy besides 'full'")
    return shrink(problem, PROXIES[kind](size))
