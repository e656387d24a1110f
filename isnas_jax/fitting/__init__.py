"""Fitting networks to observations: settings, the loop, stopping rules, loss terms."""

from isnas_jax.fitting.loop import (
    Progress,
    draw_noise_map,
    exponential_mean,
    fit,
    lower_steps,
    planned_by,
    planned_memory,
)
from isnas_jax.fitting.many import Fitting, by_batches, fit_each, fit_many
from isnas_jax.fitting.result import Fit
from isnas_jax.fitting.settings import OPTIMIZERS, FitSettings
from isnas_jax.fitting.stopping import (
    STOPPING,
    Decision,
    FixedIterations,
    RunToEnd,
    Step,
    needs_validation,
)
from isnas_jax.fitting.stored import Part, fit_once, refit, unsplit, validates
from isnas_jax.fitting.terms import LOSS_TERMS

__all__ = [
    "LOSS_TERMS",
    "OPTIMIZERS",
    "STOPPING",
    "Decision",
    "Fit",
    "FitSettings",
    "Fitting",
    "FixedIterations",
    "Part",
    "Progress",
    "RunToEnd",
    "Step",
    "by_batches",
    "draw_noise_map",
    "exponential_mean",
    "fit",
    "fit_each",
    "fit_many",
    "fit_once",
    "lower_steps",
    "needs_validation",
    "planned_by",
    "planned_memory",
    "refit",
    "unsplit",
    "validates",
]
