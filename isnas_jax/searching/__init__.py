"""The search: metrics, scores, strategies, the cohort, and the pipeline from image to image."""

from isnas_jax.searching import presets
from isnas_jax.searching._cellwise import lower_scores
from isnas_jax.searching.cohort import COHORT_SELECTIONS, Cohort, Fold
from isnas_jax.searching.combination import COMBINATIONS
from isnas_jax.searching.config import Config, SearchConfig
from isnas_jax.searching.metrics import METRICS, PUBLISHED_METRICS, Metric
from isnas_jax.searching.pipeline import check_config, oracle, restore, search
from isnas_jax.searching.presets import PRESETS
from isnas_jax.searching.result import SearchResult
from isnas_jax.searching.scoring import RandomInits, evaluate, random_outputs, score
from isnas_jax.searching.selection import SELECTIONS
from isnas_jax.searching.strategies import (
    STRATEGIES,
    Candidates,
    GenotypeList,
    RandomSearch,
    SearchContext,
)

__all__ = [
    "COHORT_SELECTIONS",
    "COMBINATIONS",
    "METRICS",
    "PRESETS",
    "PUBLISHED_METRICS",
    "SELECTIONS",
    "STRATEGIES",
    "Candidates",
    "Cohort",
    "Config",
    "Fold",
    "GenotypeList",
    "Metric",
    "RandomInits",
    "RandomSearch",
    "SearchConfig",
    "SearchContext",
    "SearchResult",
    "check_config",
    "evaluate",
    "lower_scores",
    "oracle",
    "presets",
    "random_outputs",
    "restore",
    "score",
    "search",
]
