"""Packing the dataset of a study into files of a benchmark. Needs pyarrow."""

import os
import pathlib
from collections.abc import Mapping

import numpy as np

from isnas_jax.benchmark import cases, costs, rows
from isnas_jax.fitting import FixedIterations, LeastValidation
from isnas_jax.running import Progress, ignore
from isnas_jax.study import Study


def pack(
    study: Study,
    dataset: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    strengths: Mapping[str, float],
    *,
    progress: Progress = ignore,
) -> list[pathlib.Path]:
    """Add the finished fits of a study to a benchmark that `load` reads.

    The folder gets a file for each case and seed, the clean images, and the costs of architectures
    that it has none of. Costs are measured here, on one case for each number of channels.

    Args:
      study: The study. Its fits need a split and bias correction.
      dataset: The folder of its dataset.
      folder: The folder of the benchmark.
      strengths: The strength of the corruption in each of the study's tasks: sigma in gray levels,
        the percentage of missing pixels, or the factor.
      progress: Called while costs are measured.

    Returns:
      The files of the cases and seeds.

    Raises:
      ValueError: If the study cannot be packed, is not that of the dataset, or has other images
        or strengths than the folder.
    """
    folder, dataset = pathlib.Path(folder), pathlib.Path(dataset)
    check(study)
    paths = []
    for case in study.cases:
        cases.write_image(folder, case.image, np.asarray(case.clean), study.seed)
        task = cases.task_name(case.task, strengths[case.task])
        posed = cases.read_case(folder, case.image, task).problem
        for name in ("observed", "weights"):
            if not np.array_equal(getattr(posed, name), getattr(case.problem, name)):
                raise ValueError(f"{task} of {case.image!r} is not the problem of the study")
        for seed in study.seeds:
            table = rows.rows_of(study, dataset, case, seed)
            paths.append(rows.write(folder, table, task, case.image, seed))
    by_channels = {case.clean.shape[2]: case for case in study.cases}
    for case in by_channels.values():
        costs.add_costs(folder, study, case, progress)
    return paths


def check(study: Study) -> None:
    """Raise ValueError if the fits of a study do not record what a benchmark needs."""
    for task, config in study.fit.items():
        if task not in cases.STRENGTHS:
            known = ", ".join(cases.STRENGTHS)
            raise ValueError(f"a benchmark has no task {task!r}; choose from {known}")
        if config.split is None or not config.debias:
            raise ValueError(
                f"{task}: a benchmark needs fits with a split and with bias correction"
            )
        if not isinstance(config.stopping, LeastValidation | FixedIterations):
            raise ValueError(f"{task}: a benchmark needs the stopping rule validation or fixed")
