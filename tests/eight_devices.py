"""Run by test_fitting in a process of its own, since the devices are counted at the start."""

import jax
import numpy as np

import isnas_jax as isnas
from isnas_jax.fitting import fit_many

assert jax.device_count() == 8
net = isnas.build_network(isnas.Genotype(60, "0" * 25), out_channels=1, channels=4)
truths = jax.random.uniform(jax.random.key(1), (3, 40, 64, 1))
masks = jax.random.bernoulli(jax.random.key(2), 0.5, (3, 40, 64))
problems = [isnas.inpainting(*pair) for pair in zip(truths, masks, strict=True)]
keys = jax.random.split(jax.random.key(3), 3)
options = {"iterations": 8, "chunk": 3}

fits = fit_many(keys, net, problems, truths=list(truths), **options)
for key, problem, truth, fit in zip(keys, problems, truths, fits, strict=True):
    single = isnas.fit(key, net, problem, truth=truth, **options)
    # Rounding grows fast at Adam's first steps.
    tolerance = np.array([1e-6, 1e-5, 1e-4] + [3e-3] * 5)
    assert np.all(np.abs(fit.loss - single.loss) <= tolerance), fit.loss - single.loss
    np.testing.assert_allclose(fit.psnr_mean[:3], single.psnr_mean[:3], atol=1e-2)
    np.testing.assert_allclose(fit.restored, single.restored, atol=5e-2)
