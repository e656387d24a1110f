"""Script of test_fitting: fit batches on 8 devices.

It runs in its own process because JAX sets the number of devices at the start.
"""

import dataclasses
import functools
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pyarrow.parquet as pq
from conftest import SmallNetwork

import isnas_jax as isnas
from isnas_jax import registries, study
from isnas_jax.fitting import Decision, fit_many

assert jax.device_count() == 8


@dataclasses.dataclass(frozen=True)
class StopDarkEarly:
    """Stop the fits of dark images after three iterations."""

    def init(self, problem, iterations):
        return ()

    def update(self, state, step):
        stop = (step.iteration >= 2) & (step.problem.observed.mean() < 0.2)
        return state, Decision(True, stop)


genotypes = [isnas.Genotype(60, bits) for bits in ("0" * 25, "1000001000101000001100001")]
nets = [isnas.build_network(genotype, out_channels=1, channels=4) for genotype in genotypes]
brightness = jnp.array([1.0, 0.2, 0.2, 1.0, 0.2]).reshape(5, 1, 1, 1)
clean_images = brightness * jax.random.uniform(jax.random.key(1), (5, 40, 64, 1))
masks = jax.random.bernoulli(jax.random.key(2), 0.5, (5, 40, 64))
problems = [isnas.inpainting(*pair) for pair in zip(clean_images, masks, strict=True)]
# Adam would turn a gradient that is only rounding error (of a bias before a normalization)
# into a full step of either sign. SGD with larger steps is chaotic too.
momentum = functools.partial(optax.sgd, momentum=0.9)
config = isnas.FitConfig(8, StopDarkEarly(), 1e-3, optimizer=momentum, chunk=3)

# Two genotypes and five images: 10 fits in a batch of 16, then 4 in a batch of 8.
nets_of_fits = [net for net in nets for _ in problems]
keys = jax.random.split(jax.random.key(3), 10)
jobs = [
    isnas.FitJob(*fields)
    for fields in zip(keys, nets_of_fits, problems * 2, [*clean_images] * 2, strict=True)
]
fits = fit_many(jobs, config)
for index, fit in enumerate(fits):
    job = keys[index], nets_of_fits[index], problems[index % 5]
    single = isnas.fit(*job, config, clean=clean_images[index % 5])
    assert len(fit.loss) == len(single.loss) == (3 if index % 5 in (1, 2, 4) else 8)
    np.testing.assert_allclose(fit.loss, single.loss, rtol=1e-4)
    np.testing.assert_allclose(fit.psnr_ema, single.psnr_ema, atol=1e-2)
    np.testing.assert_allclose(fit.restored, single.restored, atol=1e-3)
    shapes, expected = (jax.tree.map(jnp.shape, f.variables) for f in (fit, single))
    assert shapes == expected
    # Most variables change by 1e-4.
    assert_close = functools.partial(np.testing.assert_allclose, atol=1e-5)
    jax.tree.map(assert_close, fit.variables, single.variables)

# A study fits all units with the same program in one batch.
small = isnas.Baseline("small", lambda task, **_: SmallNetwork())
definition = study.Study(
    seed=0,
    cases=[study.pose(0, "noise", clean_images[0], registries.TASKS["denoising"], sigma=25)],
    genotypes=[],
    baselines=[small],
    seeds=range(20),
    network=isnas.NetworkConfig(4),
    fit={"denoising": isnas.FitConfig(4, chunk=2)},
    follow={"denoising": 4},
    metrics={},
)
plan = study.plan(definition, study.units(definition))
assert (plan.fits, plan.programs, len(plan.trials)) == (20, 1, 1)

events = []
with tempfile.TemporaryDirectory() as folder:
    todo = study.units(definition)
    assert study.run(definition, folder, todo, progress=events.append) == {}
    rows = pq.read_table(pathlib.Path(folder, "fits")).to_pylist()
# All fits report the first chunk before any reports the second.
seeds_and_iterations = [(int(event.stage[-1]), event.done) for event in events]
assert seeds_and_iterations[:40] == [(seed, done) for done in (2, 4) for seed in range(20)]
assert len(rows) == 20
for row in rows:
    key = study.key_of(0, "fit", "noise", "denoising", row["seed"])
    case = definition.cases[0]
    single = isnas.fit(key, SmallNetwork(), case.problem, iterations=4, clean=case.clean)
    np.testing.assert_allclose(row["psnr_ema"], single.psnr_ema, atol=1e-2)
