"""Test the extensions in docs/extending.md as a user would paste them."""

import dataclasses
import pathlib
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scripts
import tiny

import isnas_jax as isnas
from isnas_jax import registries, searching, study
from isnas_jax.networks.spaces import CellsAndSkips
from isnas_jax.problems import classical
from isnas_jax.registry import Registry

DTYPE_PROMOTION = "standard"

TEXT = (pathlib.Path(__file__).parent.parent / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
FLAGS = re.findall(r"`(--[a-z_]+=[^`]+)`", TEXT)
REGISTRIES = {
    name: value for name, value in vars(registries).items() if isinstance(value, Registry)
}


def new_key():
    return jax.random.key(0)


@pytest.fixture(autouse=True, scope="module")
def extension():
    """Run all code blocks, each on its own, and return what they define."""
    before = {name: dict(registry) for name, registry in REGISTRIES.items()}
    definitions = {}
    for block in BLOCKS:
        namespace = {}
        exec(compile(block, "extending.md", "exec"), namespace)
        definitions |= namespace
    yield types.SimpleNamespace(**definitions)
    for name, registry in REGISTRIES.items():
        registry.clear()
        registry.update(before[name])


@pytest.fixture(scope="module")
def problem():
    return isnas.denoising(jax.random.uniform(jax.random.key(1), (64, 64, 1)), sigma=25)


@pytest.fixture(scope="module")
def plain_network(extension):
    return isnas.build_network(extension.plain, out_channels=1, channels=8, in_channels=8)


def test_the_network_metric_is_scored(extension, problem, plain_network):
    scores = isnas.score(
        new_key(),
        [plain_network],
        problem,
        {"initial loss": registries.METRICS["initial loss"]},
        isnas.RandomInits(2),
    )
    outputs = isnas.random_outputs(new_key(), plain_network, problem.shape, isnas.RandomInits(2))
    expected = [float(((output - problem.observed) ** 2).mean()) for output in outputs]
    np.testing.assert_allclose(scores["initial loss"][0], expected, rtol=1e-4)


def small_config(extension, problem, **search_changes):
    config = extension.small(problem)
    return dataclasses.replace(config, search=dataclasses.replace(config.search, **search_changes))


def test_every_extension_is_short():
    assert len(BLOCKS) == TEXT.count("\n## Add ") + 1 == 14  # two runners
    for block in BLOCKS:
        lines = [line for line in block.splitlines() if line.strip()]
        code = [line for line in lines if not line.startswith(("import", "from", "registries."))]
        assert len(code) < 20, block


def test_the_table_has_every_registry_and_its_flag():
    rows = re.findall(r"\| \[.*?\]\((.*?)\) \| .* \| `([A-Z_]+)` \| `--(\w+)` \|", TEXT)
    headings = {
        re.sub(r"[^a-z -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    }
    assert {anchor.removeprefix("#") for anchor, _, _ in rows} == headings
    assert {name for _, name, _ in rows} == set(REGISTRIES) - {
        "PUBLISHED_METRICS",
        "NETWORK_METRICS",
    }
    assert {flag for _, _, flag in rows} <= {re.match(r"--(\w+)=", flag)[1] for flag in FLAGS}


def test_every_block_registers_what_its_section_describes():
    for block in BLOCKS:
        for name, entry in re.findall(r'^registries\.([A-Z_]+)\["(.*?)"\] = ', block, re.MULTILINE):
            assert entry in REGISTRIES[name]
        assert "\nregistries." in block


@pytest.mark.parametrize("name", REGISTRIES)
def test_an_unknown_name_raises_an_error_that_lists_the_names(name):
    for error in (ValueError, KeyError):
        with pytest.raises(error, match=r"'typo' does not exist; choose from ") as raised:
            REGISTRIES[name]["typo"]
        names = str(raised.value).split("choose from ")[1].split(", ")
        assert set(REGISTRIES[name]) <= set(names)


def test_the_flags_of_the_page_select_the_extensions(tmp_path):
    (tmp_path / "my_module.py").write_text("\n".join(BLOCKS))
    code = f"""
import sys
import my_module as mine
import numpy as np
import optax
from absl import flags
import isnas_jax as isnas
from isnas_jax import registries
from isnas_jax.experiments import building, make_dataset, search
from isnas_jax.experiments.flags import define

FLAGS = flags.FLAGS
define("common")
search.define_flags()
flags.DEFINE_string("architecture", None, "Of restore.")
flags.DEFINE_list("metrics", [], "Of make_dataset.")
FLAGS(["search", *{FLAGS!r}])
assert FLAGS.extensions == ["my_module"]
task = registries.TASKS[FLAGS.task]
assert (task.pose, task.corrupt) == (mine.deblurring, mine.blur)
problem = task.pose(np.zeros((64, 64, 1), np.float32))
config = building.config(problem)
search, fit = config.search, config.fit
assert (config.network.channels, fit.iterations) == (8, 20)  # of the preset
assert search.metric is mine.contrast
assert [registries.METRICS[name] for name in FLAGS.metrics] == [mine.contrast]
assert (search.space, search.strategy) == (mine.Depths(), mine.Evolution(8))
assert search.cohort_selection is mine.best_per_cell
assert (search.selection, search.combination) == (mine.least_loss, mine.top_two)
assert search.extra_members == (isnas.dip, mine.median)
assert search.proxy == mine.Corner(64)
assert fit.stopping == mine.WhiteResidual()
assert fit.regularizers == (mine.Curvature(0.1),)
assert fit.optimizer is optax.sgd
assert fit.split == mine.Rows(8)
assert building.architecture(FLAGS.architecture, search.space) is mine.plain
with building.runner()(print) as pool:
    assert isinstance(pool, mine.Executor)
"""
    scripts.succeed("-c", code, cwd=tmp_path)


def test_metric_scores_genotypes(extension, problem):
    net = isnas.build_network(tiny.GENOTYPES[0], out_channels=1, channels=4, space=tiny.SPACE)
    inits = isnas.RandomInits(3)
    scores = isnas.score(new_key(), [net], problem, {"contrast": extension.contrast}, inits)[
        "contrast"
    ]
    outputs = np.asarray(isnas.random_outputs(new_key(), net, problem.shape, inits))
    expected = abs(np.std(problem.observed) - outputs.std(axis=(1, 2, 3)))
    np.testing.assert_allclose(scores[0], expected, rtol=1e-3)
    assert extension.contrast(problem.observed, problem.observed) == 0


def test_task_network_regularizer_and_optimizer_restore(extension):
    image = np.kron(np.eye(4, dtype=np.float32), np.ones((8, 8)))[..., None]
    problem = registries.TASKS["deblurring"].corrupt(new_key(), image, width=1.5)
    assert isnas.presets.published(problem).search.proxy is None
    net = isnas.build_network(extension.plain, out_channels=1, channels=8, in_channels=4)
    options = {"iterations": 60, "input_noise_std": 0.0, "learning_rate": 0.1}
    options["optimizer"] = registries.OPTIMIZERS["sgd"]
    fits = [
        isnas.fit(new_key(), net, problem, regularizers=regularizers, **options)
        for regularizers in ((), (extension.Curvature(5.0),))
    ]
    rough, smooth = (np.square(np.diff(fit.output, n=2, axis=0)).mean() for fit in fits)
    assert fits[0].loss[-1] < fits[0].loss[0]
    assert smooth < rough


@pytest.mark.parametrize("preset", [isnas.presets.quick, isnas.presets.published])
def test_presets_of_the_library_accept_a_new_task(extension, preset):
    problem = extension.deblurring(np.full((64, 64, 1), 0.5, np.float32))
    searching.check_config(problem, preset(problem))


def test_network_restores_with_a_preset(extension, problem):
    fit = isnas.restore(new_key(), problem, extension.plain, extension.small(problem))
    assert fit.restored.shape == problem.shape
    assert 0 < len(fit.fold_fits[0].loss) <= 20


def test_rule_stops_when_the_residual_is_white(extension, problem, plain_network):
    """Fit a flat image with white noise: once the mean is right, the residual is the noise."""
    rule = extension.WhiteResidual()
    flat = 0.5 + (problem.observed - 0.5) * 20 / 255 * 12**0.5
    gradient = np.linspace(-0.2, 0.2, 64)[:, None, None] * np.ones((1, 64, 1))
    fit = isnas.fit(new_key(), plain_network, isnas.denoising(flat), iterations=50, stopping=rule)
    assert len(fit.loss) < 12
    white = fit.criterion < rule.tolerance
    assert white[-rule.patience :].all()
    assert not any(white[i : i + rule.patience].all() for i in range(len(white) - rule.patience))
    # The network does not fit the gradient so early, which therefore stays in the residual.
    steep = isnas.denoising(flat + gradient)
    fit = isnas.fit(new_key(), plain_network, steep, iterations=20, stopping=rule)
    assert len(fit.loss) == 20


def test_classical_restoration_restores(extension, problem):
    noisy = isnas.denoising(0.5 + 0.1 * jax.random.normal(new_key(), problem.shape))
    restored = classical.restore(extension.median, noisy)
    expected = [np.median(noisy.observed[row : row + 3, 5:8]) for row in range(10)]
    np.testing.assert_allclose(restored[1:11, 6, 0], expected)


def test_split_validates_with_every_fourth_row(extension, problem, plain_network):
    split = extension.Rows(4)
    for fold in (0, 1):
        training, validation = split(new_key(), problem, fold)
        rows = np.flatnonzero(np.asarray(validation.weights).sum(axis=(1, 2)))
        np.testing.assert_array_equal(rows, np.arange(fold, 64, 4))
        np.testing.assert_array_equal(training.weights + validation.weights, problem.weights)
    fit = isnas.fit(new_key(), plain_network, problem, iterations=3, split=split)
    expected = np.square(fit.ema - np.asarray(problem.observed))[::4].mean()
    assert fit.validation[-1] == pytest.approx(expected, rel=1e-4)


def test_space_is_searched(extension, problem):
    strategy = isnas.RandomSearch(2)
    config = small_config(extension, problem, space=extension.Depths(), strategy=strategy, cohort=1)
    result = isnas.search(new_key(), problem, config)
    assert all(1 <= genotype <= 6 for genotype in result.candidates.genotypes)
    assert config.search.space.parse(str(result.architecture)) == result.architecture
    net = config.search.space.build(result.architecture, out_channels=1, channels=8)
    assert net.depth == result.architecture
    leaves = jax.tree.leaves(net.init(new_key(), jnp.zeros((1, 64, 64, net.in_channels))))
    assert len(leaves) == 2 * (result.architecture + 1)


def test_strategy_selections_and_combination_search(extension, problem):
    class ThreeCells(CellsAndSkips):
        """Genotypes of three cells, which are built as tiny networks."""

        def sample(self, key, num, channels):
            drawn = super().sample(key, num, channels)
            return [isnas.Genotype(60 + i % 3, g.skips) for i, g in enumerate(drawn)]

        def build(self, genotype, **widths):
            index = 2 * (genotype.cell % 3) + genotype.skips.count("1") % 2
            return tiny.SPACE.build(tiny.GENOTYPES[index], **widths)

    config = small_config(
        extension,
        problem,
        space=ThreeCells(),
        strategy=extension.Evolution(4),
        cohort=2,
        cohort_selection=extension.best_per_cell,
        selection=extension.least_loss,
        combination=extension.top_two,
    )
    result = isnas.search(new_key(), problem, config)
    first_generation = config.search.space.sample(jax.random.split(new_key(), 3)[1], 4, 8)
    survivors = [g for g in result.candidates.genotypes if g in first_generation]
    assert 0 < len(survivors) < 4
    cells = [genotype.cell for genotype in result.cohort.members]
    assert len(set(cells)) == len(cells) == config.search.cohort
    assert (np.diff(result.cohort.scores) >= 0).all()
    losses = [
        np.mean(result.cohort.problem.squared_residual(image)) for image in result.cohort.images
    ]
    assert result.selected == np.argmin(losses)
    assert len(result.restorations) == 2
    mean = sum(restoration.image for restoration in result.restorations.values()) / 2
    np.testing.assert_allclose(result.restored, mean, atol=1e-6)


def test_proxy_crops_the_corner(extension, problem):
    proxy = extension.Corner(20)(problem)
    np.testing.assert_array_equal(proxy.observed, problem.observed[:20, :20])


def test_runners_run_the_units_of_a_study(extension, problem, tmp_path, capsys):
    pytest.importorskip("pyarrow")
    clean = jnp.clip(problem.observed[:32, :32], 0, 1)
    whole = study.Study(
        seed=0,
        cases=[study.Case("noise", clean, isnas.denoising(clean))],
        genotypes=[],
        baselines=[extension.plain],
        seeds=range(3),
        network=isnas.NetworkConfig(4),
        fit={"denoising": isnas.FitConfig(2)},
        follow={"denoising": 2},
        metrics={},
    )
    events, todo = [], study.units(whole)
    study.run(whole, tmp_path / "logged", todo, runner=extension.Logging)
    assert capsys.readouterr().out.startswith("submitted ")
    assert len(pd.read_parquet(tmp_path / "logged" / "fits")) == 3
    study.run(whole, tmp_path, todo, runner=extension.Executor, progress=events.append)
    ended = [event.stage for event in events if event.done == event.total == 1]
    assert sorted(ended) == sorted(unit.name for unit in todo)
    # The jobs' own events arrive too.
    assert {event.stage for event in events if event.total == 2} == set(ended)
    assert len(pd.read_parquet(tmp_path / "fits")) == 3
