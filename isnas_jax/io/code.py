"""Describe functions, classes and modules: by name, a digest of their code, and their data.

For a user's function in `mine.py`,

    LIMIT = 3

    def metric(observed, output, power=2):
        return min(abs(observed - output).mean() ** power, LIMIT)

the description is {"": "mine.metric 307fefac5205dcbc", "power": 2, "LIMIT": 3}. The digest
covers the source of `mine.py` and of all user files that it imports (see `source`). The
other entries are the data that the function uses: closure, defaults and globals. They are
read at the time of the call, because a program may have changed them since the import.

A notebook and the script that is run have no module that can be read again. The compiled
code of their functions is digested instead, following the functions and classes used.
"""

import contextlib
import dataclasses
import functools
import inspect
import json
import numbers
import pathlib
import types
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

import jax
import numpy as np

from isnas_jax.io import source

_CODE_TYPES = types.FunctionType | types.BuiltinFunctionType | types.ModuleType | type
# Types of globals that are data, whichever package defines them.
_DATA_TYPES: tuple[type, ...] = (numbers.Number, np.ndarray, np.generic, jax.Array, slice)
_DATA_TYPES += (Mapping, Sequence, Set, functools.partial, pathlib.PurePath, types.SimpleNamespace)
# Methods that a dataclass generates from its fields.
_GENERATED_METHODS = ("__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__")
_USER_CODE = ("user file", "no file")


def is_code(value: Any) -> bool:
    """Return whether a value is a function, class, module or wrapper such as `jax.jit(f)`."""
    return isinstance(value, _CODE_TYPES) or _is_wrapper(value)


def is_bound_builtin(value: Any) -> bool:
    """Return whether a value is a built-in method with its object, such as `[1].append`."""
    return isinstance(value, types.BuiltinFunctionType) and not isinstance(
        value.__self__, types.ModuleType | types.NoneType
    )


def describe_code(root: Any, describe_value: Callable[[Any], Any]) -> Any:
    """Describe a function, class, module or wrapper.

    All code that it uses is visited once, breadth first. Code of this library gets no
    digest, because `identity.versions` compares the library as a whole.

    Returns:
      The name and digest, or a dict of these under "" and of the data, described by
      `describe_value`, by access path.
    """
    data: dict[str, Any] = {}
    bytecode: dict[str, Any] = {}
    modules = [_module_name(root)] if _origin(root) == "installed" else []
    queue, seen = [("", root)], {id(root)}
    while queue:
        path, value = queue.pop(0)
        origin = _origin(value)
        if origin == "user file":
            modules.append(_module_name(value))
        elif origin == "no file" and isinstance(value, types.FunctionType):
            package = str(value.__globals__.get("__package__") or "")
            bytecode[path], imports = source.describe_bytecode(value.__code__, package)
            modules += [name for name in imports if source.module_origin(name) == "user file"]
        for name, dependency in _dependencies(value, origin):
            inner_path = f"{path}.{name}" if path else name
            if not is_code(dependency):
                data[inner_path] = describe_value(dependency)
            elif id(dependency) not in seen:
                seen.add(id(dependency))
                queue.append((inner_path, dependency))
    description = _qualified_name(root)
    if modules or bytecode:
        content = json.dumps([source.module_digests(modules), bytecode], sort_keys=True)
        description += f" {source.digest(content.encode())}"
    return {"": description, **data} if data else description


def _qualified_name(value: Any) -> str:
    if isinstance(value, types.ModuleType):
        return _module_name(value)
    name = f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    if _origin(value) == "installed":
        name += f" {source.installed_version(_module_name(value))}"
    # Processes that multiprocessing starts call the script's module __mp_main__.
    return name.replace("__mp_main__", "__main__", 1)


def _module_name(value: Any) -> str:
    """Return the module that defines a value; for a decorated function, the decorator's."""
    if isinstance(value, types.FunctionType):
        return str(value.__globals__.get("__name__"))
    attribute = "__name__" if isinstance(value, types.ModuleType) else "__module__"
    return str(getattr(value, attribute, None) or "builtins")


