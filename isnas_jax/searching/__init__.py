"""The search: metrics, scores, strategies, the cohort, and the pipeline from image to image."""

from isnas_jax.searching import presets
from isnas_jax.searching._cellwise import lower_scores
from isnas_jax.searching.cohort import COHORTS, Cohort, Fold
from isnas_jax.searching.combination import COMBINATIONS
from isnas_jax.searching.metrics import METRICS, PUBLISHED_METRICS, Metric
from isnas_jax.searching.pipeline import check_recipe, oracle, restore, search
from isnas_jax.searching.presets import PRESETS
from isnas_jax.searching.result import Search
from isnas_jax.searching.scoring import Draws, evaluate, random_outputs, score
from isnas_jax.searching.selection import SELECTIONS
from isnas_jax.searching.settings import Recipe, SearchSettings
from isnas_jax.searching.strategies import STRATEGIES, Candidates, Listed, RandomSearch, Scope

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
    "Fold",
    "Listed",
    "Metric",
    "RandomSearch",
    "Recipe",
    "Scope",
    "Search",
    "SearchSettings",
    "check_recipe",
    "evaluate",
    "lower_scores",
    "oracle",
    "presets",
    "random_outputs",
    "restore",
    "score",
    "search",
]
