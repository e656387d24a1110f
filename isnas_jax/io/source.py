"""Digests of source code: of this library, and of a user's modules with all that they import.

A cached result must be recomputed when the code behind it changes, and only then. A
module's digest is therefore computed from its syntax tree, which holds no comments,
formatting or paths, without the docstrings. For example, if `mine.py` contains

    from helpers import blur

    def metric(observed, output):
        return abs(blur(observed) - output).mean()

then `module_digests(["mine"])` returns {"mine": "307fefac5205dcbc", "helpers":
"ee8988e81888f75e"}. Changing an operator in `helpers.py` changes the second digest; adding
a comment does not.

Import statements are found at any depth of the code without executing it. Imports by a
computed name, such as `importlib.import_module(name)`, are not found.
"""

import ast
import dis
import functools
import hashlib
import importlib.machinery
import importlib.metadata
import importlib.util
import pathlib
import sys
import sysconfig
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

# CPython 3.11 fails when several threads parse at once.
_PARSE_LOCK = threading.Lock()

Origin: TypeAlias = Literal["library", "ignored", "installed", "user file", "no file"]

# Packages that `identity.versions` compares as a whole.
_LIBRARIES = ("isnas_jax", "jax", "jaxlib", "optax", "flax")
# Packages that are not compared, like the standard library.
_IGNORED = ("numpy", "scipy", "PIL")
# Modules of this package that cannot change a result. They only show results, or read
# images, which are described by their pixels.
_WITHOUT_EFFECT = ("experiments/", "figures/", "report/", "io/images.py")


