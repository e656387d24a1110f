"""Studies: grids of fits and scores in Parquet files, comparisons of methods, what they say.

Needs pandas and pyarrow, which are extras.
"""

from isnas_jax.study.comparison import SearchMethod, compare, differences, methods, summary
from isnas_jax.study.plan import Plan, plan
from isnas_jax.study.units import (
    Case,
    FitUnit,
    ScoreUnit,
    Study,
    Unit,
    group_by_program,
    key_of,
    pose,
    shard,
    units,
)
from isnas_jax.study.work import run, unfinished

__all__ = [
    "Case",
    "FitUnit",
    "Plan",
    "ScoreUnit",
    "SearchMethod",
    "Study",
    "Unit",
    "compare",
    "differences",
    "group_by_program",
    "key_of",
    "methods",
    "plan",
    "pose",
    "run",
    "shard",
    "summary",
    "unfinished",
    "units",
]
