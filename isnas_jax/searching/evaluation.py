"""Evaluation with the clean image, after everything has been decided."""

from typing import Any

from isnas_jax.ops import quality
from isnas_jax.problems import Problem, Proxy, denoising
from isnas_jax.searching.cohort import Cohort


def oracle(cohort: Cohort, problem: Problem, proxy: Proxy | None, clean: Any) -> list[float] | None:
    """Return the PSNR in dB of what every member of a cohort restored.

    The best of them is the choice of an oracle. The proxy is applied to the clean image too. None
    if observation and image differ in size and the proxy cropped them differently.
    """
    reference = proxy(denoising(clean)).observed if proxy else denoising(clean).observed
    if reference.shape != cohort.problem.shape or (
        problem.observed.shape != problem.shape and cohort.problem.shape != problem.shape
    ):
        return None
    return [float(quality.psnr(image, reference)) for image in cohort.images]
