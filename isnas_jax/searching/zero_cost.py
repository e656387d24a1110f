"""Zero-cost proxies: metrics of an untrained network, by its gradients.

The functions are those of a `NetworkMetric`. Proxies were proposed for classifiers, and more is
better; here they are negated, and the loss is that of a fit, mean(w (A f(z) - y)^2), which needs no
labels. Images are float32 (H, W, C) in [0, 1].
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from isnas_jax.fitting.step import Z_SCALE
from isnas_jax.networks import module_calls
from isnas_jax.networks.blocks import BatchNorm, ConvBlock
from isnas_jax.problems import CoupledBootstrap, Problem
from isnas_jax.searching.metrics import psd_db_strip_mse

_BOOTSTRAPS = 8
_UNKNOWN_SIGMA = 25.0  # gray levels
_SMOOTHING = 7  # pixels, the side of a square
_TINY = 1e-12


def _image(net: Any, variables: Any, z: jax.Array, problem: Problem) -> jax.Array:
    height, width, _ = problem.shape
    return net.apply(variables, z)[0, :height, :width]


def _gradient(net: Any, variables: Any, z: jax.Array, problem: Problem) -> Any:
    return jax.grad(lambda values: problem.loss(_image(net, values, z, problem)))(variables)


def _sum(tree: Any) -> jax.Array:
    return sum((leaf.sum() for leaf in jax.tree.leaves(tree)), jnp.zeros((), jnp.float32))


def _inner(first: Any, second: Any) -> jax.Array:
    return _sum(jax.tree.map(jnp.multiply, first, second))


def parameters(key, net, variables, z, problem):
    """Return minus the number of parameters."""
    del key, net, z, problem
    return jnp.asarray(-sum(leaf.size for leaf in jax.tree.leaves(variables)), jnp.float32)


def grad_norm(key, net, variables, z, problem):
    """Return minus the sum of the gradient's norms by parameter array.

    Abdelfattah et al., ICLR 2021.
    """
    del key
    return -_sum(jax.tree.map(jnp.linalg.norm, _gradient(net, variables, z, problem)))


def snip(key, net, variables, z, problem):
    """Return minus the sum of |parameter * gradient| (SNIP; Lee et al., ICLR 2019)."""
    del key
    gradient = _gradient(net, variables, z, problem)
    return -_sum(jax.tree.map(lambda p, g: jnp.abs(p * g), variables, gradient))


def grasp(key, net, variables, z, problem):
    """Return the sum of parameter * (Hessian times gradient).

    GraSP (Wang et al., ICLR 2020); its score for pruning is minus this, parameter by parameter.
    """
    del key
    gradient = jax.lax.stop_gradient(_gradient(net, variables, z, problem))

    def product(values):
        return _inner(_gradient(net, values, z, problem), gradient)

    return _inner(variables, jax.grad(product)(variables))


def fisher(key, net, variables, z, problem):
    """Return minus the sum over channels of (sum of feature * gradient)^2 / 2.

    Theis et al., 2018; Turner et al., ICLR 2020. Features are the outputs of `ConvBlock`.
    """
    del key
    height, width, _ = problem.shape

    def features(change):
        output, calls = module_calls(net, variables, z, change)
        return output, [call.output for call in calls if isinstance(call.module, ConvBlock)]

    def loss(offsets):
        offsets = iter(offsets)

        def add(module, x, output):
            del x
            return output + next(offsets) if isinstance(module, ConvBlock) else output

        return problem.loss(features(add)[0][0, :height, :width])

    _, maps = features(lambda module, x, output: output)
    gradients = jax.grad(loss)([jnp.zeros_like(values) for values in maps])
    sums = [(values * g).sum(axis=(0, 1, 2)) for values, g in zip(maps, gradients, strict=True)]
    return -_sum([jnp.square(total) / 2 for total in sums])


def synflow(key, net, variables, z, problem):
    """Return minus the log of the synaptic flow (SynFlow; Tanaka et al., NeurIPS 2020).

    The flow is the sum of parameter * gradient of R. R is the sum of the values before the last
    sigmoid, with absolute values of the parameters, an input of ones, and no normalization.
    """
    del key, problem

    def skip_norm(module, x, output):
        return x if isinstance(module, BatchNorm) else output

    def flow(values):
        _, calls = module_calls(net, values, jnp.ones_like(z), skip_norm)
        return last_layer(calls).output.sum()

    magnitudes = jax.tree.map(jnp.abs, variables)
    return -jnp.log(_inner(magnitudes, jax.grad(flow)(magnitudes)) + _TINY)


def last_layer(calls):
    """Return the call of the layer before the sigmoid."""
    return next(call for call in calls if call.path[-1] == "output")


def zico(key, net, variables, z, problem):
    """Return minus the sum over parameter arrays of log(sum of mean |g| / std g).

    ZiCo (Li et al., ICLR 2023). The gradients g are those of eight coupled bootstraps of the
    observation, with a noise of 25 gray levels if the problem states none.
    """
    if problem.sigma is None:
        sigma = jnp.asarray(_UNKNOWN_SIGMA, jnp.float32)
        problem = dataclasses.replace(problem, sigma=sigma)

    def gradient(bootstrap_key):
        training, _ = CoupledBootstrap(1.0)(bootstrap_key, problem)
        return _gradient(net, variables, z, training)

    def coefficient(g):
        return jnp.log((jnp.abs(g).mean(axis=0) / (g.std(axis=0) + _TINY)).sum() + _TINY)

    gradients = jax.vmap(gradient)(jax.random.split(key, _BOOTSTRAPS))
    return -_sum(jax.tree.map(coefficient, gradients))


def ntk_signal_to_noise(key, net, variables, z, problem):
    """Return minus how much faster a fit learns the signal than noise, by its tangent kernel.

    It is (|J's|^2 / |s|^2) / (|J'n|^2 / |n|^2), where J is the Jacobian of A f(z) by the
    parameters, n is white noise, and s is the smoothed observation without its mean.
    """

    def measured(values):
        return problem.operator(_image(net, values, z, problem))

    output, pullback = jax.vjp(measured, variables)
    weights = jnp.broadcast_to(problem.weights, output.shape)
    smooth = _smoothed(problem.observed, weights)
    signal = weights * (smooth - (weights * smooth).sum() / weights.sum())
    noise = weights * jax.random.normal(key, output.shape, output.dtype)

    def speed(vector):
        (gradient,) = pullback(vector)
        return _inner(gradient, gradient) / jnp.square(vector).sum()

    return -speed(signal) / speed(noise)


def _smoothed(image: jax.Array, weights: jax.Array) -> jax.Array:
    """Return the weighted means of an image (h, w, C) over squares."""
    window = (_SMOOTHING, _SMOOTHING, 1)

    def total(values):
        return jax.lax.reduce_window(values, 0.0, jax.lax.add, window, (1, 1, 1), "SAME")

    return total(weights * image) / (total(weights) + _TINY)


def init_difference_psd(key, net, variables, z, problem):
    """Return `psd_db_strip_mse` of the observation and the difference of two random outputs.

    What two initializations have in common cancels.
    """
    init_key, z_key = jax.random.split(key)
    other_z = Z_SCALE * jax.random.uniform(z_key, z.shape, z.dtype)
    other = net.init(init_key, other_z)
    difference = _image(net, variables, z, problem) - _image(net, other, other_z, problem)
    return psd_db_strip_mse(problem.observed, problem.operator(difference))
