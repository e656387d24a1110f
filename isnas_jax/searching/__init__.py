"""Architecture search: metrics, scores, strategies, cohorts, and their pipeline."""

from isnas_jax.searching import presets
from isnas_jax.searching._cell_programs import lower_scores
from isnas_jax.searching.cohort import (
    Cohort,
    CohortSelection,
    Fold,
    oracle,
    random_subset,
    top_half,
    top_k,
)
from isnas_jax.searching.config import Config, Plan, SearchConfig, plan_restoration, plan_search
from isnas_jax.searching.initializations import RandomInits, random_outputs
from isnas_jax.searching.metrics import (
    Metric,
    psd_99_bw,
    psd_db_mse,
    psd_db_strip_mse,
    psd_strip_hist_emd,
)
from isnas_jax.searching.network_metrics import NetworkMetric
from isnas_jax.searching.pipeline import check_config, restore, search
from isnas_jax.searching.portfolios import PORTFOLIO, Portfolio
from isnas_jax.searching.presets import Preset
from isnas_jax.searching.result import Restoration, SearchResult
from isnas_jax.searching.scoring import AnyMetric, score, score_outputs, score_problems
from isnas_jax.searching.selection import (
    Combination,
    Selection,
    Stack,
    closest_to_mean,
    lowest_mean_rank,
    lowest_validation,
    score_weighted_mean,
    selected_only,
    uniform_mean,
)
from isnas_jax.searching.strategies import (
    Candidates,
    GenotypeList,
    RandomSearch,
    SearchContext,
    Strategy,
    has_scores,
)

__all__ = [
    "PORTFOLIO",
    "AnyMetric",
    "Candidates",
    "Cohort",
    "CohortSelection",
    "Combination",
    "Config",
    "Fold",
    "GenotypeList",
    "Metric",
    "NetworkMetric",
    "Plan",
    "Portfolio",
    "Preset",
    "RandomInits",
    "RandomSearch",
    "Restoration",
    "SearchConfig",
    "SearchContext",
    "SearchResult",
    "Selection",
    "Stack",
    "Strategy",
    "check_config",
    "closest_to_mean",
    "has_scores",
    "lower_scores",
    "lowest_mean_rank",
    "lowest_validation",
    "oracle",
    "plan_restoration",
    "plan_search",
    "presets",
    "psd_99_bw",
    "psd_db_mse",
    "psd_db_strip_mse",
    "psd_strip_hist_emd",
    "random_outputs",
    "random_subset",
    "restore",
    "score",
    "score_outputs",
    "score_problems",
    "score_weighted_mean",
    "search",
    "selected_only",
    "top_half",
    "top_k",
    "uniform_mean",
]
