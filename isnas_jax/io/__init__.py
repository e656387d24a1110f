"""Files: images, records of runs, checkpoints, and what each is of."""

from isnas_jax.io import identity, images, records
from isnas_jax.io.checkpoints import Checkpoint

__all__ = ["Checkpoint", "identity", "images", "records"]
