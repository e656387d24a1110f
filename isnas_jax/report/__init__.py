"""What people look at: a run's folder, tables, the paper's figures.

Needs the extra `experiments`.
"""

from isnas_jax.report.page import PAGE, write_page
from isnas_jax.report.paper import ITEMS, PaperConfig
from isnas_jax.report.run import (
    Member,
    summary,
    write_preview,
    write_restoration,
    write_scores,
    write_search,
    write_timings,
)

__all__ = [
    "ITEMS",
    "PAGE",
    "Member",
    "PaperConfig",
    "summary",
    "write_page",
    "write_preview",
    "write_restoration",
    "write_scores",
    "write_search",
    "write_timings",
]
