"""Files: images, masks, paths, records of runs, cached results and checkpoints.

Images are float32 (H, W, C) with 0 for black and 1 for white, where C is 1 or 3.
"""

from isnas_jax.io import cache, identity, images, paths, records
from isnas_jax.io.checkpoints import Checkpoint
from isnas_jax.io.masks import check_mask, load_mask

__all__ = [
    "Checkpoint",
    "cache",
    "check_mask",
    "identity",
    "images",
    "load_mask",
    "paths",
    "records",
]
