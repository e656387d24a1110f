"""Image-specific architecture search for the deep image prior, in JAX and Flax.

ISNAS-DIP (Arican, Kara, Bredell and Konukoglu, CVPR 2022) as pure functions.
Images are float32 (H, W, C) in [0, 1]; feature maps have a leading batch axis.
"""

from isnas_jax import interop
from isnas_jax.fitting import Fit, fit
from isnas_jax.genotypes import Genotype, read_genotypes, sample_genotypes
from isnas_jax.metrics import METRICS, PUBLISHED_METRICS
from isnas_jax.networks import BASELINES, build_network
from isnas_jax.observations import (
    TASKS,
    Problem,
    Task,
    denoising,
    inpainting,
    super_resolution,
)
from isnas_jax.scoring import evaluate, random_outputs, score, score_in_blocks
from isnas_jax.search import FitSettings, Search, SearchSettings, search
from isnas_jax.stopping import STOPPING

__version__ = "0.1.0"

__all__ = [
    "BASELINES",
    "METRICS",
    "PUBLISHED_METRICS",
    "STOPPING",
    "TASKS",
    "Fit",
    "FitSettings",
    "Genotype",
    "Problem",
    "Search",
    "SearchSettings",
    "Task",
    "build_network",
    "denoising",
    "evaluate",
    "fit",
    "inpainting",
    "interop",
    "random_outputs",
    "read_genotypes",
    "sample_genotypes",
    "score",
    "score_in_blocks",
    "search",
    "super_resolution",
]
