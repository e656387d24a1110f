"""Describe functions, classes and modules: by name, a digest of their code, and their data.

For a user's function in `mine.py`,

    from helpers import blur
    LIMIT = 3

    def metric(observed, output, power=2):
        return min(abs(observed - blur(output)).mean() ** power, LIMIT)

the description is {"": "mine.metric 307fefac5205dcbc", "power": 2, "LIMIT": 3}. The digest
covers the compiled code of `metric`, of `blur`, and of everything that they use in turn.
Compiled code is what Python runs, in modules, scripts and notebooks alike. Changing an
operator in `helpers.py` changes it; adding a comment does not. Code of installed packages is
described by its name. The other entries are the data that the functions use: closures,
defaults and globals, at the time of the call.

Names are found in the compiled code without running it. Names that are computed, as in
`getattr(helpers, "blur" + suffix)`, are not found.
"""

import ast
import contextlib
import dataclasses
import dis
import functools
import importlib.metadata
import importlib.util
import inspect
import numbers
import pathlib
import sys
import sysconfig
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any, Literal

import jax
import numpy as np

from isnas_jax.io import records

# Packages that `identity.versions` compares as a whole.
COMPARED = ("jax", "jaxlib", "optax", "flax")
# Packages whose versions are only recorded.
RECORDED = ("isnas_jax", "numpy", "scipy", "pillow")
# Modules of this package that cannot change a result. They only show results, judge them, or read
# images, which are described by their pixels.
_WITHOUT_EFFECT = ("benchmark/", "experiments/", "figures/", "report/", "io/images.py")

_CODE_TYPES = types.FunctionType | types.BuiltinFunctionType | types.ModuleType | type
# Types of globals that are data, whichever package defines them.
_DATA_TYPES: tuple[type, ...] = (types.NoneType, numbers.Number, np.ndarray, np.generic, jax.Array)
_DATA_TYPES += (slice, Mapping, Sequence, Set, functools.partial, pathlib.PurePath)
_DATA_TYPES += (types.SimpleNamespace,)
_STDLIB = pathlib.Path(sysconfig.get_path("stdlib")).resolve()
# Flags of functions with *args and **kwargs.
_ARGUMENT_FLAGS = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS

# CPython 3.11 fails when several threads parse at once.
_PARSE_LOCK = threading.Lock()


