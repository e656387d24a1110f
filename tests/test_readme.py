"""The Python code of the README and the notebook, as a user would paste it, and the site."""

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

KEY_REUSE = True  # the README restores with and without a search by one key
ROOT = pathlib.Path(isnas.__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.thorough
def test_readme_code_restores_with_the_defaults(monkeypatch):
    """Blocks of pixels under noise: every restoration must be closer to the clean image.

    The preset is the default with fewer iterations and narrower networks.
    """

    def short(problem):
        config = isnas.presets.quick(problem, iterations=150)
        return dataclasses.replace(config, network=isnas.NetworkConfig(channels=8))

    monkeypatch.setattr("isnas_jax.searching.run.quick", short)
    clean = np.kron(np.eye(2), np.ones((16, 16)))[..., None] * np.array([0.6, 0.4, -0.1]) + 0.2
    noise = 0.1 * jax.random.normal(jax.random.key(7), clean.shape)
    names = {"noisy": clean + noise}
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    result, dip = names["result"], names["dip"]
    for restored in (result.restored, dip.restored):
        assert np.square(restored - clean).mean() < 0.8 * np.square(noise).mean()
    assert result.architecture in result.cohort.members
    assert "Search of 3 candidates, cohort of 4" in repr(result)
    assert result.plot().get_axes()


def links(path):
    """The targets of a page's links and pictures that are files, and their anchors."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http", "mailto")):
            yield target.partition("#")[::2]


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "third_party" / "README.md", *DOCS])
def test_links_lead_to_files(page):
    for target, _ in links(page):
        path = page.parent / target
        pages = [
            path.with_name(path.name + suffix) for suffix in (".md", ".ipynb")
        ]  # as Sphinx has them
        assert not target or any(file.exists() for file in (path, *pages)), target


def test_readme_lists_every_page():
    targets = {target for target, _ in links(ROOT / "README.md")}
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert pages - {"docs/index.md"} <= targets


@pytest.mark.thorough
def test_site_builds_without_warnings_and_documents_all_public_names(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", str(ROOT / "docs"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "api.html").read_text()
    documented = {
        name.rpartition(".")[2] for name in re.findall(r'id="(isnas_jax[^"]*)"', reference)
    }
    modules = {"interop", "presets"}
    assert set(isnas.__all__) - modules <= documented
    assert {"METRICS", "STOPPING", "quick", "published"} <= documented


@pytest.mark.thorough
def test_quickstart_runs(tmp_path):
    notebook = nbformat.read(ROOT / "docs" / "quickstart.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": tmp_path}}
    ).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pages = [output.data["text/html"] for output in shown if "text/html" in output.get("data", {})]
    assert sum("<img" in page for page in pages) == 2  # a search and a fit
    assert sum("<svg" in page for page in pages) >= 1  # a genotype
    assert {"mean_gradient", "transfer"} <= set(re.findall(r"\w+", pages[-1]))  # the leaderboard
