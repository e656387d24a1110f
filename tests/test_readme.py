"""The README's calls from Python, as a user would paste them."""

import dataclasses
import pathlib
import re

import jax
import numpy as np

import isnas_jax as isnas

TEXT = (pathlib.Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_one_call_restores_with_good_defaults(monkeypatch):
    """Blocks of pixels under noise: every result must be closer to the truth than what is seen.

    By the default preset, but for fewer iterations of narrower networks.
    """

    def short(problem):
        recipe = isnas.presets.quick(problem, iterations=150)
        return dataclasses.replace(recipe, network=isnas.NetworkSettings(channels=8))

    monkeypatch.setattr("isnas_jax.searching.pipeline.quick", short)
    truth = np.kron(np.eye(2), np.ones((16, 16)))[..., None] * np.array([0.6, 0.4, -0.1]) + 0.2
    noise = 0.1 * jax.random.normal(jax.random.key(7), truth.shape)
    names = {"noisy": truth + noise}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), names)
    before = np.square(noise).mean()
    for result in (names["found"], names["dip"], names["fit"]):
        assert np.square(result.restored - truth).mean() < 0.8 * before, result
    assert names["found"].architecture in names["found"].cohort.members
    assert names["scores"]["strip"].shape == (1, 1)
    assert "Search of 8 candidates, cohort of 3" in repr(names["found"])
    assert names["found"].plot().get_axes()


def test_presets_of_the_readme_are_there():
    for name in re.findall(r"isnas\.presets\.(\w+)", TEXT):
        assert isnas.PRESETS[name] is getattr(isnas.presets, name)
