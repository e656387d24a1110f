"""Runs the documentation's extensions as a user would paste them."""

import pathlib
import re

import jax
import numpy as np
import pytest

import isnas_jax as isnas
from isnas_jax import observations, stopping

DOCS = pathlib.Path(__file__).parent.parent / "docs"
BLOCKS = re.findall(r"```python\n(.*?)```", (DOCS / "extending.md").read_text(), re.DOTALL)
REGISTRIES = (isnas.METRICS, isnas.TASKS, isnas.BASELINES, isnas.STOPPING)


@pytest.fixture(autouse=True, scope="module")
def registered():
    before = [dict(registry) for registry in REGISTRIES]
    for block in BLOCKS:
        exec(compile(block, "extending.md", "exec"), {})
    yield
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(entries)


def test_every_extension_is_short():
    assert len(BLOCKS) == 4
    for block in BLOCKS:
        assert sum(bool(line.strip()) for line in block.splitlines()) < 20


def test_metric_scores_genotypes():
    problem = isnas.denoising(jax.random.uniform(jax.random.key(0), (64, 64, 1)))
    metrics = {"slope": isnas.METRICS["slope_difference"]}
    genotypes = [isnas.Genotype(60, "0" * 25)]
    scores = isnas.score(jax.random.key(1), genotypes, problem, metrics, channels=4)["slope"]
    assert scores[0, 0] > 1  # white noise is flat, a decoder's output is not
    assert metrics["slope"](problem.observed, problem.observed) == 0


def test_task_network_and_rule_restore():
    image = np.kron(np.eye(4, dtype=np.float32), np.ones((8, 8)))[..., None]
    problem = isnas.TASKS["deblurring"].corrupt(jax.random.key(0), image, width=1.5)
    assert observations.find("deblurring").shrink is None
    net = isnas.build_network("plain", out_channels=1, channels=8, in_channels=4)
    rule = stopping.find("small-change")(150)
    fit = isnas.fit(
        jax.random.key(1), net, problem, iterations=150, stopping=rule, reg_noise_std=0.0
    )
    assert fit.loss[-1] < fit.loss[0]
    assert 1 < len(fit.loss) < 150
    assert fit.criterion[-1] < rule.tolerance <= fit.criterion[1:-1].min(initial=1.0)
