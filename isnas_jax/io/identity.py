"""What a result depends on, in words and as a digest, so that it is found again only for the same.

`describe` turns settings, arrays, keys, networks and functions into plain JSON
values; equal descriptions mean equal numbers. Arrays and long lists become
digests of their content. A user's function or class is described by the source
of its module and of all the user's modules that it imports (see `source`), and by
the data in the globals, closures and defaults that it uses. In a notebook, and in
the script that is run, its compiled code stands for the source.
"""

import contextlib
import dataclasses
import enum
import functools
import importlib.metadata
import inspect
import json
import numbers
import pathlib
import platform
import types
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from isnas_jax.io import source

# Packages whose versions are compared, and those whose versions are only recorded.
_COMPARED = ("jax", "jaxlib", "optax", "flax")
_RECORDED = ("isnas_jax", "numpy", "scipy", "pillow")
_SOURCE = "isnas_jax source"
_LONGEST = 16
# Types of globals that are data, whichever package defines them.
_DATA: tuple[type, ...] = (numbers.Number, np.ndarray, np.generic, jax.Array, slice)
_DATA += (Mapping, Sequence, Set, functools.partial, pathlib.PurePath, types.SimpleNamespace)
# Methods that a dataclass generates from its fields.
_GENERATED = ("__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__")
_USERS = ("own", "no file")
_CODE = types.FunctionType | types.BuiltinFunctionType | types.ModuleType | type


def versions() -> dict[str, str]:
    """Return what is compared in addition to settings and seed."""
    found = {name: importlib.metadata.version(name) for name in _COMPARED}
    return {"backend": jax.default_backend(), _SOURCE: source.library(), **found}


def worker_environment() -> dict[str, str]:
    """Other versions, for the record only."""
    found = {name: importlib.metadata.version(name) for name in _RECORDED}
    return {"python": platform.python_version(), "system": platform.platform(), **found}


def of(what: Mapping[str, Any]) -> dict[str, Any]:
    """What something depends on, described, with the versions: as a JSON file gives it back."""
    return json.loads(json.dumps({**describe(what), "versions": versions()}))


def digest(value: Any) -> str:
    """Hexadecimal digest of bytes, or of a description."""
    content = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return source.digest(content)


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
    if isinstance(value, types.MethodType):
        return {"": within(value.__func__), "of": within(value.__self__)}
    if isinstance(value, types.BuiltinFunctionType) and _is_bound(value):
        return {"": value.__qualname__, "of": within(value.__self__)}
    if isinstance(value, _CODE) or _is_wrapper(value):
        return _code(value, within)
    if isinstance(value, functools.partial):
        bound = [within(value.args), within(value.keywords)]
        return {"": "partial", "function": within(value.func), "bound": bound}
    content = _content(value, within)
    if type(value) in (dict, list, tuple) or isinstance(value, pathlib.PurePath):
        return content
    named = _code(type(value), within)
    return {"": named, **content} if isinstance(content, dict) else {"": named, "content": content}


def _content(value: Any, within: Callable[[Any], Any]) -> Any:
    """What a container, a dataclass or another object holds."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, numbers.Number | str | bytes | slice | pathlib.PurePath | np.dtype):
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


def _code(thing: Any, within: Callable[[Any], Any]) -> Any:
    """Describe a function, class or module by its name, a digest of its code and its data.

    The functions, classes and modules that it uses are followed, each once.
    The library's code has no digest here: `versions` compares it.
    """
    data: dict[str, Any] = {}
    compiled: dict[str, Any] = {}
    modules = [_module(thing)] if _home(thing) == "installed" else []
    todo, seen = [("", thing)], {id(thing)}
    while todo:
        path, value = todo.pop(0)
        home, module = _home(value), _module(value)
        if home == "own":
            modules.append(module)
        elif home == "no file" and isinstance(value, types.FunctionType):
            package = str(value.__globals__.get("__package__") or "")
            compiled[path], imported = source.code(value.__code__, package)
            modules += [name for name in imported if source.kind(name) == "own"]
        for name, part in _parts(value, home):
            inner = f"{path}.{name}" if path else name
            if not isinstance(part, _CODE) and not _is_wrapper(part):
                data[inner] = within(part)
            elif id(part) not in seen:
                seen.add(id(part))
                todo.append((inner, part))
    described = _name(thing)
    if modules or compiled:
        described += f" {digest([source.modules(modules), compiled])}"
    return {"": described, **data} if data else described


def _name(thing: Any) -> str:
    if isinstance(thing, types.ModuleType):
        return _module(thing)
    name = getattr(thing, "__qualname__", type(thing).__qualname__)
    installed = f" {source.release(_module(thing))}" if _home(thing) == "installed" else ""
    # In a process that another started, the script's module has another name.
    return f"{thing.__module__}.{name}{installed}".replace("__mp_main__", "__main__", 1)


def _module(thing: Any) -> str:
    """Return the name of the module that holds the code, such as a decorator's."""
    if isinstance(thing, types.FunctionType):
        return str(thing.__globals__.get("__name__"))
    name = "__name__" if isinstance(thing, types.ModuleType) else "__module__"
    return str(getattr(thing, name, None) or "builtins")


