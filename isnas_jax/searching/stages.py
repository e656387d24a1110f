"""What fits a search or a restoration makes, before it makes them: for plans and the time left.

Stages have names like "cohort 3/9, fold 2/3"; their kind is the first word.
"""

import math
from typing import TypeAlias

from isnas_jax.fitting import validates
from isnas_jax.networks import BASELINES
from isnas_jax.problems import Problem
from isnas_jax.searching.combination import selected_only
from isnas_jax.searching.config import Config

# For each kind of stage, in their order: how many there are and of how many iterations, at most.
Stages: TypeAlias = dict[str, tuple[int, int]]


def of_restoration(config: Config, networks: int = 1) -> Stages:
    """The stages of restoring with so many networks."""
    fit = config.fit
    if not validates(fit):
        return {"restore": (networks, fit.iterations)}
    longest = math.ceil((fit.refit_factor - fit.refit_from) * fit.iterations)
    return {"validate": (networks * fit.folds, fit.iterations), "restore": (networks, longest)}


def of_search(problem: Problem, config: Config) -> Stages:
    """The stages of a search, where every network of the cohort may get a weight."""
    search = config.search
    networks = search.cohort + sum(name in BASELINES for name in search.extra_members)
    folds = search.fit.folds if search.fit.split else 1
    cohort = {"cohort": (networks * folds, search.fit.iterations)}
    if cohort_restores(problem, config):
        return cohort
    whole = of_restoration(config, 1 if search.combination is selected_only else networks)
    if fits_agree(problem, config):
        whole.pop("validate", None)
    return cohort | whole


def fits_agree(problem: Problem, config: Config) -> bool:
    """Whether a cohort is fitted as the whole is, so that its fits to parts serve there too."""
    return config.search.proxy(problem) is problem and config.search.fit == config.fit


def cohort_restores(problem: Problem, config: Config) -> bool:
    """Whether what a cohort made of the problem is what it is restored with."""
    return fits_agree(problem, config) and config.fit.split is None
