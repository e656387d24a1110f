"""Fitting one network to many observations, or with many seeds, by one program."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from isnas_jax.fitting.loop import Curves, check_finite, chunk_program, finished, fit, start
from isnas_jax.fitting.result import Fit
from isnas_jax.fitting.settings import FitSettings
from isnas_jax.problems import Problem


def fit_many(
    keys: Sequence[jax.Array] | jax.Array,
    net: Any,
    problems: Sequence[Problem],
    settings: FitSettings | None = None,
    *,
    truths: Sequence[Any] | None = None,
    together: bool | None = None,
    **changes: Any,
) -> list[Fit]:
    """Fits one network to many observations, or with many seeds, by one compiled program.

    Args:
      keys: A random key for each fit, F of them.
      net: As for `fit`.
      problems: F problems of one task and size.
      settings: As for `fit`; each fit stops on its own.
      truths: F clean images, for the PSNR curves only.
      together: Run all fits as one batch, divided among all devices; by
        default where there is an accelerator or more than one device.
        Otherwise they run one after the other.
      **changes: As for `fit`.

    Returns:
      What `fit` would for each, up to rounding.

    Raises:
      ValueError: As `fit` does, and if the problems differ in size or kind.
      FloatingPointError: As `fit` does.
    """
    settings = dataclasses.replace(settings, **changes) if settings else FitSettings(**changes)
    truths = [None] * len(problems) if truths is None else truths
    if not len(keys) == len(problems) == len(truths) or not problems:
        raise ValueError(
            f"{len(keys)} keys, {len(problems)} problems and {len(truths)} truths; "
            "there must be one of each for every fit, and a fit at least"
        )
    if together is None:
        together = jax.default_backend() != "cpu" or jax.device_count() > 1
    if not together:
        return [
            fit(key, net, problem, settings, truth=truth)
            for key, problem, truth in zip(keys, problems, truths, strict=True)
        ]
    starts = [
        start(key, net, problem, settings, truth=truth)
        for key, problem, truth in zip(keys, problems, truths, strict=True)
    ]
    structure, parts = starts[0][0], [part[1:] for part in starts]
    # Every device takes the same number; what fills up the last is thrown away.
    parts += parts[-1:] * (-len(parts) % jax.device_count())
    try:
        state, given = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    except ValueError:
        shapes = ", ".join(sorted({str(problem.observed.shape) for problem in problems}))
        raise ValueError(f"the problems differ in size or kind; their sizes: {shapes}") from None
    mesh = Mesh(np.array(jax.devices()), ("fits",))
    latest: list[Curves] = []
    ended = False
    with chunk_program(structure, settings.chunk, state, given, mesh) as advance:
        while not ended:
            state, curves = advance(state, given)
            # Fetched shard by shard: another program over all devices may wait for this one
            # for ever.
            curves, iteration, stopped = jax.device_get((curves, state.iteration, state.stopped))
            latest.append(curves)
            ended = bool(((iteration >= settings.iterations) | stopped).all())
    state = jax.device_get(state)
    fits = []
    for index in range(len(problems)):
        one = jax.tree.map(lambda leaf, index=index: leaf[index], state)
        columns = (
            np.concatenate([chunk[index] for chunk in chunks])[: int(one.iteration)]
            for chunks in zip(*latest, strict=True)
        )
        done = Curves(*columns)
        check_finite(net, 0, done.loss)
        fits.append(finished(settings, given, one, done))
    return fits