def _home(thing: Any) -> source.Kind:
    """Classify a function, class or module; a compiled wrapper has no code of its own."""
    if not isinstance(thing, _CODE):
        return "python"
    if _module(thing) == "builtins" and isinstance(thing, type):
        # A user's class in a namespace without a name: only such classes are heap types.
        return "no file" if thing.__flags__ & 1 << 9 else "python"
    return source.kind(_module(thing))


def _is_wrapper(value: Any) -> bool:
    """Return whether a value is a compiled wrapper, such as a jitted or cached function."""
    return hasattr(value, "__wrapped__") and _home(type(value)) not in _USERS


def _is_bound(function: types.BuiltinFunctionType) -> bool:
    return not isinstance(function.__self__, types.ModuleType | types.NoneType)


def _parts(thing: Any, home: source.Kind) -> Iterator[tuple[str, Any]]:
    """Yield the code and data that a function, class or wrapper uses, by name."""
    if isinstance(thing, types.FunctionType):
        yield from _variables(thing, home)
    elif isinstance(thing, type):
        if home in _USERS:
            yield from _members(thing, home)
    elif not isinstance(thing, _CODE):
        yield "wrapped", thing.__wrapped__
        for name, value in getattr(thing, "__dict__", {}).items():
            # The custom derivatives of a function, for example.
            if isinstance(value, types.FunctionType) and _counts(value):
                yield name, value


def _variables(function: types.FunctionType, home: source.Kind) -> Iterator[tuple[str, Any]]:
    """Yield a function's closure and defaults and, for a user's function, its globals."""
    code = function.__code__
    names = sorted(set(source.names_in(code)))
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # a variable that has no value yet
            yield from _used({name: cell.cell_contents}, [name], names, ())
    defaults = function.__defaults__ or ()
    arguments = code.co_varnames[: code.co_argcount]
    yield from zip(arguments[len(arguments) - len(defaults) :], defaults, strict=True)
    yield from (function.__kwdefaults__ or {}).items()
    if home in _USERS:
        for name, value in _used(function.__globals__, names, names, ()):
            if _counts(value):
                yield name, value


def _used(
    space: Mapping[str, Any], names: Sequence[str], attributes: Sequence[str], above: tuple
) -> Iterator[tuple[str, Any]]:
    """Yield named entries of a namespace, and the attributes of a user's modules among them."""
    for name in names:
        if name not in space:
            continue
        value = space[name]
        yield name, value
        if isinstance(value, types.ModuleType) and _home(value) in _USERS and value not in above:
            for inner, part in _used(vars(value), attributes, attributes, (*above, value)):
                if _counts(part):
                    yield f"{name}.{inner}", part


def _members(thing: type, home: source.Kind) -> Iterator[tuple[str, Any]]:
    """Yield the bases and methods of a user's class and, without a file, its class attributes."""
    for base in thing.__bases__:
        if _home(base) in _USERS:
            yield f"{base.__name__}", base
    for name, entry in sorted(vars(thing).items()):
        if dataclasses.is_dataclass(thing) and name in _GENERATED:
            continue
        # Unwrap static methods, class methods, properties and cached properties.
        inner = [getattr(entry, at, None) for at in ("__func__", "fget", "func")]
        function = next((part for part in inner if part is not None), entry)
        if isinstance(function, types.FunctionType):
            if home == "no file" or _home(function) != "no file":
                yield name if function is entry else f"{name} {type(entry).__name__}", function
        elif home == "no file" and not name.startswith("__") and _counts(entry):
            yield name, entry


def _counts(value: Any) -> bool:
    """Return whether a global is data or the user's code, not an installed package's."""
    if isinstance(value, types.MethodType):
        return _counts(value.__self__)
    if isinstance(value, types.BuiltinFunctionType):
        return _is_bound(value) and isinstance(value.__self__, _DATA)
    if isinstance(value, types.FunctionType) and value.__closure__ and _home(value) == "library":
        return True
    if isinstance(value, _CODE):
        return _home(value) in _USERS
    if _is_wrapper(value):
        return _counts(inspect.unwrap(value))
    if isinstance(value, _DATA) or dataclasses.is_dataclass(value):
        return True
    return type(value) is not object and _home(type(value)) in _USERS


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
    why = ", for the library's code has changed" if name.endswith(_SOURCE) else ""
    return f"{name} was {before!r:.120} and is now {now!r:.120}{why}"
