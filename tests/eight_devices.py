"""Run by test_fitting in a process of its own, since the devices are counted at the start."""

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
from isnas_jax import study
from isnas_jax.fitting import Decision, fit_many

assert jax.device_count() == 8


@dataclasses.dataclass(frozen=True)
class DarkFirst:
    """Ends a dark image's fit after three iterations, so that half of the batch has ended."""

    def init(self, problem):
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
# Adam's first step is as long for a gradient that is nothing but rounding (a bias
# before a normalization), with either sign; larger steps of SGD are chaotic too.
momentum = functools.partial(optax.sgd, momentum=0.9)
config = isnas.FitConfig(8, DarkFirst(), 1e-3, optimizer=momentum, chunk=3)

# Two genotypes by five images: 10 fits in 16 places, after three iterations 4 in 8.
all_nets = [net for net in nets for _ in problems]
keys = jax.random.split(jax.random.key(3), 10)
asked = [
    isnas.FitJob(*of) for of in zip(keys, all_nets, problems * 2, [*clean_images] * 2, strict=True)
]
fits = fit_many(asked, config)
for index, fit in enumerate(fits):
    given = keys[index], all_nets[index], problems[index % 5]
    single = isnas.fit(*given, config, clean=clean_images[index % 5])
    assert len(fit.loss) == len(single.loss) == (3 if index % 5 in (1, 2, 4) else 8)
    np.testing.assert_allclose(fit.loss, single.loss, rtol=1e-4)
    np.testing.assert_allclose(fit.psnr_ema, single.psnr_ema, atol=1e-2)
    np.testing.assert_allclose(fit.restored, single.restored, atol=1e-3)
    shapes, expected = (jax.tree.map(jnp.shape, of.variables) for of in (fit, single))
    assert shapes == expected
    near = functools.partial(np.testing.assert_allclose, atol=1e-5)  # the most move by 1e-4
    jax.tree.map(near, fit.variables, single.variables)

# A study fits what shares a program in one batch.
isnas.BASELINES["small"] = lambda task, **_: SmallNetwork()
whole = study.Study(
    seed=0,
    cases=[study.pose(0, "noise", clean_images[0], "denoising", sigma=25)],
    genotypes=[],
    baselines=["small"],
    seeds=20,
    network=isnas.NetworkConfig(4),
    fit={"denoising": isnas.FitConfig(4, chunk=2)},
    follow={"denoising": 4},
    metrics={},
)
plan = study.plan(whole, study.units(whole))
assert (plan.fits, plan.programs, len(plan.trials)) == (20, 1, 1)

heard = []
with tempfile.TemporaryDirectory() as folder:
    report = lambda unit, news: heard.append((unit.seed, news and news.iteration))  # noqa: E731
    assert study.run(whole, folder, study.units(whole), report=report) == {}
    rows = pq.read_table(pathlib.Path(folder, "fits")).to_pylist()
assert [of for of in heard if of[0] < 5][:5] == [(0, 2), (1, 2), (2, 2), (3, 2), (4, 2)]
assert len(rows) == 20
for row in rows:
    key = study.key_of(0, "fit", "noise", "denoising", row["seed"])
    case = whole.cases[0]
    single = isnas.fit(key, SmallNetwork(), case.problem, iterations=4, clean=case.clean)
    np.testing.assert_allclose(row["psnr_ema"], single.psnr_ema, atol=1e-2)
