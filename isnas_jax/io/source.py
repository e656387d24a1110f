"""Digests of source code: the library's, and a user's modules with all modules they import.

The digests ignore comments, docstrings, formatting and paths. Imports are found by
reading the import statements, at any depth, without running anything. Imports by a
computed name are not found.
"""

import ast
import dis
import functools
import hashlib
import importlib.metadata
import importlib.util
import pathlib
import sys
import sysconfig
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

# Parsing from several threads at once fails in CPython 3.11.
_PARSING = threading.Lock()

Kind: TypeAlias = Literal["library", "python", "installed", "own", "no file"]

# Packages that `identity.versions` compares as a whole.
_LIBRARIES = ("isnas_jax", "jax", "jaxlib", "optax", "flax")
# Packages that are recorded but not compared; their functions are described by name.
_RECORDED = ("numpy", "scipy", "PIL")
# Modules that only show results, or read inputs, which are described by their content.
_WITHOUT_EFFECT = ("experiments/", "figures/", "report/", "io/images.py")


def digest(content: bytes) -> str:
    """Hexadecimal digest, 16 digits."""
    return hashlib.sha256(content).hexdigest()[:16]


@functools.cache
def library(root: pathlib.Path = pathlib.Path(__file__).parent.parent) -> str:
    """Compute the digest of the package's modules that can change numbers, once per process."""
    found = {path.relative_to(root).as_posix(): path for path in root.rglob("*.py")}
    counting = sorted(name for name in found if not name.startswith(_WITHOUT_EFFECT))
    return digest(repr([(name, _read(found[name], "").digest) for name in counting]).encode())


def kind(name: str) -> Kind:
    """Classify a module by where its code comes from.

    Returns:
      "library" for the packages that are compared as a whole, "python" for modules
      that are not compared, "installed" for other packages in site-packages, "own"
      for the user's files, and "no file" for notebooks and the script that is run.
    """
    top = name.partition(".")[0]
    if top in _LIBRARIES and not name.startswith("isnas_jax.experiments"):
        return "library"
    if top in _RECORDED:
        return "python"
    file = _locate(name).file
    if file is not None:
        return _kind_of_file(file)
    return "python" if top in sys.stdlib_module_names and top != "__main__" else "no file"


@functools.cache
def _kind_of_file(file: str) -> Kind:
    path = pathlib.Path(file).resolve()
    if not path.is_file():
        return "no file"
    if {"site-packages", "dist-packages"} & {*path.parts, *pathlib.Path(file).parts}:
        return "installed"
    standard = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    inside = any(path.is_relative_to(pathlib.Path(folder).resolve()) for folder in standard)
    return "python" if inside else "own"


def release(name: str) -> str:
    """Return the name and version of the installed package that provides a module."""
    found = importlib.metadata.packages_distributions().get(name.partition(".")[0], [])
    return " ".join(f"{package} {importlib.metadata.version(package)}" for package in found)


class _Place(NamedTuple):
    """A module's file and, for a package, the folders of its modules."""

    file: str | None = None
    folders: Sequence[str] = ()


def _locate(name: str) -> _Place:
    """Find a module, loaded or not, without running any."""
    module = sys.modules.get(name)
    if name in ("__main__", "__mp_main__"):
        return _Place()
    if module is not None:
        return _Place(getattr(module, "__file__", None), list(getattr(module, "__path__", ())))
    parent, _, last = name.rpartition(".")
    if not parent:
        spec = importlib.util.find_spec(name)
        if spec is None:
            return _Place()
        return _Place(
            spec.origin if spec.has_location else None, list(spec.submodule_search_locations or ())
        )
    paths = [pathlib.Path(folder, last) for folder in _locate(parent).folders]
    for path in paths:
        if (path / "__init__.py").is_file():
            return _Place(str(path / "__init__.py"), [str(path)])
        if path.with_name(f"{last}.py").is_file():
            return _Place(str(path.with_name(f"{last}.py")))
    return _Place(None, [str(path) for path in paths if path.is_dir()])


class _Source(NamedTuple):
    """A file's digest, and the names of the modules that it may import."""

    digest: str
    imports: Sequence[str]


