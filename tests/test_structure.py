"""The architecture: import order, public names, sizes, words, and what is in the wheel."""

import ast
import configparser
import dataclasses
import doctest
import importlib
import inspect
import pathlib
import pkgutil
import re
import shutil
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest

import experiments.commands
import isnas_jax

DTYPE_PROMOTION = "standard"

PACKAGE = pathlib.Path(isnas_jax.__file__).parent
ROOT = PACKAGE.parent
SCRIPTS = ROOT / "experiments"

# Each folder or module may import from those before it.
ORDER = ["registry", "_keys", "_programs", "running", "io", "ops", "figures", "problems"]
ORDER += ["networks", "fitting", "searching", "registries", "study", "benchmark", "report"]

PUBLIC = [
    *("Baseline", "Candidates", "Classical", "Cohort", "Config", "CoupledBootstrap", "Crop"),
    *("Decimate", "Decision", "Discrepancy", "Event", "Fit", "FitConfig", "FitJob"),
    *("FixedIterations", "Genotype", "GenotypeList", "HoldOut", "LeastValidation"),
    *(
        "MovingVariance",
        "NetworkConfig",
        "NetworkMetric",
        "Numerics",
        "Portfolio",
        "Problem",
        "Processes",
        "RandomInits",
    ),
    *("RandomSearch", "Ray", "Resize", "RunToEnd", "SearchConfig", "SearchResult", "Stack"),
    *("Step", "Task", "Threads", "TotalVariation", "WindowedVariance"),
    *("add_noise", "bicubic", "biharmonic", "bm3d", "build_network", "closest_to_mean"),
    *(
        "denoising",
        "dip",
        "downscale",
        "estimate_sigma",
        "psnr",
        "score_outputs",
        "ssim",
        "fit",
        "fit_each",
    ),
    *("fit_many", "free_space", "inpainting", "interop", "light_space"),
    *("lowest_mean_rank", "lowest_validation", "nas_dip", "non_local_means", "observed"),
    *("presets", "psd_99_bw", "psd_db_mse", "psd_db_strip_mse", "psd_strip_hist_emd"),
    *("random_outputs", "random_subset", "read_genotypes", "remove_pixels", "restore"),
    *("sample_genotypes", "score", "score_weighted_mean", "search", "selected_only"),
    *("super_resolution", "toeplitz_space", "top_half", "top_k", "total_variation"),
    *("uniform_mean", "use_compilation_cache"),
]

# Vague words, words for people, and phrases that are not idiomatic.
BANNED = ["of it", "made of", "what is of", "beside", "besides", "anew", "as a rule"]
BANNED += ["for whoever", "is asked of", "there are times", "in their places"]
BANNED += ["nobody", "somebody", "heard", "news", "said", "who", "whom", "whoever"]
ANY_BANNED = "|".join(BANNED).replace(" ", r"[\s#>]+")  # perhaps with a line break inside
WORDS = re.compile(rf"(?<![\w-])(?:{ANY_BANNED})(?![\w-])", re.IGNORECASE)
TEXTS = (".py", ".md", ".ipynb", ".flags", ".html", ".css", ".js", ".cfg", ".toml")


def python_files():
    return [*PACKAGE.rglob("*.py"), *SCRIPTS.rglob("*.py")]


def functions(path):
    """All functions and methods that a file defines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imports(path):
    """Folders and modules of the package that a file imports, anywhere in its code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("isnas_jax"):
            _, *inner = node.module.split(".")
            yield from [inner[0]] if inner else [alias.name for alias in node.names]
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            yield from [name[1] for name in names if name[0] == "isnas_jax"]


def modules():
    for module in pkgutil.walk_packages([str(PACKAGE)], "isnas_jax."):
        yield importlib.import_module(module.name)


def test_folders_import_only_from_earlier_ones():
    names = {path.stem for path in PACKAGE.iterdir() if path.suffix in ("", ".py")}
    assert names - {"__init__", "__pycache__"} == set(ORDER)
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for other in imports(path):
            assert ORDER.index(other) <= ORDER.index(own), f"{path} imports {other}"


def test_modules_of_a_folder_have_no_import_cycle():
    for folder in (path.name for path in PACKAGE.iterdir() if path.is_dir()):
        if not (PACKAGE / folder / "__init__.py").exists():
            continue
        edges = {}
        for path in (PACKAGE / folder).glob("[!_]*.py"):
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


def test_modules_have_at_most_350_lines():
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in python_files()
    }
    long = {name: length for name, length in lengths.items() if length > 350}
    assert not long


def test_functions_have_at_most_60_lines():
    long = [
        f"{path.relative_to(ROOT)}: {function.name}"
        for path in python_files()
        for function in functions(path)
        if function.end_lineno - function.lineno >= 60
    ]
    assert not long


def test_functions_have_at_most_8_parameters():
    """Methods too; dataclasses may have more fields, each with its documentation."""
    for path in python_files():
        for function in functions(path):
            arguments = function.args
            count = len([*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs])
            count += bool(arguments.vararg) + bool(arguments.kwarg)
            assert count <= 8, f"{path.relative_to(ROOT)}: {function.name}"


