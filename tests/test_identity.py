"""Test how the code that a result depends on is described: a user's modules and the library."""

import concurrent.futures
import importlib
import pathlib
import shutil
import sys

import numpy as np
import pytest

import isnas_jax as isnas
from isnas_jax.io import cache, code, identity, records

LIBRARY = pathlib.Path(isnas.__file__).parent


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Return a function that writes modules and imports `mine.it` as in a new process."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    written = set()

    def unload():
        for name in [name for name in sys.modules if name.split(".")[0] in written]:
            del sys.modules[name]

    def write_and_import(files):
        for name, text in files.items():
            path = tmp_path / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            written.add(name.split("/")[0])
        unload()
        importlib.invalidate_caches()
        return importlib.import_module("mine").it

    yield write_and_import
    unload()


FUNCTION = """
{}
def it(observed, output):
    return {}
"""
DATACLASS = """
import dataclasses
{}
@dataclasses.dataclass(frozen=True)
class Strategy:
    num: int = 3
    def __call__(self, key, scope):
        return {}
it = Strategy(4)
"""
NETWORK = """
import flax.linen as nn
{}
class Net(nn.Module):
    depth: int = 3
    @nn.compact
    def __call__(self, x):
        return {}
it = Net(2)
"""


@pytest.mark.parametrize(
    "files",
    [
        {"mine": template.format(*import_and_call)}
        for template in (FUNCTION, DATACLASS, NETWORK)
        for import_and_call in (
            ("from helpers import f", "f(1)"),
            ("import helpers", "helpers.f(1)"),
        )
    ]
    + [
        {"mine": "def it(x):\n    import helpers\n    return helpers.f(x)\n"},
        {"mine": FUNCTION.format("from helpers import *", "f(1)")},
        {
            "mine": "from helpers import f\n@f\ndef it(x): pass",
            "helpers": "def f(x): return lambda y: x(y) + 1",
        },
        {
            "mine": FUNCTION.format("import middle", "middle.g(1)"),
            "middle": "from helpers import f as g",
        },
        {
            "mine": "import base\nclass Mine(base.Base): pass\nit = Mine()",
            "base": "import helpers\nclass Base:\n    def call(self, x): return helpers.f(x)",
        },
        {
            "mine": "import base, functools\nit = functools.partial(base.Base().call, 3)",
            "base": "import helpers\nclass Base:\n    def call(self, x): return helpers.f(x)",
        },
        {
            "mine": "import helpers, other\ndef it(x): return other.g(x)",
            "helpers": "import other\ndef f(x): return x + 1",
            "other": "import helpers\ndef g(x): return helpers.f(x)",
        },
        {
            "mine": "import package.inner\nit = package.inner.it",
            "package/__init__": "",
            "package/inner": "from . import near\ndef it(x): return near.g()",
            "package/near": "def g(x):\n    from helpers import f\n    return f(1)",
        },
        {
            "mine": FUNCTION.format("import package.inner", "package.inner.helpers.f(1)"),
            "package/inner": "import helpers",
        },
        {
            "mine": "import package.inner\nit = package.inner.it",
            "package/inner": "import package\ndef it(x): return package.f(x)",
            "package/__init__": "from helpers import f",
        },
        {"mine": FUNCTION.format("import helpers", "getattr(helpers, 'f')(1)")},
        {
            "mine": "import functools, helpers\nit = functools.singledispatch(len)\n"
            "it.register(int)(helpers.f)"
        },
        {"mine": "import helpers\ndef it(x): return it.f(x)\nit.f = helpers.f"},
        {"mine": FUNCTION.format("import helpers", "[*map(helpers.TABLE.get, 'a')]")}
        | {"helpers": "def f(x): return x + 1\nTABLE = {'a': f}"},
        {"mine": FUNCTION.format("import numpy, helpers\ng = numpy.vectorize(helpers.f)", "g(1)")},
    ],
)
def test_editing_an_imported_module_changes_the_description(load, files):
    files = {"helpers": "def f(x): return x + 1", **files}
    before = identity.describe(load(files))
    assert identity.describe(load(files)) == before
    edited = '"""A module."""\n# with a comment\n' + files["helpers"].replace("(x): ", "( x ):\n  ")
    assert identity.describe(load(files | {"helpers": edited})) == before
    edited = files["helpers"].replace("1", "2")
    assert identity.describe(load(files | {"helpers": edited})) != before


