"""DIP-Bench: a table of fits of 154 architectures to images in several tasks.

A metric, a predictor or a search strategy is judged on the table in a minute, without a fit. Needs
pyarrow and pandas.
"""

from isnas_jax.benchmark.evaluation import (
    control_scores,
    genotypes,
    leaderboard,
    leaderboard_of,
    outcomes,
    transfer_scores,
)
from isnas_jax.benchmark.packing import check, pack
from isnas_jax.benchmark.portfolios import portfolio
from isnas_jax.benchmark.predictors import MODELS, predict
from isnas_jax.benchmark.scores import score_metrics, store_scores, stored_scores
from isnas_jax.benchmark.seeds import seed_noise
from isnas_jax.benchmark.stops import stop_losses
from isnas_jax.benchmark.strategies import (
    STRATEGIES,
    Clock,
    Evolution,
    SuccessiveHalving,
    compare_strategies,
    run_strategy,
    strategy_table,
)
from isnas_jax.benchmark.table import DATA, Benchmark, Cost, Known, Stacked, Truth, load

__all__ = [
    "DATA",
    "MODELS",
    "STRATEGIES",
    "Benchmark",
    "Clock",
    "Cost",
    "Evolution",
    "Known",
    "Stacked",
    "SuccessiveHalving",
    "Truth",
    "check",
    "compare_strategies",
    "control_scores",
    "genotypes",
    "leaderboard",
    "leaderboard_of",
    "load",
    "outcomes",
    "pack",
    "portfolio",
    "predict",
    "run_strategy",
    "score_metrics",
    "seed_noise",
    "stop_losses",
    "store_scores",
    "stored_scores",
    "strategy_table",
    "transfer_scores",
]
