"""Random keys derived from names, so that they do not depend on other draws or their order."""

import functools
import zlib
from typing import Any

import jax
import jax.numpy as jnp

from isnas_jax.registry import short_repr


def check(key: Any) -> None:
    """Raise ValueError unless the argument is one typed key, such as `jax.random.key(0)`."""
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        suggestion = "jax.random.key(0)"
        if isinstance(key, int):
            suggestion = f"jax.random.key({key})"
        elif getattr(key, "dtype", None) == jnp.uint32:
            suggestion = "jax.random.wrap_key_data(key)"
        raise ValueError(f"{short_repr(key)} is not a random key; give {suggestion}")
    if key.shape:
        raise ValueError(f"key must be one random key, not an array of {key.shape}; give key[0]")


def fold_in_names(key: jax.Array, *names: object) -> jax.Array:
    """Return a key derived from `key` and the checksums of the names, in their order."""
    checksums = (zlib.crc32(str(name).encode()) for name in names)
    return functools.reduce(jax.random.fold_in, checksums, key)
