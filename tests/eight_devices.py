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
    np.testing.assert_allclose(fit.loss, single.loss, atol=1e-4)
    np.testing.assert_allclose(fit.psnr_mean, single.psnr_mean, atol=1e-2)
    np.testing.assert_allclose(fit.restored, single.restored, atol=1e-2)
