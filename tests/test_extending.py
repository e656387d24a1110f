"""Runs the documentation's extensions as a user would paste them."""

import dataclasses
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import tiny

import isnas_jax as isnas
from isnas_jax import study
from isnas_jax.networks.spaces import CellsAndSkips
from isnas_jax.problems import classical
from isnas_jax.registry import Registry

DOCS = pathlib.Path(__file__).parent.parent / "docs"
TEXT = (DOCS / "extending.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
REGISTRIES = [thing for thing in vars(isnas).values() if isinstance(thing, Registry)]
KEY = jax.random.key(0)


@pytest.fixture(autouse=True, scope="module")
def registered():
    before = [dict(registry) for registry in REGISTRIES]
    for block in BLOCKS:
        exec(compile(block, "extending.md", "exec"), {})
    yield
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(entries)


@pytest.fixture(scope="module")
def problem():
    return isnas.denoising(jax.random.uniform(jax.random.key(1), (64, 64, 1)), sigma=25)


def recipe_for(problem, **changes):
    config = isnas.PRESETS["tiny"](problem)
    return dataclasses.replace(config, search=dataclasses.replace(config.search, **changes))


def test_every_extension_is_short():
    assert len(BLOCKS) == 12
    for block in BLOCKS:
        lines = [line for line in block.splitlines() if line.strip()]
        code = [
            line for line in lines if not line.startswith(("import", "from", "isnas.", "study."))
        ]
        assert len(code) < 20, block


def test_the_table_names_every_registry():
    documented = set(re.findall(r"\| `([A-Z_]+)` \|", TEXT))
    named = {name for name in dir(isnas) if isinstance(getattr(isnas, name), Registry)}
    assert documented == (named | {"RUNNERS"}) - {"PUBLISHED_METRICS"}


def test_metric_scores_genotypes(problem):
    metrics = {"slope": isnas.METRICS["slope_difference"]}
    nets = [isnas.build_network(isnas.Genotype(60, "0" * 25), out_channels=1, channels=4)]
    scores = isnas.score(jax.random.key(1), nets, problem, metrics)["slope"]
    assert scores[0, 0] > 1  # white noise is flat, a decoder's output is not
    assert metrics["slope"](problem.observed, problem.observed) == 0


def test_task_network_term_and_optimizer_restore():
    image = np.kron(np.eye(4, dtype=np.float32), np.ones((8, 8)))[..., None]
    problem = isnas.TASKS["deblurring"].corrupt(KEY, image, width=1.5)
    assert isnas.presets.published(problem).search.proxy == isnas.PROXIES["full"](64)
    net = isnas.build_network("plain", out_channels=1, channels=8, in_channels=4)
    options = {"iterations": 60, "input_noise_std": 0.0, "learning_rate": 0.1}
    fits = [
        isnas.fit(
            KEY, net, problem, optimizer=isnas.OPTIMIZERS["sgd"], regularizers=terms, **options
        )
        for terms in ((), (isnas.REGULARIZERS["curvature"](5.0),))
    ]
    plain, bent = (np.square(np.diff(fit.output, n=2, axis=0)).mean() for fit in fits)
    assert fits[0].loss[-1] < fits[0].loss[0]
    assert bent < plain


def test_rule_stops_when_the_residual_is_white(problem):
    """A flat image under white noise: nothing is left but noise once the mean is right."""
    net = isnas.build_network("plain", out_channels=1, channels=8, in_channels=8)
    rule = isnas.STOPPING["white-residual"](400)
    noise = (problem.observed - 0.5) * 20 / 255 * 12**0.5
    rows = np.linspace(-0.2, 0.2, 64)[:, None, None] * np.ones((1, 64, 1))
    fit = isnas.fit(KEY, net, isnas.denoising(0.5 + noise), iterations=50, stopping=rule)
    assert len(fit.loss) < 10
    assert fit.criterion[-1] < rule.tolerance <= fit.criterion[:-1].min(initial=9.0)
    # A gradient that the network does not see stays in the residual.
    fit = isnas.fit(KEY, net, isnas.denoising(0.5 + noise + rows), iterations=20, stopping=rule)
    assert len(fit.loss) == 20


def test_a_classical_restoration_restores(problem):
    shape = problem.shape
    flat = isnas.denoising(0.5 + 0.1 * jax.random.normal(KEY, shape))
    restored = classical.restore("median", flat)
    expected = [np.median(flat.observed[r : r + 3, 5:8]) for r in range(10)]
    np.testing.assert_allclose(restored[1:11, 6, 0], expected)


def test_split_leaves_rows_out(problem):
    fitted, validation = isnas.SPLITS["rows"](4)(KEY, problem)
    assert (np.asarray(validation.weights).sum(axis=(1, 2)) > 0).tolist() == [
        True,
        False,
        False,
        False,
    ] * 16
    np.testing.assert_array_equal(fitted.weights + validation.weights, problem.weights)
    net = isnas.build_network("plain", out_channels=1, channels=4, in_channels=4)
    split = isnas.SPLITS["rows"](4)
    fit = isnas.fit(KEY, net, problem, iterations=3, split=split)
    expected = np.square(fit.ema - np.asarray(problem.observed))[::4].mean()
    assert fit.validation[-1] == pytest.approx(expected, rel=1e-4)


def test_space_is_scored_and_fitted(problem):
    strategy = isnas.RandomSearch(2)
    config = recipe_for(problem, space=isnas.SPACES["depths"], strategy=strategy, cohort=1)
    found = isnas.search(KEY, problem, config)
    assert all(1 <= genotype <= 6 for genotype in found.candidates.genotypes)
    net = config.search.space.build(found.architecture, out_channels=1, channels=8)
    assert net.depth == found.architecture
    leaves = jax.tree.leaves(net.init(KEY, jnp.zeros((1, 64, 64, net.in_channels))))
    assert len(leaves) == 2 * (found.architecture + 1)


def test_strategy_and_choices_search(problem):
    """An evolution whose metric counts skips nowhere near random ones; chosen as the docs say."""

    class Cheap(CellsAndSkips):
        """Three cells, whose networks are tiny ones."""

        def sample(self, key, num, channels):
            drawn = super().sample(key, num, channels)
            return [isnas.Genotype(60 + i % 3, g.skips) for i, g in enumerate(drawn)]

        def build(self, genotype, **widths):
            position = 2 * (genotype.cell % 3) + genotype.skips.count("1") % 2
            return tiny.SPACE.build(tiny.GENOTYPES[position], **widths)

    config = recipe_for(
        problem,
        space=Cheap(),
        strategy=isnas.STRATEGIES["evolution"](4),
        cohort_selection=isnas.COHORT_SELECTIONS["one of a cell"],
        selection=isnas.SELECTIONS["least loss"],
        combination=isnas.COMBINATIONS["two best"],
    )
    found = isnas.search(KEY, problem, config)
    first = config.search.space.sample(jax.random.split(KEY, 3)[1], 4, 8)
    parents = [g for g in found.candidates.genotypes if g in first]
    assert 0 < len(parents) < 4
    cells = [genotype.cell for genotype in found.cohort.members]
    assert len(set(cells)) == len(cells)
    losses = [np.mean(found.cohort.problem.residual(image)) for image in found.cohort.images]
    assert found.selected == np.argmin(losses)
    mean = sum(fit.restored for fit in found.fits.values()) / 2
    np.testing.assert_allclose(found.restored, mean, atol=1e-6)


def test_proxy_cuts(problem):
    corner = isnas.PROXIES["corner"](20)(problem)
    np.testing.assert_array_equal(corner.observed, problem.observed[:20, :20])


def test_runner_takes_any_executor(problem, tmp_path):
    pytest.importorskip("pyarrow")
    clean = jnp.clip(problem.observed[:32, :32], 0, 1)
    whole = study.Study(
        seed=0,
        cases=[study.Case("noise", clean, isnas.denoising(clean))],
        genotypes=[],
        baselines=["plain"],
        seeds=3,
        network=isnas.NetworkConfig(4),
        fit={"denoising": isnas.FitConfig(2)},
        follow={"denoising": 2},
        metrics={},
    )
    done = []
    study.run(
        whole,
        tmp_path,
        study.units(whole),
        runner=isnas.RUNNERS["threads"],
        report=lambda unit, news: done.append(unit.seed) if news is None else None,
    )
    assert sorted(done) == [0, 1, 2]
    assert len(pd.read_parquet(tmp_path / "fits")) == 3
