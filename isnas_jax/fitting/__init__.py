"""Fitting networks to observations: settings, the loop, stopping rules, loss terms."""

from isnas_jax.fitting.config import OPTIMIZERS, FitConfig
from isnas_jax.fitting.loop import (
    Progress,
    draw_noise_map,
    fit,
    fit_memory,
    lower_steps,
    program_memory,
    update_ema,
)
from isnas_jax.fitting.many import FitJob, batched_by_default, fit_many, fit_stream
from isnas_jax.fitting.regularizers import REGULARIZERS
from isnas_jax.fitting.result import Fit
from isnas_jax.fitting.stopping import (
    STOPPING,
    Decision,
    FixedIterations,
    RunToEnd,
    Step,
    needs_validation,
)
from isnas_jax.fitting.stored import Part, cached_fit, refit, unsplit, validates

__all__ = [
    "OPTIMIZERS",
    "REGULARIZERS",
    "STOPPING",
    "Decision",
    "Fit",
    "FitConfig",
    "FitJob",
    "FixedIterations",
    "Part",
    "Progress",
    "RunToEnd",
    "Step",
    "batched_by_default",
    "cached_fit",
    "draw_noise_map",
    "fit",
    "fit_many",
    "fit_memory",
    "fit_stream",
    "lower_steps",
    "needs_validation",
    "program_memory",
    "refit",
    "unsplit",
    "update_ema",
    "validates",
]
