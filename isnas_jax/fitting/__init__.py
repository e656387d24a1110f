"""Fitting networks to observations: config, driver, stopping rules, regularizers."""

from isnas_jax.fitting.batch import batched_by_default
from isnas_jax.fitting.cached import cached_fit, refit
from isnas_jax.fitting.config import FitConfig, Optimizer, Regularizer, TotalVariation
from isnas_jax.fitting.fit import fit, fit_each, fit_many
from isnas_jax.fitting.job import FitJob, lower_steps, program_memory, split_by_key
from isnas_jax.fitting.result import Fit, Start
from isnas_jax.fitting.step import draw_noise_map, update_ema
from isnas_jax.fitting.stopping import (
    Decision,
    Discrepancy,
    FixedIterations,
    LeastValidation,
    MovingVariance,
    RunToEnd,
    Step,
    StoppingRule,
    WindowedVariance,
    needs_validation,
)

__all__ = [
    "Decision",
    "Discrepancy",
    "Fit",
    "FitConfig",
    "FitJob",
    "FixedIterations",
    "LeastValidation",
    "MovingVariance",
    "Optimizer",
    "Regularizer",
    "RunToEnd",
    "Start",
    "Step",
    "StoppingRule",
    "TotalVariation",
    "WindowedVariance",
    "batched_by_default",
    "cached_fit",
    "draw_noise_map",
    "fit",
    "fit_each",
    "fit_many",
    "lower_steps",
    "needs_validation",
    "program_memory",
    "refit",
    "split_by_key",
    "update_ema",
]
