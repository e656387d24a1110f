"""Describe the inputs of a result as JSON, so that a cached result is found by its inputs.

A cached file stores a description of all inputs that its content depends on, and is used
again only if the current description is equal. For example,

    describe({"key": jax.random.key(0), "image": np.zeros((2, 2)), "metric": mine.metric})

returns, equal in every process and on every machine,

    {"key": "key [0, 0]",
     "image": "float64[2, 2] 66687aadf862bd77",
     "metric": {"": "mine.metric 307fefac5205dcbc", "LIMIT": 3}}

Configs and networks become dicts of their fields. Arrays and long sequences become digests
of their content. Functions and classes are described by name, a digest of their code and
the data they use (see `code`). Together with the `versions`, the description determines the
numbers that are computed.

File names contain only a `digest` of the description. The file stores the whole
description, so that an error can name the `first_difference`: "seed was 0 and is now 1".
"""

import dataclasses
import enum
import functools
import importlib.metadata
import json
import numbers
import pathlib
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from isnas_jax.io import code, records

_LIBRARY_SOURCE = "isnas_jax source"
# Longer sequences are digested.
_MAX_ENTRIES = 16


def versions() -> dict[str, str]:
    """Return the backend, versions and library digest that results are compared by.

    Minor versions of Python are compared, because they compile code to other instructions.
    """
    packages = {name: importlib.metadata.version(name) for name in code.COMPARED}
    return {
        "backend": jax.default_backend(),
        _LIBRARY_SOURCE: code.library_digest(),
        "python": platform.python_version().rpartition(".")[0],
        **packages,
    }


def recorded_versions() -> dict[str, str]:
    """Return further versions that are written down but not compared."""
    packages = {name: importlib.metadata.version(name) for name in code.RECORDED}
    return {"python": platform.python_version(), "system": platform.platform(), **packages}


def describe_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of a result's inputs and the versions, as read back from JSON."""
    return json.loads(json.dumps({**describe(inputs), "versions": versions()}))


def digest(value: Any) -> str:
    """Return 16 hexadecimal digits for bytes or for a description."""
    content = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return records.digest(content)


def describe(value: Any, parent_ids: tuple[int, ...] = ()) -> Any:
    """Return plain JSON values that are equal in all processes for equal content.

    Dataclass fields with the metadata `{"identity": False}` are left out. `parent_ids`, the ids of
    the values around this one, end cycles.

    Raises:
      ValueError: If a value cannot be described; the message names its type.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if np.isfinite(value) else str(value)
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return f"key {np.asarray(jax.random.key_data(value)).ravel().tolist()}"
    if isinstance(value, np.generic):
        return describe(value.item(), parent_ids)
    if isinstance(value, jax.Array | np.ndarray) and value.dtype != object:
        array = np.asarray(value)
        return f"{array.dtype}{list(array.shape)} {digest(array.tobytes())}"
    if id(value) in parent_ids:
        return f"again, {len(parent_ids) - parent_ids.index(id(value))} up"
    describe_part = functools.partial(describe, parent_ids=(*parent_ids, id(value)))
    if (owner := code.owner(value)) is not None:
        function = getattr(value, "__func__", value.__qualname__)
        return {"": describe_part(function), "of": describe_part(owner)}
    if isinstance(value, functools.partial):
        bound = [describe_part(value.args), describe_part(value.keywords)]
        return {"": "partial", "function": describe_part(value.func), "bound": bound}
    if code.is_code(value):
        return code.describe_code(value, describe_part)
    content = _describe_content(value, describe_part)
    if type(value) in (dict, list, tuple) or isinstance(value, pathlib.PurePath):
        return content
    kind = describe_part(type(value))
    return {"": kind, **content} if isinstance(content, dict) else {"": kind, "content": content}


def _describe_content(value: Any, describe_part: Callable[[Any], Any]) -> Any:
    """Describe the entries, fields or attributes of a value, without its type."""
    if isinstance(value, enum.Enum):
        return [value.name, describe_part(value.value)]
    if isinstance(value, numbers.Number | str | bytes | slice | pathlib.PurePath | np.dtype):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): describe_part(entry) for name, entry in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(json.dumps, map(describe_part, value)))
    if isinstance(value, Sequence | np.ndarray):
        entries = [describe_part(entry) for entry in value]
        if len(entries) <= _MAX_ENTRIES:
            return entries
        return f"{len(entries)} entries, {digest(entries)}"
    if dataclasses.is_dataclass(value):
        # The parent and name of a Flax module are its position, not its content.
        position = ("parent", "name") if isinstance(value, nn.Module) else ()
        fields = [f for f in dataclasses.fields(value) if f.metadata.get("identity", True)]
        return {
            f.name: describe_part(getattr(value, f.name)) for f in fields if f.name not in position
        }
    if hasattr(value, "__dict__"):
        return {name: describe_part(entry) for name, entry in vars(value).items()}
    raise ValueError(
        f"inputs of type {type(value).__name__} cannot be described for the cache: {value!r:.60}"
    )


def first_difference(before: Any, now: Any, name: str = "") -> str | None:
    """Return the first difference of two descriptions as text, or None if they are equal.

    An entry that is None equals a missing one, so that new settings may default to None.
    """
    if isinstance(before, list) and isinstance(now, list):
        if len(before) != len(now):
            return f"{name} had {len(before)} entries and now has {len(now)}"
        before, now = dict(enumerate(before)), dict(enumerate(now))
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for entry in dict.fromkeys([*now, *before]):
            inner_name = f"{name}.{entry}" if name and entry != "" else name or str(entry)
            if difference := first_difference(before.get(entry), now.get(entry), inner_name):
                return difference
        return None
    if before == now:
        return None
    reason = ", because the library's code changed" if name.endswith(_LIBRARY_SOURCE) else ""
    return f"{name} was {before!r:.120} and is now {now!r:.120}{reason}"