def test_modules_imported_at_call_time_are_found(load):
    files = {"mine": "def it(x):\n    from far.away.helpers import f\n    return f(x)"}
    descriptions = []
    for value in (1, 1, 2):
        it = load(files)
        folder = pathlib.Path(sys.modules["mine"].__file__).parent / "far" / "away"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "helpers.py").write_text(f"def f(x): return {value}")
        for name in ("far", "far.away", "far.away.helpers"):
            sys.modules.pop(name, None)
        descriptions.append(identity.describe(it))
    assert descriptions[0] == descriptions[1] != descriptions[2]


def test_code_that_is_not_used_does_not_count(load):
    files = {"mine": FUNCTION.format("import helpers", "helpers.f(1)")}
    descriptions = [
        identity.describe(
            load(files | {"helpers": f"def f(x): return x\ndef g(x): return {value}"})
        )
        for value in (1, 2)
    ]
    assert descriptions[0] == descriptions[1]


def test_an_edited_file_counts_after_a_reload(load):
    it = load({"mine": FUNCTION.format("import helpers", "helpers.f(1)"), "helpers": "f = abs"})
    before, helpers = identity.describe(it), sys.modules["helpers"]
    pathlib.Path(helpers.__file__).write_text("f = int")
    assert identity.describe(it) == before
    importlib.reload(helpers)
    assert identity.describe(it) != before


def test_data_is_described_at_the_time_of_the_call(load):
    it = load(
        {
            "mine": "import helpers\nLIMIT = 1\ndef it(x): return helpers.f(x) + LIMIT",
            "helpers": "WEIGHTS = {'a': 1}\ndef f(x): return x * WEIGHTS['a']",
        }
    )
    before = identity.describe(it)
    assert (before["LIMIT"], before["helpers.f.WEIGHTS"]) == (1, {"a": 1})
    sys.modules["helpers"].WEIGHTS["a"] = 2
    assert identity.describe(it)["helpers.f.WEIGHTS"] == {"a": 2}


NOTEBOOK = """
import dataclasses, functools, jax, optax, helpers
import flax.linen as nn
LIMIT = 1
SCHEDULE = optax.cosine_decay_schedule(0.2, 100)
def deep(x): return x + 3
@jax.jit
def jitted(x): return deep(x)
@functools.cache
def cached(x): return 4
class Base:
    rate = 5
    def call(self, x): return (lambda y: y in {6, 'a', 'b'})(x)
@dataclasses.dataclass(frozen=True)
class Strategy(Base):
    num: int = 3
    def __call__(self, x): return jitted(x) + cached(x) + LIMIT * SCHEDULE(x)
    @property
    def seven(self): return 7
class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        def inner(y):
            from helpers import f
            return f(y) + 8
        return inner(x)
def make():
    class Inner:
        "A class."
        nine = 9
    return Inner
def it(x): return Strategy(), Net, helpers.f, make
"""


@pytest.mark.parametrize(
    "edit",
    ["LIMIT = 1", "0.2", "+ 3", "return 4", "rate = 5", "6, ", "return 7", "+ 8", "num: int = 3"],
)
@pytest.mark.parametrize("name", ["it", "Net", "Strategy"])
def test_a_notebook_is_described_by_its_compiled_code(load, edit, name):
    load({"mine": "it = 1", "helpers": "def f(x): return x"})

    def describe_after_running(text):
        namespace = {"__name__": "__main__"}
        exec(compile(text, "<cell>", "exec"), namespace)
        return identity.describe(namespace[name])

    before = describe_after_running(NOTEBOOK)
    reformatted = "# A comment\n" + NOTEBOOK.replace("\n    return", "\n\n    return")
    reformatted = reformatted.replace("A class.", "Another class.")
    assert describe_after_running(reformatted) == before
    edited = NOTEBOOK.replace(edit, edit.translate(str.maketrans("12345678", "23456789")))
    # `Net` depends on the edit of "+ 8" only, `Strategy` on all others, and `it` on all.
    assert (describe_after_running(edited) != before) == (
        name == "it" or (name == "Net") == (edit == "+ 8")
    )


