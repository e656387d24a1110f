"""Predictors: models that learn from the fits of other images what a genotype will reach.

A model is a function () -> estimator with the methods `fit` and `predict` of scikit-learn. Needs
pandas and scikit-learn.
"""

import itertools
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from isnas_jax.benchmark.evaluation import INDEX, outcomes
from isnas_jax.benchmark.table import Benchmark
from isnas_jax.networks import Genotype
from isnas_jax.networks.genotypes import (
    ACTIVATIONS,
    CONVOLUTIONS,
    KERNEL_SIZES,
    RESAMPLERS,
    decode_cell,
)
from isnas_jax.ops import spectra
from isnas_jax.problems import Problem
from isnas_jax.registry import Registry

Model: TypeAlias = Callable[[], Any]

_RADII = np.array([0, 0.05, 0.1, 0.2, 0.4, 0.8])  # cycles per pixel


def linear() -> Any:
    """Return a linear model with a ridge chosen by cross-validation."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 4, 11)))


def boosted_trees() -> Any:
    """Return gradient-boosted trees, small enough for a few hundred rows."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        learning_rate=0.05, max_iter=200, max_leaf_nodes=8, min_samples_leaf=10, random_state=0
    )


#: Models by name.
MODELS: Registry[Model] = Registry("model", {"linear": linear, "boosted trees": boosted_trees})


def predict(
    bench: Benchmark, scores: pd.DataFrame, model: Model, outcome: str = "psnr"
) -> np.ndarray:
    """Predict an outcome of every fit from those of the other images, in the same task.

    Features are the fields of the cell, the skip bits, the scores relative to the image's other
    genotypes, and sigma and spectrum of the observation.

    Args:
      bench: The benchmark.
      scores: A table of scores, as for `leaderboard`.
      model: The model.
      outcome: "psnr", in dB, or "best", the best iteration; a column of `outcomes`.

    Returns:
      The predictions for the rows of the scores, less the mean of the outcome on the image.
    """
    table = scores.merge(outcomes(bench), on=INDEX, how="left")
    by_image = table.groupby(["task", "image"])
    target = (table[outcome] - by_image[outcome].transform("mean")).to_numpy()
    features = _features(bench, scores)
    predictions = np.zeros(len(table))
    for (task, image), rows in by_image.indices.items():
        others = ((table["task"] == task) & (table["image"] != image)).to_numpy()
        if not others.any():
            raise ValueError(f"{task} has no other image than {image} to learn from")
        fitted = model().fit(features[others], target[others])
        predictions[rows] = fitted.predict(features[rows])
    return predictions


def _features(bench: Benchmark, scores: pd.DataFrame) -> np.ndarray:
    """Return the features (N, F) of the rows of a table of scores."""
    names = [name for name in scores if name not in INDEX]
    by_image = scores.groupby(["task", "image"])[names]
    relative = (scores[names] - by_image.transform("mean")) / (by_image.transform("std") + 1e-12)
    networks = {name: genotype_features(name) for name in scores["architecture"].unique()}
    pairs = list(scores[["task", "image"]].itertuples(index=False, name=None))
    cases = {
        (task, image): observation_features(bench.problem(image, task))
        for task, image in set(pairs)
    }
    return np.hstack(
        [
            np.stack([networks[name] for name in scores["architecture"]]),
            np.stack([cases[pair] for pair in pairs]),
            relative.to_numpy(),
        ]
    )


def genotype_features(name: str) -> np.ndarray:
    """Return the fields of a genotype's cell, one bit per choice, and its 25 skip bits."""
    genotype = Genotype.parse(name)
    cell = decode_cell(genotype.cell)
    choices = (
        (cell.resample, (*RESAMPLERS, "transposed")),
        (cell.convolution, CONVOLUTIONS),
        (cell.kernel, KERNEL_SIZES),
        (cell.activation, ACTIVATIONS),
        (cell.convolution_first, (True,)),
    )
    bits = [float(value == choice) for value, every in choices for choice in every]
    return np.array([*bits, *map(float, genotype.skips)])


def observation_features(problem: Problem) -> np.ndarray:
    """Return sigma in gray levels, 0 if unknown, and the log power in rings of the spectrum."""
    observed = problem.observed
    power = np.asarray(spectra.power_spectral_density(observed)).mean(axis=-1)
    radius = np.asarray(spectra.radius(*observed.shape[:2]))
    rings = [
        power[(low <= radius) & (radius < high)].mean() for low, high in itertools.pairwise(_RADII)
    ]
    return np.array([float(problem.sigma or 0), *np.log(np.array(rings) + 1e-12)])
