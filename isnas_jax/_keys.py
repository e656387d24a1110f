"""Random keys by name, so that it does not matter what else is drawn, or in what order."""

import functools
import zlib
from typing import Any

import jax
import jax.numpy as jnp

from isnas_jax.registry import shown


def check(key: Any) -> None:
    """ValueError with the remedy unless it is one random key, as `jax.random.key` makes it."""
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        remedy = "jax.random.key(0)"
        if isinstance(key, int):
            remedy = f"jax.random.key({key})"
        elif getattr(key, "dtype", None) == jnp.uint32:
            remedy = "jax.random.wrap_key_data(key)"
        raise ValueError(f"{shown(key)} is no random key; give {remedy}")
    if key.shape:
        raise ValueError(f"one random key is needed, not an array of {key.shape}; give key[0]")


def named(key: jax.Array, *names: object) -> jax.Array:
    """The key of something by its names."""
    numbers = (zlib.crc32(str(name).encode()) for name in names)
    return functools.reduce(jax.random.fold_in, numbers, key)
