"""Files: images, masks, paths, records of runs, checkpoints, and their identities."""

from isnas_jax.io import identity, images, paths, records
from isnas_jax.io.checkpoints import Checkpoint
from isnas_jax.io.masks import check_mask, load_mask

__all__ = ["Checkpoint", "check_mask", "identity", "images", "load_mask", "paths", "records"]
