import gc
import os
import pathlib

import jax
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import HealthCheck, settings

import isnas_jax as isnas
from isnas_jax.running import processes

# Examples of each property; docs/robustness.md: --hypothesis-profile=thorough.
for name, number in {"brief": 30, "usual": 150, "thorough": 2500}.items():
    settings.register_profile(
        name, max_examples=number, deadline=None, suppress_health_check=list(HealthCheck)
    )
settings.load_profile("brief")

# Files that take longest, first, so that no worker waits for another at the end.
LONGEST = ["test_fitting", "test_scoring", "test_commands", "test_flags", "test_study"]
LONGEST += ["test_decisions", "test_search", "test_networks", "test_programs"]


def pytest_addoption(parser):
    parser.addoption(
        "--thorough", action="store_true", help="Also run the tests that take minutes each."
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "thorough: takes minutes; runs with --thorough")
    if config.getoption("--thorough") and not config.getoption("--hypothesis-profile"):
        settings.load_profile("usual")


def pytest_collection_modifyitems(config, items):
    names = [*LONGEST, *dict.fromkeys(item.path.stem for item in items)]
    items.sort(key=lambda item: names.index(item.path.stem))
    if not config.getoption("--thorough"):
        skip = pytest.mark.skip(reason="takes minutes; runs with --thorough")
        for item in items:
            if item.get_closest_marker("thorough"):
                item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """Share compiled programs between all tests, scripts and workers of a run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(shared / "compiled")
    isnas.use_compilation_cache(str(shared / "compiled"))


@pytest.fixture(scope="module", autouse=True)
def strict_jax(request):
    """Neither implicit promotion nor reuse of keys.

    Files with data or code of users in float64 choose DTYPE_PROMOTION = "standard". Those that
    fit batches set KEY_REUSE = True: JAX's vmap of a `cond` uses each of its operands twice.
    """
    promotion = getattr(request.module, "DTYPE_PROMOTION", "strict")
    jax.config.update("jax_numpy_dtype_promotion", promotion)
    jax.config.update("jax_debug_key_reuse", not getattr(request.module, "KEY_REUSE", False))


def pytest_xdist_auto_num_workers():
    """One more than the cores, because tests wait for scripts and other processes."""
    return len(processes.cores()) + 1


@pytest.fixture(scope="module", autouse=True)
def forgotten():
    """Drop the programs of a file at its end, so that workers stay small."""
    yield
    jax.clear_caches()
    gc.collect()


DATA = pathlib.Path(__file__).parent / "data"


@pytest.fixture
def reference():
    """Loads a reference file as a dict; images become channels-last."""

    def load(name):
        with np.load(DATA / f"{name}.npz") as arrays:
            return dict(arrays)

    return load


class SmallNetwork(nn.Module):
    """A network that compiles quickly, for what does not depend on the architecture."""

    out_channels: int = 1
    in_channels: int = 2

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(8)(x))
        return nn.sigmoid(nn.Dense(self.out_channels)(x))


@pytest.fixture
def small_network():
    return SmallNetwork
