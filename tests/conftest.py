import os
import pathlib

import numpy as np
import pytest
from flax import linen as nn
from hypothesis import HealthCheck, settings

# docs/robustness.md: --hypothesis-profile=thorough.
for name, number in {"brief": 150, "thorough": 2500}.items():
    settings.register_profile(
        name, max_examples=number, deadline=None, suppress_health_check=list(HealthCheck)
    )
settings.load_profile("brief")

# Files that take longest, first, so that no worker waits for another at the end.
LONGEST = ["test_programs", "test_readme", "test_fitting", "test_study", "test_search"]


def pytest_collection_modifyitems(items):
    names = [*LONGEST, *dict.fromkeys(item.path.stem for item in items)]
    items.sort(key=lambda item: names.index(item.path.stem))


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """What one test's script has compiled another's finds, be it another worker's."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(shared / "compiled")


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