def _read(file: str | pathlib.Path, package: str) -> _Source:
    """Read a source file of a package; other files are compared byte for byte."""
    content = pathlib.Path(file).read_bytes()
    written: list[str] = []
    imports: list[str] = []
    try:
        with _PARSING:
            tree = ast.parse(content)
        for node in _write(tree, written.append):
            if isinstance(node, ast.ImportFrom):
                names = [alias.name for alias in node.names]
                imports += _imported(package, node.level, node.module or "", names)
            else:
                for alias in node.names:
                    imports += _imported(package, 0, alias.name, ())
    except (SyntaxError, ValueError, RecursionError):
        return _Source(digest(content), ())
    return _Source(digest(" ".join(written).encode()), imports)


def _write(tree: ast.AST, write: Callable[[str], None]) -> list[ast.Import | ast.ImportFrom]:
    """Write a syntax tree without docstrings and positions, equally in all Python versions.

    Returns:
      The import statements in it.
    """
    imports = []

    def one(node: ast.AST) -> None:
        write(node.__class__.__name__)
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.append(node)
        for field in node._fields:
            value = node.__dict__.get(field)
            if value is None or field == "ctx":
                continue
            if isinstance(value, ast.AST):
                write(field)
                one(value)
            elif value.__class__ is not list:
                write(f"{field}={value!a}")
            elif value:
                write(f"{field}[")
                for entry in value:
                    if not isinstance(entry, ast.AST):
                        write(ascii(entry))
                    elif not _is_text(entry):
                        one(entry)
                write("]")
        write(")")

    one(tree)
    return imports


def _is_text(node: ast.AST) -> bool:
    """Return whether a statement is only a string, as docstrings are."""
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
        return False
    return isinstance(node.value.value, str)


def _imported(package: str, level: int, name: str, names: Sequence[str]) -> Iterator[str]:
    """Yield the modules that an import statement may run, parent packages included."""
    if level:
        above = package.split(".")[: len(package.split(".")) - level + 1]
        name = ".".join([*above, name] if name else above)
    parts = name.split(".")
    yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))
    yield from (f"{name}.{entry}" for entry in names if entry != "*")


# By module name: its spec, which a reload replaces, and its file's content at first use.
_LOADED: dict[str, tuple[Any, _Source]] = {}


def modules(names: Sequence[str]) -> dict[str, str]:
    """Return the digests, by name, of modules and of all the user's modules they import.

    The file of a loaded module is read once until the module is reloaded, because
    the loaded code is what runs. The file of a module not loaded yet is read each time.
    """
    found: dict[str, str] = {}
    todo = list(names)
    while todo:
        name = todo.pop()
        file = None if not name or name in found else _locate(name).file
        if file is None or (name not in names and kind(name) != "own"):
            continue
        read = _current(name, file)
        found[name] = read.digest
        todo += read.imports
        if "." in name:
            todo.append(name.rpartition(".")[0])
    return found


def _current(name: str, file: str) -> _Source:
    """Read a module's file, or return what it held when the loaded module was first used."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    kept, read = _LOADED.get(name, (None, None))
    if read is not None and kept is spec:
        return read
    is_package = pathlib.Path(file).stem == "__init__"
    read = _read(file, name if is_package else name.rpartition(".")[0])
    if spec is not None:
        _LOADED[name] = (spec, read)
    return read


def code(compiled: types.CodeType, package: str) -> tuple[Any, list[str]]:
    """Return compiled code as plain values, and the modules that it may import."""
    steps = list(dis.get_instructions(compiled))
    imports: list[str] = []
    for level, names, step in zip(steps, steps[1:], steps[2:], strict=False):
        if step.opname == "IMPORT_NAME":
            imports += _imported(package, level.argval, step.argval, names.argval or ())
    constants = []
    for constant in compiled.co_consts:
        if isinstance(constant, types.CodeType):
            inner, more = code(constant, package)
            constants.append(inner)
            imports += more
        else:
            constants.append(_constant(constant))
    table = compiled.co_exceptiontable.hex()
    counts = [compiled.co_argcount, compiled.co_kwonlyargcount, compiled.co_flags]
    return [compiled.co_code.hex(), table, counts, list(compiled.co_names), constants], imports


def _constant(value: Any) -> Any:
    """Return a constant as plain values; the text of a set differs between processes."""
    if isinstance(value, frozenset):
        return ["set", *sorted(map(str, map(_constant, value)))]
    return list(map(_constant, value)) if isinstance(value, tuple) else repr(value)


def names_in(compiled: types.CodeType) -> Iterator[str]:
    """Yield the names of globals and attributes that code and its inner functions use."""
    yield from compiled.co_names
    for constant in compiled.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names_in(constant)
