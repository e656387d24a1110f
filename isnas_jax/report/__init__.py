"""Files of a run: images, figures, tables, records and one HTML page.

Images are float32 (H, W, C) in [0, 1]. Needs the extra `experiments`.
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
