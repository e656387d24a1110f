"""Random keys by name, so that it does not matter what else is drawn, or in what order."""

import functools
import zlib

import jax


def named(key: jax.Array, *names: object) -> jax.Array:
    """The key of something by its names."""
    numbers = (zlib.crc32(str(name).encode()) for name in names)
    return functools.reduce(jax.random.fold_in, numbers, key)