@pytest.mark.parametrize(
    "cell",
    [
        "import helpers\ndef it(x): return helpers.f(x)",
        "from helpers import f\nclass It:\n    def call(self, x): return f(x)\nit = It()",
        "def it(x):\n    import helpers\n    return helpers.f(x)",
        "def it(x):\n    def inner():\n        from helpers import f\n    return inner",
        "import helpers\nclass It(helpers.Base): pass\nit = It()",
        "import helpers\ntable = {'f': helpers.f}\ndef it(x): return table['f'](x)",
    ],
)
def test_a_notebook_depends_on_the_modules_it_imports(load, cell):
    descriptions = []
    for value in (1, 1, 2):
        text = f"def f(x): return {value}\nclass Base: limit = {value}"
        load({"mine": "from helpers import f as it", "helpers": text})
        namespace = {"__name__": "__main__"}
        exec(cell, namespace)
        descriptions.append(identity.describe(namespace["it"]))
    assert descriptions[0] == descriptions[1] != descriptions[2]


def test_the_library_digest_covers_code_that_can_change_results(tmp_path):
    copy = shutil.copytree(LIBRARY, tmp_path / "copy")
    assert code.library_digest.__wrapped__(copy) == code.library_digest()
    shutil.rmtree(copy)
    for folder in ("ops", "figures"):
        shutil.copytree(LIBRARY / folder, tmp_path / folder)

    def digest_after_edit(name, before, after):
        text = (tmp_path / name).read_text()
        assert before in text
        (tmp_path / name).write_text(text.replace(before, after))
        return code.library_digest.__wrapped__(tmp_path)

    original = code.library_digest.__wrapped__(tmp_path)
    # Figures, comments and docstrings do not count.
    assert digest_after_edit("figures/style.py", "import io", "import io, os") == original
    assert digest_after_edit("ops/spectra.py", "\nimport", "\n# Comment.\n\nimport") == original
    assert digest_after_edit("ops/normalization.py", '"""\n', ' Edited."""\n') == original
    # Constants and the place of a module do.
    assert digest_after_edit("ops/normalization.py", "1e-5", "1e-4") != original
    (tmp_path / "ops" / "quality.py").rename(tmp_path / "quality.py")
    assert digest_after_edit("ops/normalization.py", "1e-4", "1e-5") != original


def test_library_digest_is_safe_in_threads():
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(code.library_digest.__wrapped__, [LIBRARY] * 8))
    assert digests == {code.library_digest()}


def test_installed_code_is_described_with_its_version():
    assert f" pytest {pytest.__version__} " in identity.describe(pytest.importorskip)[""]


def test_editing_an_extension_invalidates_cached_results(load, tmp_path):
    calls = []
    for value in (1, 1, 2, 1):
        it = load(
            {
                "mine": FUNCTION.format("import helpers", "helpers.f(1)"),
                "helpers": f"def f(x): return {value}",
            }
        )

        def compute(it=it):
            calls.append(it(0, 0))
            return {"a": np.array(it(0, 0))}

        inputs = {"metric": it}
        path = cache.cache_path(tmp_path / "cache", "score", inputs)
        assert cache.cached(path, inputs, compute)["a"] == value
    assert calls == [1, 2]


def test_claiming_a_folder_of_another_library_version_is_refused(tmp_path):
    file = cache.claim_folder(tmp_path, {"seed": 0}) / "config.json"
    config = records.read_json(file)
    config["versions"]["isnas_jax source"] = "0123456789abcdef"
    records.write_json(file, config)
    message = (
        r"isnas_jax source was '0123456789abcdef' and is now '\w{16}', because the library's code"
    )
    with pytest.raises(ValueError, match=message):
        cache.claim_folder(tmp_path, {"seed": 0})
