"""The fits that a search or a restoration will run: for the time left and for previews of a run."""

import math
from typing import NamedTuple, TypeAlias

from isnas_jax.fitting import validates
from isnas_jax.networks import Baseline
from isnas_jax.searching.combination import selected_only
from isnas_jax.searching.config import Config


class Stage(NamedTuple):
    """The fits of one kind.

    Attributes:
      fits: Their largest number.
      iterations: Largest number of iterations of each.
    """

    fits: int
    iterations: int


# Stages by their kind, in order.
Plan: TypeAlias = dict[str, Stage]


def plan_restoration(config: Config, networks: int = 1) -> Plan:
    """Return the plan of restoring with so many networks."""
    fit = config.fit
    if not validates(fit):
        return {"restore": Stage(networks, fit.iterations)}
    refit = math.ceil((fit.refit_factor - fit.refit_from) * fit.iterations)
    return {
        "validate": Stage(networks * fit.folds, fit.iterations),
        "restore": Stage(networks, refit),
    }


def plan_search(config: Config) -> Plan:
    """Return the plan of a search in which every network of the cohort gets a weight."""
    search = config.search
    networks = search.cohort + sum(isinstance(m, Baseline) for m in search.extra_members)
    folds = config.cohort_fit.folds if config.cohort_fit.split else 1
    plan = {"cohort": Stage(networks * folds, config.cohort_fit.iterations)}
    if config.cohort_is_restoration:
        return plan
    restoration = plan_restoration(config, 1 if search.combination is selected_only else networks)
    if config.cohort_validates_restoration:
        restoration.pop("validate", None)
    return plan | restoration