def digest(content: bytes) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 hash."""
    return hashlib.sha256(content).hexdigest()[:16]


@functools.cache
def library_digest(root: pathlib.Path = pathlib.Path(__file__).parent.parent) -> str:
    """Return one digest of all modules of this package that can change a result."""
    paths = {path.relative_to(root).as_posix(): path for path in root.rglob("*.py")}
    names = sorted(name for name in paths if not name.startswith(_WITHOUT_EFFECT))
    return digest(repr([(name, _parse_file(paths[name], "").digest) for name in names]).encode())


def module_origin(name: str) -> Origin:
    """Return where the code of a module comes from.

    Returns:
      "library" for this package and those with compared versions; "ignored" for the
      standard library and packages that are not compared; "installed" for other packages in
      site-packages; "user file" for all other files; and "no file" for notebooks and the
      script that is run.
    """
    top = name.partition(".")[0]
    if top in _LIBRARIES and not name.startswith("isnas_jax.experiments"):
        return "library"
    if top in _IGNORED:
        return "ignored"
    file = _locate(name).file
    if file is not None:
        return _file_origin(file)
    return "ignored" if top in sys.stdlib_module_names and top != "__main__" else "no file"


@functools.cache
def _file_origin(file: str) -> Origin:
    path = pathlib.Path(file).resolve()
    if not path.is_file():
        return "no file"
    if {"site-packages", "dist-packages"} & {*path.parts, *pathlib.Path(file).parts}:
        return "installed"
    standard_folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    is_standard = any(path.is_relative_to(pathlib.Path(f).resolve()) for f in standard_folders)
    return "ignored" if is_standard else "user file"


def installed_version(name: str) -> str:
    """Return name and version of the installed packages that provide a module."""
    packages = importlib.metadata.packages_distributions().get(name.partition(".")[0], [])
    return " ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)


class _Location(NamedTuple):
    """The file of a module and, if it is a package, the folders of its submodules."""

    file: str | None = None
    submodule_folders: Sequence[str] = ()


def _locate(name: str) -> _Location:
    """Find a module, loaded or not, without executing code."""
    module = sys.modules.get(name)
    if name in ("__main__", "__mp_main__"):
        return _Location()
    if module is not None:
        return _Location(getattr(module, "__file__", None), list(getattr(module, "__path__", ())))
    parent, _, last = name.rpartition(".")
    if parent:  # without importing it, which `importlib.util.find_spec` would do
        folders = _locate(parent).submodule_folders
        spec = importlib.machinery.PathFinder.find_spec(last, folders)
    else:
        spec = importlib.util.find_spec(name)
    if spec is None:
        return _Location()
    file = spec.origin if spec.has_location else None
    return _Location(file, list(spec.submodule_search_locations or ()))


class _Source(NamedTuple):
    """The digest of a file, and the names of the modules that it may import."""

    digest: str
    imports: Sequence[str]


def _parse_file(file: str | pathlib.Path, package: str) -> _Source:
    """Digest a source file of a package by its syntax tree, and other files by their bytes."""
    content = pathlib.Path(file).read_bytes()
    tokens: list[str] = []
    imports: list[str] = []
    try:
        with _PARSE_LOCK:
            tree = ast.parse(content)
        for node in _serialize(tree, tokens.append):
            if isinstance(node, ast.ImportFrom):
                names = [alias.name for alias in node.names]
                imports += _imported_modules(package, node.level, node.module or "", names)
            else:
                for alias in node.names:
                    imports += _imported_modules(package, 0, alias.name, ())
    except (SyntaxError, ValueError, RecursionError):
        return _Source(digest(content), ())
    return _Source(digest(" ".join(tokens).encode()), imports)


def _serialize(tree: ast.AST, write: Callable[[str], None]) -> list[ast.Import | ast.ImportFrom]:
    """Write a syntax tree without docstrings and positions, the same in all Python versions.

    Returns its import statements.
    """
    imports = []

    def visit(node: ast.AST) -> None:
        write(node.__class__.__name__)
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.append(node)
        for field in node._fields:
            value = node.__dict__.get(field)
            if value is None or field == "ctx":
                continue
            if isinstance(value, ast.AST):
                write(field)
                visit(value)
            elif value.__class__ is not list:
                write(f"{field}={value!a}")
            elif value:
                write(f"{field}[")
                for entry in value:
                    if not isinstance(entry, ast.AST):
                        write(ascii(entry))
                    elif not _is_docstring(entry):
                        visit(entry)
                write("]")
        write(")")

    visit(tree)
    return imports


def _is_docstring(node: ast.AST) -> bool:
    """Return whether a statement consists of a string only."""
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
        return False
    return isinstance(node.value.value, str)


def _imported_modules(package: str, level: int, name: str, names: Sequence[str]) -> Iterator[str]:
    """Yield the modules that an import statement may execute, including parent packages.

    The level is the number of leading dots; the names after `from ... import` may be submodules.
    """
    if level:
        parents = package.split(".")[: len(package.split(".")) - level + 1]
        name = ".".join([*parents, name] if name else parents)
    parts = name.split(".")
    yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))
    yield from (f"{name}.{entry}" for entry in names if entry != "*")


# For each loaded module: its spec, which a reload replaces, and its source at first use.
_LOADED_SOURCES: dict[str, tuple[Any, _Source]] = {}


def module_digests(names: Sequence[str]) -> dict[str, str]:
    """Return digests of the named modules and of all user files that they import, by name.

    The file of a loaded module is read once, because Python runs the loaded code; a
    reload reads it again. The file of a module that is not loaded is read every time.
    """
    digests: dict[str, str] = {}
    queue = list(names)
    while queue:
        name = queue.pop()
        file = None if not name or name in digests else _locate(name).file
        if file is None or (name not in names and module_origin(name) != "user file"):
            continue
        source = _module_source(name, file)
        digests[name] = source.digest
        queue += source.imports
        if "." in name:
            queue.append(name.rpartition(".")[0])
    return digests


def _module_source(name: str, file: str) -> _Source:
    """Return the source of a module; for a loaded one, as it was at first use."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    loaded_spec, source = _LOADED_SOURCES.get(name, (None, None))
    if source is not None and loaded_spec is spec:
        return source
    is_package = pathlib.Path(file).stem == "__init__"
    source = _parse_file(file, name if is_package else name.rpartition(".")[0])
    if spec is not None:
        _LOADED_SOURCES[name] = (spec, source)
    return source


def describe_bytecode(code: types.CodeType, package: str) -> tuple[Any, list[str]]:
    """Return code without a source file as plain JSON values, and the modules it may import."""
    instructions = list(dis.get_instructions(code))
    imports: list[str] = []
    # An import compiles to two constants, the level and the names, and IMPORT_NAME.
    for level, names, step in zip(instructions, instructions[1:], instructions[2:], strict=False):
        if step.opname == "IMPORT_NAME":
            imports += _imported_modules(package, level.argval, step.argval, names.argval or ())
    constants = []
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner_code, inner_imports = describe_bytecode(constant, package)
            constants.append(inner_code)
            imports += inner_imports
        else:
            constants.append(_describe_constant(constant))
    exceptions = code.co_exceptiontable.hex()
    counts = [code.co_argcount, code.co_kwonlyargcount, code.co_flags]
    return [code.co_code.hex(), exceptions, counts, list(code.co_names), constants], imports


def _describe_constant(value: Any) -> Any:
    """Return a constant as plain values; sets are sorted, as their order varies by process."""
    if isinstance(value, frozenset):
        return ["set", *sorted(map(str, map(_describe_constant, value)))]
    return list(map(_describe_constant, value)) if isinstance(value, tuple) else repr(value)


def used_names(code: types.CodeType) -> Iterator[str]:
    """Yield the globals and attributes that a code object and its inner functions use."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from used_names(constant)