def test_public_names():
    assert isnas_jax.__all__ == sorted(PUBLIC)
    assert all(hasattr(isnas_jax, name) for name in PUBLIC)


def test_public_functions_and_classes_have_docstrings():
    for module in [isnas_jax, *modules()]:
        if hasattr(module, "__path__"):
            for name in module.__all__:
                value = getattr(module, name)  # constants and type aliases have none
                if inspect.isfunction(value) or inspect.isclass(value):
                    assert inspect.getdoc(value), f"{module.__name__}.{name}"


def docstring_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in isnas_jax.__all__:
        value = getattr(isnas_jax, name)
        namespace = {"isnas": isnas_jax, "jax": jax, "np": np, "dataclasses": dataclasses}
        # Only members that the library defines, not defaults such as optax.adam.
        for test in finder.find(value, name, module=inspect.getmodule(value), globs=namespace):
            if test.examples and "optimizer" not in test.name:
                yield pytest.param(test, id=test.name)


EXAMPLES = list(docstring_examples())


@pytest.mark.parametrize("example", EXAMPLES)
def test_docstring_examples_run(example):
    output = []
    doctest.DocTestRunner().run(example, out=output.append)
    assert not output, "".join(output)


def test_docstrings_have_examples():
    names = {example.values[0].name for example in EXAMPLES}
    assert {"build_network", "Config", "top_k", "LeastValidation"} <= names


# Generated tables.
UNCHECKED: tuple[str, ...] = ("docs/decisions/",)


def checked_texts():
    """The files with docstrings, comments, messages, help texts, pages and templates."""
    files = [path for path in ROOT.glob("*.*") if path.suffix in TEXTS]
    for folder in (PACKAGE, SCRIPTS, ROOT / "docs", ROOT / "third_party"):
        files += [path for path in sorted(folder.rglob("*.*")) if path.suffix in TEXTS]
    return [path for path in files if not str(path.relative_to(ROOT)).startswith(UNCHECKED)]


def test_texts_have_no_banned_words():
    paths = checked_texts()
    assert {"README.md", "pyproject.toml", "search.py", "glossary.md"} <= {p.name for p in paths}
    places = []
    for path in paths:
        text = path.read_text()
        for match in WORDS.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            places.append(f"{path.relative_to(ROOT)}:{line}: {match[0]!r}")
    assert not places, "\n".join(places)


@pytest.mark.parametrize(
    ("text", "banned"),
    [
        ("a part of it", True),
        ("a part of\n    # it", True),
        ("the whole, of items, newsletter, one-who", False),
    ],
)
def test_banned_words_are_whole_words_across_lines(text, banned):
    assert bool(WORDS.search(text)) == banned


def test_no_public_name_hides_a_folder():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert not folders & set(isnas_jax.__all__)


def test_drawing_does_not_import_pyplot():
    """It would choose the backend of a notebook."""
    code = (
        "import sys; from isnas_jax import figures; figures.comparison({'a': [[[0.5]]]});"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def test_setup_lists_the_folders_of_the_library_and_the_scripts(setup_cfg):
    folders = {
        "isnas_jax",
        "isnas_jax.experiments",
        *(m.name for m in pkgutil.walk_packages([str(PACKAGE)], "isnas_jax.") if m.ispkg),
    }
    assert set(setup_cfg["options"]["packages"].split()) == folders


def test_console_commands_run_the_script_of_their_name(setup_cfg):
    commands = setup_cfg["options.entry_points"]["console_scripts"].split("\n")
    names = set()
    for command in filter(None, commands):
        name, _, target = command.partition(" = ")
        module, _, function = target.partition(":")
        assert module == "isnas_jax.experiments.commands"
        assert name == f"isnas-{function.replace('_', '-')}"
        assert getattr(experiments.commands, function).args == (function,)
        names.add(function)
    runnable = {
        path.stem for path in SCRIPTS.glob("*.py") if "\n    run_script(main" in path.read_text()
    }
    assert names == runnable


@pytest.mark.thorough
def test_wheel_has_the_scripts_but_not_the_measurements(tmp_path):
    """Benchmarks, decisions and proofs need a clone."""
    for name in ("isnas_jax", "experiments"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    scripts = {f"isnas_jax/experiments/{path.name}" for path in SCRIPTS.glob("*.py")}
    scripts |= {f"isnas_jax/experiments/presets/{p.name}" for p in SCRIPTS.glob("presets/*.flags")}
    assert {name for name in names if name.startswith("isnas_jax/experiments/")} == scripts
    library = {
        str(path.relative_to(ROOT))
        for path in PACKAGE.rglob("*")
        if path.suffix in (".py", ".csv", ".html", ".css", ".js", ".typed")
        or path.name == "py.typed"
    }
    assert library <= names
    assert all(name.startswith(("isnas_jax/", "isnas_jax-")) for name in names)
