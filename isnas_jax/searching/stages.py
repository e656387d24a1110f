"""What fits a search or a restoration makes, before it makes them: for plans and the time left.

Stages have names like "cohort 3/9, fold 2/3"; their kind is the first word.
"""

import math
from typing import TypeAlias

from isnas_jax.fitting import validates
from isnas_jax.networks import BASELINES
from isnas_jax.problems import Problem
from isnas_jax.searching.combination import selected_alone
from isnas_jax.searching.settings import Recipe

# For each kind of stage, in their order: how many there are and of how many iterations, at most.
Stages: TypeAlias = dict[str, tuple[int, int]]


def of_restoration(recipe: Recipe, networks: int = 1) -> Stages:
    """The stages of restoring with so many networks."""
    fit = recipe.fit
    if not validates(fit):
        return {"restore": (networks, fit.iterations)}
    longest = math.ceil((fit.refit_factor - fit.refit_from) * fit.iterations)
    return {"validate": (networks * fit.folds, fit.iterations), "restore": (networks, longest)}


def of_search(problem: Problem, recipe: Recipe) -> Stages:
    """The stages of a search, where every network of the cohort may get a weight."""
    search = recipe.search
    networks = search.cohort + sum(name in BASELINES for name in search.members)
    folds = search.fit.folds if search.fit.split else 1
    cohort = {"cohort": (networks * folds, search.fit.iterations)}
    if cohort_restores(problem, recipe):
        return cohort
    whole = of_restoration(recipe, 1 if search.combination is selected_alone else networks)
    if fits_agree(problem, recipe):
        whole.pop("validate", None)
    return cohort | whole


def fits_agree(problem: Problem, recipe: Recipe) -> bool:
    """Whether a cohort is fitted as the whole is, so that its fits to parts serve there too."""
    return recipe.search.proxy(problem) is problem and recipe.search.fit == recipe.fit


def cohort_restores(problem: Problem, recipe: Recipe) -> bool:
    """Whether what a cohort made of the problem is what it is restored with."""
    return fits_agree(problem, recipe) and recipe.fit.split is None
