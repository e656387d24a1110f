"""What code a result depends on: a user's modules, what they import, and the library's own."""

import concurrent.futures
import importlib
import pathlib
import shutil
import sys

import numpy as np
import pytest

import isnas_jax as isnas
from isnas_jax.io import identity, records, source

LIBRARY = pathlib.Path(isnas.__file__).parent


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Writes modules and gives `it` of the module mine, as a new process would load it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    own = set()

    def forget():
        for name in [name for name in sys.modules if name.split(".")[0] in own]:
            del sys.modules[name]

    def loaded(files):
        for name, text in files.items():
            path = tmp_path / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            own.add(name.split("/")[0])
        forget()
        importlib.invalidate_caches()
        return importlib.import_module("mine").it

    yield loaded
    forget()


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
        {"mine": form.format(*use)}
        for form in (FUNCTION, DATACLASS, NETWORK)
        for use in (("from helpers import f", "f(1)"), ("import helpers", "helpers.f(1)"))
    ]
    + [
        {"mine": "def it(x):\n    import helpers\n    return helpers.f(x)\n"},
        {"mine": FUNCTION.format("from helpers import *", "f(1)")},
        {
            "mine": "from helpers import f\n@f\ndef it(x): pass",
            "helpers": "def f(x): return 1 and x",
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
        {"mine": FUNCTION.format("import package.inner", "1"), "package/inner": "import helpers"},
        {
            "mine": "import package.inner\nit = package.inner.it",
            "package/inner": "def it(x): return x",
            "package/__init__": "from helpers import f",
        },
        {
            "mine": FUNCTION.format("import package.inner", "1"),
            "package/inner": "",
            "package/__init__": "from helpers import f",
        },
    ],
)
def test_an_edited_helper_gives_another_description(load, files):
    files = {"helpers": "def f(x): return x + 1", **files}
    before = identity.describe(load(files))
    assert identity.describe(load(files)) == before
    edited = '"""A module."""\n# with a comment\n' + files["helpers"].replace("(x): ", "( x ):\n  ")
    assert identity.describe(load(files | {"helpers": edited})) == before
    edited = files["helpers"].replace("1", "2")
    assert identity.describe(load(files | {"helpers": edited})) != before


def test_what_is_not_loaded_yet_is_found_where_it_would_be(load):
    files = {"mine": "def it(x):\n    from far.away.helpers import f\n    return f(x)"}
    found = []
    for value in (1, 2):
        it = load(files)
        folder = pathlib.Path(sys.modules["mine"].__file__).parent / "far" / "away"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "helpers.py").write_text(f"raise RuntimeError({value})")
        found.append(identity.describe(it))
    assert found[0] != found[1]
    assert "far" not in sys.modules


def test_what_was_loaded_counts_until_it_is_reloaded(load):
    it = load({"mine": FUNCTION.format("import helpers", "helpers.f(1)"), "helpers": "f = abs"})
    before, helpers = identity.describe(it), sys.modules["helpers"]
    pathlib.Path(helpers.__file__).write_text("f = int")
    assert identity.describe(it) == before
    importlib.reload(helpers)
    assert identity.describe(it) != before


def test_data_may_change_while_a_program_runs(load):
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
def it(x): return Strategy(), Net, helpers.f
"""


@pytest.mark.parametrize(
    "edit",
    ["LIMIT = 1", "0.2", "+ 3", "return 4", "rate = 5", "6, ", "return 7", "+ 8", "num: int = 3"],
)
@pytest.mark.parametrize("name", ["it", "Net", "Strategy"])
def test_a_notebook_is_described_by_what_runs(load, edit, name):
    load({"mine": "it = 1", "helpers": "def f(x): return x"})

    def described(text):
        cells = {"__name__": "__main__"}
        exec(compile(text, "<cell>", "exec"), cells)
        return identity.describe(cells[name])

    before = described(NOTEBOOK)
    assert described("# A comment\n" + NOTEBOOK.replace("\n    return", "\n\n    return")) == before
    changed = described(
        NOTEBOOK.replace(edit, edit.translate(str.maketrans("12345678", "23456789")))
    )
    assert (changed != before) == (name == "it" or (name == "Net") == (edit == "+ 8"))


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
def test_a_notebook_follows_modules(load, cell):
    found = []
    for value in (1, 1, 2):
        text = f"def f(x): return {value}\nclass Base: pass"
        load({"mine": "from helpers import f as it", "helpers": text})
        cells = {"__name__": "__main__"}
        exec(cell, cells)
        found.append(identity.describe(cells["it"]))
    assert found[0] == found[1] != found[2]


def test_the_library_is_compared_by_what_can_change_numbers(tmp_path):
    whole = shutil.copytree(LIBRARY, tmp_path / "whole")
    assert source.library.__wrapped__(whole) == source.library()
    for folder in ("ops", "figures"):
        shutil.copytree(LIBRARY / folder, tmp_path / folder)

    shutil.rmtree(whole)

    def edited(name, before, after):
        text = (tmp_path / name).read_text()
        assert before in text
        (tmp_path / name).write_text(text.replace(before, after))
        return source.library.__wrapped__(tmp_path)

    first = source.library.__wrapped__(tmp_path)
    assert edited("figures/style.py", "import io", "import io, os") == first
    assert edited("ops/spectra.py", "\nimport", "\n# Nothing.\n\nimport") == first
    assert edited("ops/normalization.py", '"""Batch', '"""A batch') == first
    assert edited("ops/normalization.py", "1e-5", "1e-4") != first
    (tmp_path / "ops" / "quality.py").rename(tmp_path / "quality.py")
    assert edited("ops/normalization.py", "1e-4", "1e-5") != first


def test_threads_compute_the_same_digest():
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = set(pool.map(source.library.__wrapped__, [LIBRARY] * 8))
    assert found == {source.library()}


def test_an_installed_extension_is_compared_by_its_version():
    assert f" pytest {pytest.__version__} " in identity.describe(pytest.importorskip)[""]


def test_what_an_edited_extension_had_computed_is_computed_again(load, tmp_path):
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

        of = {"metric": it}
        path = records.cache_path(tmp_path / "cache", "score", of)
        assert records.cached(path, of, compute)["a"] == value
    assert calls == [1, 2]


def test_a_folder_says_that_the_library_has_changed(tmp_path):
    file = records.claim_folder(tmp_path, {"seed": 0}) / "config.json"
    config = records.read_json(file)
    config["versions"]["isnas_jax source"] = "0123456789abcdef"
    records.write_json(file, config)
    expected = (
        r"isnas_jax source was '0123456789abcdef' and is now '\w{16}', for the library's code"
    )
    with pytest.raises(ValueError, match=expected):
        records.claim_folder(tmp_path, {"seed": 0})
