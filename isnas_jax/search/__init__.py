"""The search: metrics, scores, strategies, the cohort, and the pipeline from image to image."""

from isnas_jax.search import presets
from isnas_jax.search.cohort import COHORTS, Cohort
from isnas_jax.search.combination import COMBINATIONS
from isnas_jax.search.metrics import METRICS, PUBLISHED_METRICS, Metric
from isnas_jax.search.pipeline import Search, oracle, restore, search
from isnas_jax.search.presets import PRESETS
from isnas_jax.search.scoring import Draws, evaluate, random_outputs, score
from isnas_jax.search.selection import SELECTIONS
from isnas_jax.search.settings import Recipe, SearchSettings
from isnas_jax.search.strategies import STRATEGIES, Candidates, Listed, RandomSearch, Scope

__all__ = [
    "COHORTS",
    "COMBINATIONS",
    "METRICS",
    "PRESETS",
    "PUBLISHED_METRICS",
    "SELECTIONS",
    "STRATEGIES",
    "Candidates",
    "Cohort",
    "Draws",
    "Listed",
    "Metric",
    "RandomSearch",
    "Recipe",
    "Scope",
    "Search",
    "SearchSettings",
    "evaluate",
    "oracle",
    "presets",
    "random_outputs",
    "restore",
    "score",
    "search",
]
