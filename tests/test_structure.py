"""The architecture: which folder may import which, what is public, how much a function asks for."""

import ast
import configparser
import importlib
import inspect
import pathlib
import pkgutil
import subprocess
import sys

import experiments.commands
import isnas_jax

ROOT = pathlib.Path(isnas_jax.__file__).parent

# Each may import from those before it.
ORDER = [
    "registry",
    "_keys",
    "_programs",
    "running",
    "io",
    "ops",
    "figures",
    "problems",
    "networks",
]
ORDER += ["fitting", "searching", "study", "report"]


def imports(path):
    """Folders and modules of the package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("isnas_jax"):
            _, *inner = node.module.split(".")
            yield from [inner[0]] if inner else [alias.name for alias in node.names]
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            yield from [name[1] for name in names if name[0] == "isnas_jax"]


def test_arrows_point_one_way():
    found = {path.stem for path in ROOT.iterdir() if path.suffix in ("", ".py")}
    assert found - {"__init__", "__pycache__"} == set(ORDER)
    for path in ROOT.rglob("*.py"):
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for other in imports(path):
            assert ORDER.index(other) <= ORDER.index(own), f"{path} imports {other}"


def test_folders_within_are_free_of_cycles():
    for folder in (path.name for path in ROOT.iterdir() if path.is_dir()):
        if not (ROOT / folder / "__init__.py").exists():
            continue
        edges = {}
        for path in (ROOT / folder).glob("[!_]*.py"):
            prefix = f"isnas_jax.{folder}"
            edges[path.stem] = {
                name
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(prefix)
                for name in (
                    [node.module.removeprefix(f"{prefix}.")]
                    if node.module != prefix
                    else [alias.name for alias in node.names]
                )
            }
        while edges:
            leaves = [name for name, others in edges.items() if not others & set(edges)]
            assert leaves, f"{folder}: a cycle among {sorted(edges)}"
            for leaf in leaves:
                del edges[leaf]


def modules():
    for found in pkgutil.walk_packages([str(ROOT)], "isnas_jax."):
        yield importlib.import_module(found.name)


def test_no_function_asks_for_more_than_eight_things():
    """But for the everyday calls; what dataclasses hold is documented field by field."""
    for module in modules():
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ != module.__name__ or name in ("fit", "restore"):
                continue
            assert len(inspect.signature(function).parameters) <= 8, f"{module.__name__}.{name}"


def test_what_is_public_is_listed_and_said():
    for module in [isnas_jax, *modules()]:
        if hasattr(module, "__path__"):
            for name in module.__all__:
                thing = getattr(module, name)  # a constant or a type's other name says nothing
                if inspect.isfunction(thing) or inspect.isclass(thing):
                    assert inspect.getdoc(thing), f"{module.__name__}.{name}"


def test_no_name_hides_a_folder():
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert not folders & set(isnas_jax.__all__)


def test_drawing_leaves_a_notebooks_backend_alone():
    code = (
        "import sys; from isnas_jax import figures; figures.comparison({'a': [[[0.5]]]});"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_has_all_folders_and_commands():
    config = configparser.ConfigParser()
    config.read(ROOT.parent / "setup.cfg")
    folders = {
        "isnas_jax",
        *(found.name for found in pkgutil.walk_packages([str(ROOT)], "isnas_jax.") if found.ispkg),
    }
    scripts = ROOT.parent / "experiments"
    inside = [found.name for found in pkgutil.walk_packages([str(scripts)]) if found.ispkg]
    folders |= {"isnas_jax.experiments", *(f"isnas_jax.experiments.{name}" for name in inside)}
    assert set(config["options"]["packages"].split()) == folders
    commands = config["options.entry_points"]["console_scripts"].split("\n")
    for command in filter(None, commands):
        name, _, place = command.partition(" = ")
        module, _, function = place.partition(":")
        assert module == "isnas_jax.experiments.commands"
        assert name == f"isnas-{function.replace('_', '-')}"
        # Runs the script of its own name.
        assert getattr(experiments.commands, function).args == (function,)
        assert (scripts / f"{function}.py").exists()
