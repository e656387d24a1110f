"""How an architecture is searched, and whole recipes of network, fit and search."""

import dataclasses
from collections import Counter

from isnas_jax.fitting import FitSettings
from isnas_jax.networks import SPACES, NetworkSettings, Space
from isnas_jax.problems import Proxy
from isnas_jax.registry import refuse_names, shown
from isnas_jax.searching.cohort import CohortChoice, best_by_score
from isnas_jax.searching.combination import Combination, selected_alone
from isnas_jax.searching.metrics import Metric, psd_db_strip_mse
from isnas_jax.searching.scoring import Draws
from isnas_jax.searching.selection import Selection, closest_to_mean
from isnas_jax.searching.strategies import Strategy


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """How an architecture is searched.

    Attributes:
      strategy: Which genotypes to score.
      cohort: How many of them to fit, N.
      proxy: What the cohort is fitted to.
      fit: How the cohort is fitted.
      metric: What to score by.
      draws: Which random outputs to score.
      space: Where genotypes come from.
      cohort_by: Whom of the scored to fit.
      selection: Whom of the fitted to choose.
      combination: What to return.
      members: Who is in the cohort besides: names of networks in `BASELINES`
        and of classical restorations of the task in `CLASSICAL`. With some of
        them, the cohort may be 0.

    Raises:
      ValueError: If members are not a sequence of different names.
    """

    strategy: Strategy
    cohort: int
    proxy: Proxy
    fit: FitSettings
    metric: Metric = psd_db_strip_mse
    draws: Draws = Draws()
    space: Space = SPACES["free"]
    cohort_by: CohortChoice = best_by_score
    selection: Selection = closest_to_mean
    combination: Combination = selected_alone
    members: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.members, str):
            raise ValueError(f"members {self.members!r} are one name, not a sequence of names")
        object.__setattr__(self, "members", tuple(self.members))
        if not all(isinstance(name, str) for name in self.members):
            raise ValueError(
                f"members {shown(self.members)} must be names; the strategy "
                "isnas_jax.Listed(genotypes) takes genotypes"
            )
        for name in ("strategy", "proxy", "metric", "cohort_by", "selection", "combination"):
            refuse_names(**{name: (choice := getattr(self, name))})
            if not callable(choice):
                raise ValueError(f"{name} {shown(choice)} must be a function")
        refuse_names(space=self.space)
        if twice := [name for name, times in Counter(self.members).items() if times > 1]:
            raise ValueError(f"members name {twice[0]!r} more than once")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that a restoration needs besides the key and the problem.

    Attributes:
      network: What all networks have in common.
      fit: How a network is fitted to the whole problem.
      search: How its architecture is found.
    """

    network: NetworkSettings
    fit: FitSettings
    search: SearchSettings
