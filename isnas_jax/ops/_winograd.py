"""Correlation by Winograd's minimal filtering: 4 x 4 outputs from few products.

A tile of n x n inputs, n = k + 3, gives 4 x 4 outputs of a k x k correlation.
Tiles and kernel are taken to values at n points of the polynomial plane, where
correlating is multiplying, and the products back (Lavin and Gray, CVPR 2016):
n^2 / 16 products an output instead of k^2, all in n^2 matrix products.
Gradients are the adjoints of the same steps. Arrays are float32, NHWC; kernels
HWIO.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

TILE = 4

# The transforms magnify what fewer bits would lose.
_FULL = lax.Precision.HIGHEST

# Besides 0 and infinity, in pairs +-p: chosen for the smallest rounding error,
# by a random search over the norms of the transforms. Relative to the output's
# spread it is (128 channels, root mean square) 9e-7, 3e-6 and 2e-5.
_POINTS = {
    3: (0.5**0.5, 2**0.5),
    5: (0.5, 1.0, 2.0),
    7: (0.416, 0.8, 1.25, 2.404),
}
SIZES = tuple(_POINTS)


@functools.cache
def _transforms(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrices from k^2 taps to n^2 values, n^2 pixels to n^2 values and those to 16 outputs."""
    points = np.array([0.0, *(sign * p for p in _POINTS[size] for sign in (1, -1))])

    def values(degree):
        return np.vstack([points[:, None] ** np.arange(degree), np.eye(degree)[-1]])

    taps, outputs = values(size), values(TILE).T
    pixels = np.linalg.inv(values(size + TILE - 1)).T
    taps, pixels, outputs = (
        np.kron(matrix, matrix).astype(np.float32) for matrix in (taps, pixels, outputs)
    )
    return taps, pixels, outputs


def _apply(matrix: np.ndarray, values: jax.Array) -> jax.Array:
    """The matrix times the first axis of the values."""
    product = jnp.matmul(matrix, values.reshape(len(values), -1), precision=_FULL)
    return product.reshape(len(matrix), *values.shape[1:])


def _tile_count(outputs: int) -> int:
    return -(-outputs // TILE)


def _pixel_values(x: jax.Array, size: int) -> jax.Array:
    """The transformed tiles of the input: (n^2, tiles, C)."""
    n = size + TILE - 1
    down, across = (_tile_count(side - size + 1) for side in x.shape[1:3])
    groups = -(-n // TILE)
    bottom, right = (
        (count + groups - 1) * TILE - side
        for count, side in zip((down, across), x.shape[1:3], strict=True)
    )
    x = jnp.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0)))
    blocks = x.reshape(x.shape[0], down + groups - 1, TILE, across + groups - 1, TILE, -1)
    tiles = jnp.concatenate(
        [blocks[:, g : g + down, : n - TILE * g] for g in range(groups)], axis=2
    )
    tiles = jnp.concatenate(
        [tiles[:, :, :, g : g + across, : n - TILE * g] for g in range(groups)], axis=4
    )
    tiles = tiles.transpose(2, 4, 0, 1, 3, 5)
    return _apply(_transforms(size)[1], tiles.reshape(n * n, -1, x.shape[-1]))


def _kernel_values(kernel: jax.Array) -> jax.Array:
    """The transformed kernel: (n^2, I, O)."""
    size = kernel.shape[0]
    return _apply(_transforms(size)[0], kernel.reshape(size**2, *kernel.shape[2:]))


def _join(tiles: jax.Array) -> jax.Array:
    """(4, 4, N, h, w, C) to (N, 4 h, 4 w, C)."""
    _, _, batch, down, across, channels = tiles.shape
    return tiles.transpose(2, 3, 0, 4, 1, 5).reshape(batch, TILE * down, TILE * across, channels)


@jax.custom_vjp
def correlate(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Cross-correlation of stride 1 without padding, for kernels of the sides `SIZES`."""
    return _forward(x, kernel)[0]


def _forward(x, kernel):
    size = kernel.shape[0]
    height, width = (side - size + 1 for side in x.shape[1:3])
    down, across = _tile_count(height), _tile_count(width)
    pixels, taps = _pixel_values(x, size), _kernel_values(kernel)
    products = jnp.einsum("kti,kio->kto", pixels, taps, precision=_FULL)
    outputs = _apply(_transforms(size)[2], products)
    y = _join(outputs.reshape(TILE, TILE, x.shape[0], down, across, -1))
    return y[:, :height, :width], (pixels, taps)


def _backward(residuals, cotangent):
    pixels, taps = residuals
    n = round(len(pixels) ** 0.5)
    size = n - TILE + 1
    to_taps, to_pixels, to_outputs = _transforms(size)
    batch, height, width, channels = cotangent.shape
    down, across = _tile_count(height), _tile_count(width)
    missing = ((0, 0), (0, TILE * down - height), (0, TILE * across - width), (0, 0))
    tiles = jnp.pad(cotangent, missing).reshape(batch, down, TILE, across, TILE, channels)
    tiles = tiles.transpose(2, 4, 0, 1, 3, 5).reshape(TILE**2, -1, channels)
    products = _apply(to_outputs.T, tiles)
    kernel = _apply(to_taps.T, jnp.einsum("kti,kto->kio", pixels, products, precision=_FULL))
    values = _apply(to_pixels.T, jnp.einsum("kto,kio->kti", products, taps, precision=_FULL))
    x = _overlap_add(values.reshape(n, n, batch, down, across, -1))
    return x[:, : height + size - 1, : width + size - 1], kernel.reshape(
        size, size, *kernel.shape[1:]
    )


correlate.defvjp(_forward, _backward)


def _overlap_add(tiles: jax.Array) -> jax.Array:
    """Adds up tiles (n, n, N, h, w, C) where they lie, 4 pixels apart."""
    n = tiles.shape[0]
    groups = -(-n // TILE)
    edge = (0, groups * TILE - n)
    tiles = jnp.pad(tiles, (edge, edge, (0, 0), (0, 0), (0, 0), (0, 0)))

    def placed(i, j):
        part = tiles[TILE * i : TILE * (i + 1), TILE * j : TILE * (j + 1)]
        shift = ((i, groups - 1 - i), (j, groups - 1 - j))
        return jnp.pad(part, ((0, 0), (0, 0), (0, 0), *shift, (0, 0)))

    shifted = [placed(i, j) for i in range(groups) for j in range(groups)]
    return _join(functools.reduce(jnp.add, shifted))