class _WithoutDocstrings(ast.NodeTransformer):
    """Remove statements that consist of a string only."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_string = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_string else node


@functools.cache
def library_digest(root: pathlib.Path = pathlib.Path(__file__).parent.parent) -> str:
    """Return one digest of all modules of this package that can change a result.

    Comments, docstrings and formatting do not count.
    """
    sources = {}
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not name.startswith(_WITHOUT_EFFECT):
            with _PARSE_LOCK:
                tree = ast.parse(path.read_bytes())
            sources[name] = ast.unparse(_WithoutDocstrings().visit(tree))
    return records.digest(repr(sources).encode())


def is_code(value: Any) -> bool:
    """Return whether a value is a function, class, module or wrapper such as `jax.jit(f)`."""
    is_wrapper = isinstance(value, property) or hasattr(value, "__wrapped__")
    return isinstance(value, _CODE_TYPES) or (is_wrapper and _origin(type(value)) != "user")


def owner(value: Any) -> Any:
    """Return the object of a bound method, such as [1] for `[1].append`; None otherwise."""
    if isinstance(value, types.MethodType | types.BuiltinMethodType):
        return None if isinstance(value.__self__, types.ModuleType) else value.__self__
    return None


def describe_code(root: Any, describe_value: Callable[[Any], Any]) -> Any:
    """Describe a function, class, module or wrapper.

    All code that it uses is visited once, breadth first. Code of this library has no digest,
    because `identity.versions` compares the library as a whole.

    Returns:
      The name and digest, or a dict of these under "" and of the data, described by
      `describe_value`, by access path.
    """
    data: dict[str, Any] = {}
    used: dict[str, Any] = {}
    queue, seen = [("", root)], {id(root)}
    while queue:
        path, value = queue.pop(0)
        if isinstance(value, types.FunctionType) and _origin(value) != "library":
            used[path] = _describe_bytecode(value.__code__)
        elif not isinstance(value, _CODE_TYPES):
            used[path] = _qualified_name(type(value))
        for name, dependency in _dependencies(value):
            inner_path = f"{path}.{name}" if path else name
            if _is_data(dependency):
                data[inner_path] = describe_value(dependency)
            elif not _is_followed(dependency):
                used[inner_path] = _qualified_name(dependency)
            elif id(dependency) not in seen:
                seen.add(id(dependency))
                queue.append((inner_path, dependency))
    description = _qualified_name(root)
    if _origin(root) == "installed":
        description += _version(_module_name(root).partition(".")[0])
    if used:
        description += f" {records.digest(repr(used).encode())}"
    return {"": description, **data} if data else description


def _qualified_name(value: Any) -> str:
    """Return the module and name of code, or of the type of another object."""
    if isinstance(value, types.ModuleType):
        return value.__name__
    names = [getattr(value, name, None) for name in ("__qualname__", "__name__")]
    name = next(filter(None, names), type(value).__qualname__)
    # Processes that multiprocessing starts call the script's module __mp_main__.
    module = str(getattr(value, "__module__", None)).replace("__mp_main__", "__main__", 1)
    return f"{module}.{name}"


def _module_name(value: Any) -> str:
    """Return the module that defines a value; for a decorated function, the decorator's."""
    if isinstance(value, types.FunctionType):
        return str(value.__globals__.get("__name__"))
    attribute = "__name__" if isinstance(value, types.ModuleType) else "__module__"
    return str(getattr(value, attribute, None) or "builtins")


def _origin(value: Any) -> Literal["library", "installed", "user"]:
    """Return whose code a value is, Python's own library being "installed"."""
    return _module_origin(_module_name(value))


def _module_origin(name: str) -> Literal["library", "installed", "user"]:
    top = name.partition(".")[0]
    if top in ("isnas_jax", *COMPARED) and not name.startswith("isnas_jax.experiments"):
        return "library"
    if top in ("__main__", "__mp_main__"):  # a script or notebook, even if `-m pytest` started it
        return "user"
    spec, paths = None, None
    with contextlib.suppress(ValueError):  # a notebook, or a module without a file
        spec = importlib.util.find_spec(top)
    if spec:
        paths = [spec.origin] if spec.has_location else spec.submodule_search_locations
    is_installed = all(map(_is_installed, paths)) if paths else top in sys.stdlib_module_names
    return "installed" if is_installed else "user"


@functools.cache
def _is_installed(file: str) -> bool:
    path = pathlib.Path(file).resolve()
    folders = {*path.parts, *pathlib.Path(file).parts}
    return bool({"site-packages", "dist-packages"} & folders) or path.is_relative_to(_STDLIB)


@functools.cache
def _version(package: str) -> str:
    """Return " name version" of the distributions of an installed package that is compared."""
    if package in (*RECORDED, "PIL"):
        return ""
    names = importlib.metadata.packages_distributions().get(package, [])
    return "".join(f" {name} {importlib.metadata.version(name)}" for name in names)


def _is_data(value: Any) -> bool:
    """Return whether a value that code uses is described by its content."""
    if owner(value) is not None:
        return _is_data(owner(value)) or _is_followed(owner(value))
    if is_code(value):
        return False
    is_known = isinstance(value, _DATA_TYPES) or dataclasses.is_dataclass(value)
    return is_known or _origin(type(value)) == "user"


def _is_followed(value: Any) -> bool:
    """Return whether code is the user's, or holds functions or data of the user."""
    if isinstance(value, _CODE_TYPES) and _origin(value) == "user":
        return True
    if isinstance(value, types.FunctionType) and value.__closure__:
        return _origin(value) == "library" or _origin(inspect.unwrap(value)) == "user"
    parts = [getattr(part, "func", part) for part in _held(value).values()]
    return any(_is_followed(part) or _origin(type(part)) == "user" for part in parts)


