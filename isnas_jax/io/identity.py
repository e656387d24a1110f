"""What a result depends on, in words and as a digest, so that it is found again only for the same.

`describe` turns settings, arrays, keys, networks and functions into plain JSON
values; equal descriptions mean equal numbers. Arrays and long lists become
digests of their content. What comes from outside of the packages in `VERSIONED`
is described by its source as well as its name.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import inspect
import json
import pathlib
import platform
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

# The packages whose versions can change numbers; others are only recorded.
VERSIONED = ("isnas_jax", "jax", "jaxlib", "optax", "flax")
_RECORDED = ("numpy", "scipy", "pillow")
_LONGEST = 16


def versions() -> dict[str, str]:
    """What, beside settings and seed, a result's numbers depend on: it is compared."""
    found = {name: importlib.metadata.version(name) for name in VERSIONED}
    return {"backend": jax.default_backend(), **found}


def surroundings() -> dict[str, str]:
    """Other versions, for the record only."""
    found = {name: importlib.metadata.version(name) for name in _RECORDED}
    return {"python": platform.python_version(), "system": platform.platform(), **found}


def of(what: Mapping[str, Any]) -> dict[str, Any]:
    """What something depends on, described, with the versions: as a JSON file gives it back."""
    return json.loads(json.dumps({**describe(what), "versions": versions()}))


def digest(value: Any) -> str:
    """Hexadecimal digest of bytes, or of a description."""
    content = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def describe(value: Any) -> Any:
    """A value as JSON: equal for equal content, whatever process or machine it is in."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    if isinstance(value, pathlib.PurePath):
        return str(value)
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return f"key {np.asarray(jax.random.key_data(value)).ravel().tolist()}"
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        array = np.asarray(value)
        return f"{array.dtype}{list(array.shape)} {digest(array.tobytes())}"
    if isinstance(value, Mapping):
        return {str(name): describe(entry) for name, entry in value.items()}
    if isinstance(value, Sequence):
        parts = [describe(entry) for entry in value]
        if len(parts) > _LONGEST:
            return f"{len(parts)} entries, {digest(parts)}"
        return parts
    if isinstance(value, functools.partial):
        bound = [describe(value.args), describe(value.keywords)]
        return {"": "partial", "function": describe(value.func), "bound": bound}
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | type):
        return _named(value)
    if hasattr(value, "__wrapped__"):  # jitted functions and their like
        return describe(value.__wrapped__)
    if dataclasses.is_dataclass(value):
        # Flax modules have a parent and a name, which say where they are, not what.
        fields = [f.name for f in dataclasses.fields(value) if f.name not in ("parent", "name")]
        inside = {name: describe(getattr(value, name)) for name in fields}
    else:
        inside = {name: describe(entry) for name, entry in vars(value).items()}
    return {"": _named(type(value)), **inside}


def _named(thing: Any) -> Any:
    """A function or class by its name and, if it is an extension's, its source."""
    name = f"{thing.__module__}.{thing.__qualname__}"
    if thing.__module__ and thing.__module__.split(".")[0] in VERSIONED:
        return name
    described = f"{name} {digest(_source(thing).encode())}"
    cells = inspect.getclosurevars(thing).nonlocals if inspect.isfunction(thing) else None
    return [described, describe(cells)] if cells else described


def _source(thing: Any) -> str:
    """The text of the module something is defined in; of itself alone in a notebook."""
    module = sys.modules.get(thing.__module__)
    for place in (module if thing.__module__ != "__main__" else None, thing):
        try:
            return inspect.getsource(place)  # type: ignore[arg-type]
        except (OSError, TypeError):
            continue
    return _bytecode(thing)


def _bytecode(thing: Any) -> str:
    """Stands in for source where there is none."""
    if isinstance(thing, type):
        return "".join(_bytecode(part) for part in vars(thing).values() if inspect.isfunction(part))
    code = getattr(thing, "__code__", thing)
    if not isinstance(code, types.CodeType):
        return repr(thing) if isinstance(thing, str | int | float | tuple) else type(thing).__name__
    return code.co_code.hex() + repr(code.co_names) + "".join(map(_bytecode, code.co_consts))


def difference(before: Any, now: Any, name: str = "") -> str | None:
    """The first difference of two descriptions in words, or None."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for entry in dict.fromkeys([*now, *before]):
            inner = f"{name}.{entry}" if name and entry else name or entry
            if found := difference(before.get(entry), now.get(entry), inner):
                return found
        return None
    if before == now:
        return None
    return f"{name} was {before!r} and is now {now!r}"
