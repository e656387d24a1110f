"""How an architecture is searched, the config of a whole run, and the fits that it will run."""

import dataclasses
import math
from collections import Counter
from typing import NamedTuple, TypeAlias

from isnas_jax.fitting import FitConfig
from isnas_jax.networks import Baseline, NetworkConfig, Space, free_space
from isnas_jax.problems import Classical, Proxy
from isnas_jax.registry import refuse_names, short_repr
from isnas_jax.searching.cohort import CohortSelection, top_k
from isnas_jax.searching.initializations import RandomInits
from isnas_jax.searching.metrics import Metric, psd_db_strip_mse
from isnas_jax.searching.network_metrics import NetworkMetric
from isnas_jax.searching.selection import Combination, Selection, closest_to_mean, selected_only
from isnas_jax.searching.strategies import Strategy


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """How an architecture is searched.

    Attributes:
      strategy: Which genotypes to propose.
      cohort: Number of candidates to fit; 0 is possible with extra members.
      metric: The metric to score by.
      inits: The random initializations to score.
      space: The search space of the genotypes.
      cohort_selection: Chooses the candidates to fit.
      selection: Chooses one member of the cohort.
      combination: Weighs the members in the restoration.
      extra_members: Baselines, and classical restorations of the task, that join the cohort.
      proxy: Reduces the problem that the cohort is fitted to; None fits the problem itself.
      fit: How the cohort is fitted, which decides the selection and the weights. None takes
        `Config.fit`, whose validated fits then also choose the length of the refits. With
        another one, members with a weight are validated again before they are refitted.

    Raises:
      ValueError: If a field has the wrong type, or an extra member occurs twice.
    """

    strategy: Strategy
    cohort: int
    metric: Metric | NetworkMetric = psd_db_strip_mse
    inits: RandomInits = RandomInits()
    space: Space = free_space
    cohort_selection: CohortSelection = top_k
    selection: Selection = closest_to_mean
    combination: Combination = selected_only
    extra_members: tuple[Baseline | Classical, ...] = ()
    proxy: Proxy | None = None
    fit: FitConfig | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.extra_members, tuple | list):
            raise ValueError(f"extra_members {short_repr(self.extra_members)} must be a sequence")
        object.__setattr__(self, "extra_members", tuple(self.extra_members))
        for member in self.extra_members:
            if not isinstance(member, Baseline | Classical):
                raise ValueError(
                    f"extra member {short_repr(member)} is neither a baseline nor a classical "
                    "restoration, such as isnas_jax.dip; isnas_jax.GenotypeList takes genotypes"
                )
        for name in ("strategy", "metric", "cohort_selection", "selection", "combination"):
            refuse_names(**{name: (function := getattr(self, name))})
            if not callable(function):
                raise ValueError(f"{name} {short_repr(function)} must be a function")
        refuse_names(space=self.space, proxy=self.proxy)
        counts = Counter(map(str, self.extra_members))
        if repeated := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"extra_members contain {repeated[0]!r} more than once")


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that a run depends on except the key and the problem.

    >>> config = isnas.presets.published(isnas.denoising(np.zeros((64, 64, 3), np.float32), 25))
    >>> dataclasses.replace(config, network=isnas.NetworkConfig(channels=8)).network.channels
    8

    Attributes:
      network: What all networks have in common.
      fit: How a network is fitted to the whole problem.
      search: How its architecture is found.
    """

    network: NetworkConfig
    fit: FitConfig
    search: SearchConfig

    @property
    def cohort_fit(self) -> FitConfig:
        """How the cohort is fitted."""
        return self.search.fit or self.fit

    @property
    def cohort_validates_restoration(self) -> bool:
        """Whether the cohort's fits are the validated fits of the restoration too."""
        return self.search.proxy is None and self.cohort_fit == self.fit

    @property
    def cohort_is_restoration(self) -> bool:
        """Whether the cohort's images are the restorations, because nothing is left to fit."""
        return self.cohort_validates_restoration and self.fit.split is None


class Stage(NamedTuple):
    """The largest number of fits of one kind, and of the iterations of each."""

    fits: int
    iterations: int


# Stages by their kind, in order.
Plan: TypeAlias = dict[str, Stage]


def plan_restoration(config: Config, networks: int = 1) -> Plan:
    """Return the plan of restoring with so many networks."""
    fit = config.fit
    if not fit.validates:
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
