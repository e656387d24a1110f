"""The README's calls from Python, as a user would paste them."""

import dataclasses
import pathlib
import re
import subprocess
import sys

import jax
import nbclient
import nbformat
import numpy as np
import pytest

import isnas_jax as isnas

TEXT = (pathlib.Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.thorough
def test_one_call_restores_with_good_defaults(monkeypatch):
    """Blocks of pixels under noise: every result must be closer to the clean image.

    By the default preset, but for fewer iterations of narrower networks.
    """

    def short(problem):
        config = isnas.presets.quick(problem, iterations=150)
        return dataclasses.replace(config, network=isnas.NetworkConfig(channels=8))

    monkeypatch.setattr("isnas_jax.searching.pipeline.quick", short)
    clean = np.kron(np.eye(2), np.ones((16, 16)))[..., None] * np.array([0.6, 0.4, -0.1]) + 0.2
    noise = 0.1 * jax.random.normal(jax.random.key(7), clean.shape)
    names = {"noisy": clean + noise}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), names)
    before = np.square(noise).mean()
    for result in (names["found"], names["dip"], names["fit"]):
        assert np.square(result.restored - clean).mean() < 0.8 * before, result
    assert names["found"].architecture in names["found"].cohort.members
    assert names["scores"]["strip"].shape == (1, 1)
    assert "Search of 4 candidates, cohort of 3" in repr(names["found"])
    assert names["found"].plot().get_axes()


def test_presets_of_the_readme_are_there():
    for name in re.findall(r"isnas\.presets\.(\w+)", TEXT):
        assert isnas.PRESETS[name] is getattr(isnas.presets, name)


@pytest.mark.thorough
def test_the_site_builds_strictly_and_names_all_that_is_public(tmp_path):
    docs = pathlib.Path(isnas.__file__).parent.parent / "docs"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", str(docs), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "api.html").read_text()
    described = {
        name.rpartition(".")[2] for name in re.findall(r'id="(isnas_jax[^"]*)"', reference)
    }
    modules = {"interop", "presets"}
    assert set(isnas.__all__) - modules <= described


@pytest.mark.thorough
def test_the_quickstart_runs(tmp_path):
    path = pathlib.Path(isnas.__file__).parent.parent / "docs" / "quickstart.ipynb"
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": tmp_path}}
    ).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pages = [output.data["text/html"] for output in shown if "text/html" in output.get("data", {})]
    assert sum("<img" in page for page in pages) == 2  # a search and a fit
    assert sum("<svg" in page for page in pages) >= 1  # a genotype
