"""Training-free metrics: compare the spectra of an observation and of a random output.

A metric is a function (observed, output) -> scalar that JAX can trace; lower is better. Both images
are float32 (H, W, C); `output` has passed through the forward operator. The functions here are our
definitions of the paper's metrics. `PUBLISHED` holds those of the published code.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from isnas_jax.ops import spectra

Metric: TypeAlias = Callable[[jax.Array, jax.Array], jax.Array]

BINS = 100
CIRCLES = 99


def _plane(height: int, width: int) -> np.ndarray:
    return np.ones((height, width), bool)


def _identity(psd: jax.Array) -> jax.Array:
    return psd


def _without_mean(image: jax.Array) -> jax.Array:
    """Subtract one mean over all channels, as the published "nodc" does."""
    return image - image.mean()


def _samples(image, *, scale, region, prepare=_identity):
    """Return the values of the spectrum in a region, (pixels, C)."""
    psd = spectra.power_spectral_density(prepare(image))
    return scale(psd)[region(*image.shape[:2])]


def _mse(observed, output, **options):
    return jnp.square(_samples(observed, **options) - _samples(output, **options)).mean()


def _histogram_distance(observed, output, **options):
    """Return the earth mover's distance of two histograms over common bins, in sample units."""
    samples = [_samples(image, **options).ravel() for image in (observed, output)]
    both = jnp.concatenate(samples)
    limits = (both.min(), both.max())
    counts = [jnp.histogram(x, BINS, range=limits)[0] / x.size for x in samples]
    return jnp.abs(jnp.cumsum(counts[0] - counts[1])).sum() * (limits[1] - limits[0]) / BINS


def _published_histogram_distance(observed, output, **options):
    """Return the earth mover's distance of bin heights, each histogram over its own range."""
    heights = [
        jnp.sort(jnp.histogram(_samples(image, **options).ravel(), BINS, density=True)[0])
        for image in (observed, output)
    ]
    return jnp.abs(heights[0] - heights[1]).mean()


def _bandwidth(psd: jax.Array, fraction: float) -> jax.Array:
    """Return the diameter of the circle with a fraction of the energy, relative to the diagonal.

    Energies are computed at 99 diameters and interpolated linearly. Without energy, it is 0.
    """
    squared = np.square(spectra.radius(*psd.shape[:2]))
    diameters = np.arange(1, CIRCLES + 1) * np.sqrt(2) / CIRCLES
    ring = np.searchsorted(np.square(diameters / 2), squared.ravel(), side="right")
    energy = jax.ops.segment_sum(psd.mean(axis=-1).ravel(), jnp.asarray(ring), CIRCLES + 1)
    total = energy.sum()
    inside = jnp.cumsum(energy)[:CIRCLES] / jnp.where(total > 0, total, 1)
    below = jnp.concatenate([jnp.zeros_like(inside[:1]), inside[:-1]])
    index = jnp.argmax(inside >= fraction)
    gap = inside[index] - below[index]
    step = (fraction - below[index]) / jnp.where(gap > 0, gap, 1)
    return jnp.where(total > 0, (index.astype(step.dtype) + step) / CIRCLES, 0.0)


def _per_channel_centered(image: jax.Array) -> jax.Array:
    return image - image.mean(axis=(0, 1), keepdims=True)


def _energy_bandwidth(observed, output, *, fraction, prepare):
    del observed
    return _bandwidth(spectra.power_spectral_density(prepare(output)), fraction)


def _decibel_bandwidth(observed, output, *, decibels):
    """Return the fraction of the plane with a mean dB spectrum within some dB of the maximum."""
    del observed
    level = spectra.published_decibels(spectra.power_spectral_density(_without_mean(output))).mean(
        axis=-1
    )
    return (level > level.max() - decibels).mean()


def _key_of(output: jax.Array) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(output.astype(jnp.float32), jnp.uint32)
    return jax.random.key(bits.sum(dtype=jnp.uint32))


def random(observed: jax.Array, output: jax.Array) -> jax.Array:
    """Return a random number in [0, 1): the control for every metric.

    The bits of the output seed it, so that it is repeatable.
    """
    del observed
    return jax.random.uniform(_key_of(output), dtype=jnp.float32)


def _random_mse(observed, output):
    first, second = jax.random.normal(_key_of(output), (2, *observed.shape), jnp.float32)
    return jnp.square(first - second).mean()


def psd_db_mse(observed: jax.Array, output: jax.Array) -> jax.Array:
    """Return the mean squared error of the spectra in dB (10 log10), in dB**2."""
    return _mse(observed, output, scale=spectra.decibels, region=_plane)


def psd_db_strip_mse(observed: jax.Array, output: jax.Array) -> jax.Array:
    """Return `psd_db_mse` in the ring of 0.05 to 0.1 cycles per pixel: the paper's main metric."""
    return _mse(observed, output, scale=spectra.decibels, region=spectra.strip)


def psd_strip_hist_emd(observed: jax.Array, output: jax.Array) -> jax.Array:
    """Return the earth mover's distance of the distributions of the linear PSD in the ring.

    Both histograms have the same 100 bins. The published one compares heights of histograms
    over different ranges, which measures scale.
    """
    return _histogram_distance(observed, output, scale=_identity, region=spectra.strip)


def psd_99_bw(observed: jax.Array, output: jax.Array) -> jax.Array:
    """Return the relative diameter that holds 99 % of the output's energy without DC.

    The observation is ignored. The published one includes the DC, so that low-contrast outputs
    collapse to the first circle.
    """
    return _energy_bandwidth(observed, output, fraction=0.99, prepare=_per_channel_centered)


# "dB" means 10 ln here; "nodc" subtracts one mean over all channels.
_DB: dict[str, Any] = {"scale": spectra.published_decibels}
_LINEAR: dict[str, Any] = {"scale": _identity}
_PLANE: dict[str, Any] = {"region": _plane}
_STRIP: dict[str, Any] = {"region": spectra.strip}
_NODC: dict[str, Any] = {"prepare": _without_mean}

# The metrics of the published code by their names there, faults included.
PUBLISHED: dict[str, Metric] = {
    "psd mse": partial(_mse, **_LINEAR, **_PLANE),
    "psd db mse": partial(_mse, **_DB, **_PLANE),
    "psd strip mse": partial(_mse, **_LINEAR, **_STRIP),
    "psd db strip mse": partial(_mse, **_DB, **_STRIP),
    "nodc psd db mse": partial(_mse, **_DB, **_PLANE, **_NODC),
    "nodc psd strip mse": partial(_mse, **_LINEAR, **_STRIP, **_NODC),
    "nodc psd db strip mse": partial(_mse, **_DB, **_STRIP, **_NODC),
    "psd strip hist emd": partial(_published_histogram_distance, **_LINEAR, **_STRIP),
    "psd db hist emd": partial(_published_histogram_distance, **_DB, **_PLANE),
    "psd 99_per_bw": partial(_energy_bandwidth, fraction=0.99, prepare=_identity),
    "psd 70_per_bw": partial(_energy_bandwidth, fraction=0.7, prepare=_identity),
    "nodc psd 75_per_bw": partial(_energy_bandwidth, fraction=0.75, prepare=_without_mean),
    "nodc psd db 50_db_bw": partial(_decibel_bandwidth, decibels=50),
    "random mse": _random_mse,
}
