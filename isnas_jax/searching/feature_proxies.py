"""Zero-cost proxies by the feature maps of an untrained network; see `zero_cost`.

Feature maps are NHWC.
"""

from typing import Any

import jax
import jax.numpy as jnp

from isnas_jax.fitting.step import Z_SCALE
from isnas_jax.networks import Call, module_calls
from isnas_jax.networks.blocks import BatchNorm, ConvBlock
from isnas_jax.searching.zero_cost import last_layer

_NOISE_MAPS = 8
_PERTURBATION = 0.01
_TINY = 1e-12


def naswot(key, net, variables, z, problem):
    """Return minus log |det K| of the kernel of activation patterns (Mellor et al., ICML 2021).

    K_ij is the fraction of normalized features that have the same sign for noise maps i and j. The
    eight noise maps are z and others of the same distribution.
    """
    del problem

    def pattern(z):
        _, calls = module_calls(net, variables, z)
        return jnp.concatenate([jnp.sign(call.output).ravel() for call in _of(calls, BatchNorm)])

    keys = jax.random.split(key, _NOISE_MAPS - 1)
    others = [Z_SCALE * jax.random.uniform(z_key, z.shape, z.dtype) for z_key in keys]
    patterns = jax.vmap(pattern)(jnp.stack([z, *others]))
    agreement = jnp.matmul(patterns, patterns.T, precision="highest") / patterns.shape[1]
    return -jnp.linalg.slogdet((1 + agreement) / 2)[1]


def zen(key, net, variables, z, problem):
    """Return minus the Zen-score (Lin et al., ICCV 2021).

    It is log |f(x + 0.01 e) - f(x)| for normal x and e, plus the logs of the standard deviations
    that normalizations divide by. f are the features before the last layer.
    """
    del problem
    x_key, noise_key = jax.random.split(key)
    x = jax.random.normal(x_key, z.shape, z.dtype)
    noise = jax.random.normal(noise_key, z.shape, z.dtype)

    def features(x):
        _, calls = module_calls(net, variables, x)
        variances = [call.input.var(axis=(0, 1, 2)).mean() for call in _of(calls, BatchNorm)]
        return last_layer(calls).input, jnp.log(jnp.stack(variances) + _TINY).sum() / 2

    first, log_deviations = features(x)
    second, _ = features(x + _PERTURBATION * noise)
    distance = jnp.linalg.norm((second - first).ravel())
    return -(jnp.log(distance + _TINY) + log_deviations)


def meco(key, net, variables, z, problem):
    """Return minus the sum of the smallest eigenvalues of the correlations of channels.

    MeCo (Jiang et al., NeurIPS 2023), over the outputs of each `ConvBlock`.
    """
    del key, problem
    _, calls = module_calls(net, variables, z)

    def smallest(call: Call) -> jax.Array:
        values = _centered(call.output)
        values = values / (jnp.linalg.norm(values, axis=0) + _TINY)
        return jnp.linalg.eigvalsh(jnp.matmul(values.T, values, precision="highest"))[0]

    return -jnp.stack([smallest(call) for call in _of(calls, ConvBlock)]).sum()


def az_expressivity(key, net, variables, z, problem):
    """Return minus the sum over decoder levels of the entropy of their principal components.

    AZ-NAS (Lee and Ham, CVPR 2024).
    """
    del key, problem
    return -_entropies(net, variables, z).sum()


def az_progressivity(key, net, variables, z, problem):
    """Return minus the smallest increase of that entropy from a decoder level to the next.

    AZ-NAS (Lee and Ham, CVPR 2024).
    """
    del key, problem
    return -jnp.diff(_entropies(net, variables, z)).min()


def _entropies(net: Any, variables: Any, z: jax.Array) -> jax.Array:
    """Return the entropies of the principal components of the decoder levels' features."""
    _, calls = module_calls(net, variables, z)

    def entropy(call: Call) -> jax.Array:
        values = _centered(call.output)
        covariance = jnp.matmul(values.T, values, precision="highest")
        eigenvalues = jnp.maximum(jnp.linalg.eigvalsh(covariance), 0)
        parts = eigenvalues / (eigenvalues.sum() + _TINY)
        return -(parts * jnp.log(parts + _TINY)).sum()

    levels = [call for call in calls if len(call.path) == 1 and call.path[0].startswith("dec")]
    return jnp.stack([entropy(call) for call in levels])


def _of(calls: list[Call], kind: type) -> list[Call]:
    return [call for call in calls if isinstance(call.module, kind)]


def _centered(features: jax.Array) -> jax.Array:
    """Return features (1, H, W, C) as (H W, C), each channel without its mean."""
    values = features.reshape(-1, features.shape[-1])
    return values - values.mean(axis=0)