def _origin(value: Any) -> source.Origin:
    """Return where the code of a value comes from; wrappers have no code themselves."""
    if not isinstance(value, _CODE_TYPES):
        return "ignored"
    if _module_name(value) == "builtins" and isinstance(value, type):
        # Classes defined by code in a namespace without __name__ claim to be built in.
        # They are heap types, and built-in classes are not.
        return "no file" if value.__flags__ & 1 << 9 else "ignored"
    return source.module_origin(_module_name(value))


def _is_wrapper(value: Any) -> bool:
    """Return whether a value is a compiled wrapper, such as a jitted or cached function."""
    return hasattr(value, "__wrapped__") and _origin(type(value)) not in _USER_CODE


def _dependencies(value: Any, origin: source.Origin) -> Iterator[tuple[str, Any]]:
    """Yield the code and data that a function, class or wrapper uses, by name."""
    if isinstance(value, types.FunctionType):
        yield from _function_dependencies(value, origin)
    elif isinstance(value, type):
        if origin in _USER_CODE:
            yield from _class_dependencies(value, origin)
    elif not isinstance(value, _CODE_TYPES):
        yield "wrapped", value.__wrapped__
        for name, attribute in getattr(value, "__dict__", {}).items():
            # For example, the derivative rules of `jax.custom_jvp`.
            if isinstance(attribute, types.FunctionType) and _affects_results(attribute):
                yield name, attribute


def _function_dependencies(
    function: types.FunctionType, origin: source.Origin
) -> Iterator[tuple[str, Any]]:
    """Yield a function's closure and defaults and, for a user's function, its globals."""
    code = function.__code__
    names = sorted(set(source.used_names(code)))
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # a variable that has no value yet
            yield from _lookup({name: cell.cell_contents}, [name], names, ())
    defaults = function.__defaults__ or ()
    arguments = code.co_varnames[: code.co_argcount]
    yield from zip(arguments[len(arguments) - len(defaults) :], defaults, strict=True)
    yield from (function.__kwdefaults__ or {}).items()
    if origin in _USER_CODE:
        for name, value in _lookup(function.__globals__, names, names, ()):
            if _affects_results(value):
                yield name, value


def _lookup(
    namespace: Mapping[str, Any],
    names: Sequence[str],
    attributes: Sequence[str],
    visited: tuple[types.ModuleType, ...],
) -> Iterator[tuple[str, Any]]:
    """Yield named entries of a namespace, and for a user's module the attributes used."""
    for name in names:
        if name not in namespace:
            continue
        value = namespace[name]
        yield name, value
        is_module = isinstance(value, types.ModuleType)
        if is_module and _origin(value) in _USER_CODE and value not in visited:
            for inner, part in _lookup(vars(value), attributes, attributes, (*visited, value)):
                if _affects_results(part):
                    yield f"{name}.{inner}", part


def _class_dependencies(cls: type, origin: source.Origin) -> Iterator[tuple[str, Any]]:
    """Yield a class's bases and methods and, without a source file, its class attributes."""
    for base in cls.__bases__:
        if _origin(base) in _USER_CODE:
            yield base.__name__, base
    for name, entry in sorted(vars(cls).items()):
        if dataclasses.is_dataclass(cls) and name in _GENERATED_METHODS:
            continue
        # Unwrap static methods, class methods, properties and cached properties.
        unwrapped = [getattr(entry, attribute, None) for attribute in ("__func__", "fget", "func")]
        function = next((value for value in unwrapped if value is not None), entry)
        if isinstance(function, types.FunctionType):
            if origin == "no file" or _origin(function) != "no file":
                yield name if function is entry else f"{name} {type(entry).__name__}", function
        elif origin == "no file" and not name.startswith("__") and _affects_results(entry):
            yield name, entry


def _affects_results(value: Any) -> bool:
    """Return whether a global is data or the user's code, not code of another package."""
    if isinstance(value, types.MethodType):
        return _affects_results(value.__self__)
    if isinstance(value, types.BuiltinFunctionType):
        return is_bound_builtin(value) and isinstance(value.__self__, _DATA_TYPES)
    if isinstance(value, types.FunctionType) and value.__closure__ and _origin(value) == "library":
        return True
    if isinstance(value, _CODE_TYPES):
        return _origin(value) in _USER_CODE
    if _is_wrapper(value):
        return _affects_results(inspect.unwrap(value))
    if isinstance(value, _DATA_TYPES) or dataclasses.is_dataclass(value):
        return True
    return type(value) is not object and _origin(type(value)) in _USER_CODE
