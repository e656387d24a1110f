"""What a result depends on, in words and as a digest, so that it is found again only for the same.

`describe` turns settings, arrays, keys, networks and functions into plain JSON
values; equal descriptions mean equal numbers. Arrays and long lists become
digests of their content. A function or class from outside of the packages in
`VERSIONED` is described by the source of its module, and by the functions,
classes and values that it takes from other modules of the user's own.
"""

import contextlib
import dataclasses
import enum
import functools
import hashlib
import importlib.metadata
import inspect
import json
import pathlib
import platform
import sys
import sysconfig
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
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
    """A value as JSON: equal for equal content, whatever process or machine it is in.

    A field of a dataclass whose metadata say `{"identity": False}` is left out.

    Raises:
      ValueError: For something that cannot be described, naming its type.
    """
    return _describe(value, ())


def _describe(value: Any, inside: tuple[int, ...]) -> Any:
    """Of a value inside of others, given by their ids, so that a cycle ends."""
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if np.isfinite(value) else str(value)
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return f"key {np.asarray(jax.random.key_data(value)).ravel().tolist()}"
    if isinstance(value, np.generic):
        return _describe(value.item(), inside)
    if isinstance(value, jax.Array | np.ndarray) and value.dtype != object:
        array = np.asarray(value)
        return f"{array.dtype}{list(array.shape)} {digest(array.tobytes())}"
    if id(value) in inside:
        return f"again, {len(inside) - inside.index(id(value))} up"
    within = functools.partial(_describe, inside=(*inside, id(value)))
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | type):
        return _named(value, within)
    if isinstance(value, types.MethodType):
        return {"": _named(value.__func__, within), "of": within(value.__self__)}
    if isinstance(value, functools.partial):
        bound = [within(value.args), within(value.keywords)]
        return {"": "partial", "function": within(value.func), "bound": bound}
    if hasattr(value, "__wrapped__"):  # jitted functions and their like
        return within(value.__wrapped__)
    content = _content(value, within)
    if type(value) in (dict, list, tuple) or isinstance(value, pathlib.PurePath):
        return content
    named = _named(type(value), within)
    return {"": named, **content} if isinstance(content, dict) else {"": named, "content": content}


def _content(value: Any, within: Callable[[Any], Any]) -> Any:
    """What a container, a dataclass or another object holds."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, bool | int | float | complex | str | pathlib.PurePath | np.dtype):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): within(entry) for name, entry in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(json.dumps, map(within, value)))
    if isinstance(value, Sequence | np.ndarray):
        parts = [within(entry) for entry in value]
        return parts if len(parts) <= _LONGEST else f"{len(parts)} entries, {digest(parts)}"
    if dataclasses.is_dataclass(value):
        # A Flax module's parent and name say where it is, not what.
        apart = ("parent", "name") if isinstance(value, nn.Module) else ()
        fields = [f for f in dataclasses.fields(value) if f.metadata.get("identity", True)]
        return {f.name: within(getattr(value, f.name)) for f in fields if f.name not in apart}
    if hasattr(value, "__dict__"):
        return {name: within(entry) for name, entry in vars(value).items()}
    raise ValueError(f"what depends on a {type(value).__name__} cannot be kept: {value!r:.60}")


def _named(thing: Any, within: Callable[[Any], Any]) -> Any:
    """A function or class by its name, what it carries and, if an extension's, its source."""
    # In a process that another started, the script's module has another name.
    module = "__main__" if thing.__module__ == "__mp_main__" else thing.__module__
    name = f"{module}.{thing.__qualname__}"
    ours = (thing.__module__ or "builtins").split(".")[0] in (*VERSIONED, "builtins")
    if not ours:
        name += f" {digest(_source(thing).encode())}"
    if not isinstance(thing, types.FunctionType):
        return name
    carried: dict[str, Any] = {"defaults": [thing.__defaults__, thing.__kwdefaults__]}
    with contextlib.suppress(ValueError):  # a variable that has no value yet
        variables = inspect.getclosurevars(thing)
        carried["nonlocals"] = dict(variables.nonlocals)
        if not ours:
            carried["globals"] = {n: g for n, g in variables.globals.items() if _is_users(g)}
    carried = {what: found for what, found in carried.items() if found not in ([None, None], {})}
    return [name, within(carried)] if carried else name


def _is_users(thing: Any) -> bool:
    """Whether a global that an extension uses is its own: no installed package's."""
    if isinstance(thing, types.ModuleType):
        return False
    if isinstance(thing, jax.Array | np.ndarray):
        return True
    module = sys.modules.get(getattr(thing, "__module__", None) or type(thing).__module__)
    file = getattr(module, "__file__", None)
    if file is None:
        return module is None or module.__name__ in ("__main__", "builtins")
    paths = sysconfig.get_paths()
    return not file.startswith(tuple(paths[name] for name in ("stdlib", "purelib", "platlib")))


def _source(thing: Any) -> str:
    """The text of the module something is defined in; of itself alone in a notebook."""
    module = sys.modules.get(thing.__module__)
    scripts = ("__main__", "__mp_main__")
    for place in (module if thing.__module__ not in scripts else None, thing):
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
    if isinstance(before, list) and isinstance(now, list):
        if len(before) != len(now):
            return f"{name} was of {len(before)} entries and is now of {len(now)}"
        before, now = dict(enumerate(before)), dict(enumerate(now))
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for entry in dict.fromkeys([*now, *before]):
            inner = f"{name}.{entry}" if name and entry != "" else name or str(entry)
            if found := difference(before.get(entry), now.get(entry), inner):
                return found
        return None
    if before == now:
        return None
    return f"{name} was {before!r:.120} and is now {now!r:.120}"
