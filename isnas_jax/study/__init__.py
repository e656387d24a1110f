"""Studies: grids of fits and scores in Parquet files, comparisons of methods, what they say.

Needs pandas and pyarrow, which are extras.
"""

from isnas_jax.study.comparison import BySearch, compare, differences, methods, summary
from isnas_jax.study.plan import Plan, plan
from isnas_jax.study.units import Case, FitUnit, ScoreUnit, Study, alike, key_of, pose, share, units
from isnas_jax.study.work import run, unfinished

__all__ = [
    "BySearch",
    "Case",
    "FitUnit",
    "Plan",
    "ScoreUnit",
    "Study",
    "alike",
    "compare",
    "differences",
    "key_of",
    "methods",
    "plan",
    "pose",
    "run",
    "share",
    "summary",
    "unfinished",
    "units",
]