def _held(value: Any) -> dict[str, Any]:
    """Return the functions that a wrapper or another object of another package holds."""
    if isinstance(value, property):
        return {"fget": value.fget}
    attributes = {} if isinstance(value, _CODE_TYPES) else getattr(value, "__dict__", {})
    # A wrapper's rules, as of `jax.custom_jvp`, are functions too.
    return {
        name: attribute
        for name, attribute in attributes.items()
        if name == "__wrapped__" or isinstance(attribute, types.FunctionType)
    }


def _dependencies(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the code and data that a function, class, module or wrapper uses, by name."""
    if isinstance(value, types.FunctionType):
        yield from _function_dependencies(value)
    elif isinstance(value, type) and _origin(value) == "user":
        yield from _class_dependencies(value)
    else:
        yield from _held(value).items()


def _function_dependencies(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield a function's attributes, defaults and closure and, for a user's, its globals."""
    code = function.__code__
    texts = {text for inner in _nested_codes(code) for text in (*inner.co_names, *inner.co_consts)}
    names = sorted(text for text in texts if isinstance(text, str))
    defaults = function.__defaults__ or ()
    arguments = code.co_varnames[: code.co_argcount]
    yield from zip(arguments[len(arguments) - len(defaults) :], defaults, strict=True)
    yield from (function.__kwdefaults__ or {}).items()
    for name, attribute in function.__dict__.items():
        if not name.startswith("_"):  # for example, the cache of `functools.singledispatch`
            yield name, attribute
    closure = {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # a variable that has no value yet
            closure[name] = cell.cell_contents
    yield from _lookup(closure, list(closure), names, ())
    if _origin(function) == "user":
        imported = dict(_imports(function))
        namespace = function.__globals__ | imported
        yield from _lookup(namespace, [*names, *imported], names, ())


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
        if is_module and value not in visited and _origin(value) == "user":
            for inner, part in _lookup(vars(value), attributes, attributes, (*visited, value)):
                yield f"{name}.{inner}", part


def _imports(function: types.FunctionType) -> Iterator[tuple[str, types.ModuleType]]:
    """Yield the user's modules that a function imports when it is called, by name."""
    for code in _nested_codes(function.__code__):
        steps = list(dis.get_instructions(code))
        # An import compiles to two constants, the level and the names, and IMPORT_NAME.
        for level, names, step in zip(steps, steps[1:], steps[2:], strict=False):
            if step.opname != "IMPORT_NAME":
                continue
            if level.argval or _module_origin(step.argval) == "user":
                arguments = function.__globals__, None, names.argval, level.argval
                with contextlib.suppress(ImportError):  # an optional module
                    yield "." * level.argval + step.argval, __import__(step.argval, *arguments)


def _class_dependencies(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the bases, methods and attributes of a user's class, without those Python makes."""
    for base in cls.__bases__:
        yield base.__name__, base
    for name, entry in sorted(vars(cls).items()):
        if isinstance(entry, types.FunctionType) or not (name[0] == "_" == name[-1]):
            yield name, entry


def _nested_codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield a code object and those of its inner functions and classes."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested_codes(constant)


def _describe_bytecode(code: types.CodeType) -> Any:
    """Return instructions with their arguments, but without docstrings and line numbers."""

    def describe_argument(value: Any) -> Any:
        if isinstance(value, types.CodeType):
            return _describe_bytecode(value)
        # The order of a set varies by process.
        return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)

    steps: list[Any] = []
    for step in dis.get_instructions(code):
        if step.opname == "STORE_NAME" and step.argval in ("__doc__", "__firstlineno__"):
            steps.pop()  # the docstring or line number of a class
        steps.append((step.opname, describe_argument(step.argval)))
    counts = code.co_argcount, code.co_kwonlyargcount, code.co_flags & _ARGUMENT_FLAGS
    return [counts, code.co_varnames, code.co_exceptiontable, steps]
