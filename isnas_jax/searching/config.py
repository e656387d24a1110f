"""How an architecture is searched, and whole recipes of network, fit and search."""

import dataclasses
from collections import Counter

from isnas_jax.fitting import FitConfig
from isnas_jax.networks import SPACES, NetworkConfig, Space
from isnas_jax.problems import Proxy
from isnas_jax.registry import refuse_names, shown
from isnas_jax.searching.cohort import CohortSelection, top_k
from isnas_jax.searching.combination import Combination, selected_only
from isnas_jax.searching.metrics import Metric, psd_db_strip_mse
from isnas_jax.searching.scoring import RandomInits
from isnas_jax.searching.selection import Selection, closest_to_mean
from isnas_jax.searching.strategies import Strategy


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """How an architecture is searched.

    Attributes:
      strategy: Which genotypes to score.
      cohort: How many of them to fit, N.
      proxy: What the cohort is fitted to.
      fit: How the cohort is fitted.
      metric: What to score by.
      inits: Which random outputs to score.
      space: Where genotypes come from.
      cohort_selection: Whom of the scored to fit.
      selection: Whom of the fitted to choose.
      combination: What to return.
      extra_members: Who is in the cohort besides: names of networks in `BASELINES`
        and of classical restorations of the task in `CLASSICAL`. With some of
        them, the cohort may be 0.

    Raises:
      ValueError: If members are not a sequence of different names.
    """

    strategy: Strategy
    cohort: int
    proxy: Proxy
    fit: FitConfig
    metric: Metric = psd_db_strip_mse
    inits: RandomInits = RandomInits()
    space: Space = SPACES["free"]
    cohort_selection: CohortSelection = top_k
    selection: Selection = closest_to_mean
    combination: Combination = selected_only
    extra_members: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.extra_members, str):
            raise ValueError(
                f"extra_members {self.extra_members!r} are one name, not a sequence of names"
            )
        object.__setattr__(self, "extra_members", tuple(self.extra_members))
        if not all(isinstance(name, str) for name in self.extra_members):
            raise ValueError(
                f"extra_members {shown(self.extra_members)} must be names; the strategy "
                "isnas_jax.GenotypeList(genotypes) takes genotypes"
            )
        for name in ("strategy", "proxy", "metric", "cohort_selection", "selection", "combination"):
            refuse_names(**{name: (choice := getattr(self, name))})
            if not callable(choice):
                raise ValueError(f"{name} {shown(choice)} must be a function")
        refuse_names(space=self.space)
        if twice := [name for name, times in Counter(self.extra_members).items() if times > 1]:
            raise ValueError(f"extra_members name {twice[0]!r} more than once")


@dataclasses.dataclass(frozen=True)
class Config:
    """All that a restoration needs besides the key and the problem.

    Attributes:
      network: What all networks have in common.
      fit: How a network is fitted to the whole problem.
      search: How its architecture is found.
    """

    network: NetworkConfig
    fit: FitConfig
    search: SearchConfig
