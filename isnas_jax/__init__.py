"""Image-specific architecture search for the deep image prior, in JAX and Flax.

ISNAS-DIP (Arican, Kara, Bredell and Konukoglu, CVPR 2022) as pure functions.
Images are float32 (H, W, C) in [0, 1]; feature maps have a leading batch axis.
"""

from isnas_jax._programs import use_compilation_cache
from isnas_jax.fitting import (
    LOSS_TERMS,
    OPTIMIZERS,
    STOPPING,
    Fit,
    FitSettings,
    fit,
    fit_many,
)
from isnas_jax.networks import (
    BASELINES,
    SPACES,
    Genotype,
    NetworkSettings,
    build_network,
    interop,
    read_genotypes,
)
from isnas_jax.ops import Arithmetic
from isnas_jax.problems import (
    CLASSICAL,
    PROXIES,
    SPLITS,
    TASKS,
    Problem,
    Task,
    denoising,
    estimate_sigma,
    hold_out,
    inpainting,
    super_resolution,
)
from isnas_jax.running import RUNNERS, Processes
from isnas_jax.searching import (
    COHORTS,
    COMBINATIONS,
    METRICS,
    PRESETS,
    PUBLISHED_METRICS,
    SELECTIONS,
    STRATEGIES,
    Draws,
    Listed,
    RandomSearch,
    Recipe,
    Search,
    SearchSettings,
    evaluate,
    presets,
    random_outputs,
    restore,
    score,
    search,
)

__version__ = "0.1.0"

__all__ = [
    "BASELINES",
    "CLASSICAL",
    "COHORTS",
    "COMBINATIONS",
    "LOSS_TERMS",
    "METRICS",
    "OPTIMIZERS",
    "PRESETS",
    "PROXIES",
    "PUBLISHED_METRICS",
    "RUNNERS",
    "SELECTIONS",
    "SPACES",
    "SPLITS",
    "STOPPING",
    "STRATEGIES",
    "TASKS",
    "Arithmetic",
    "Draws",
    "Fit",
    "FitSettings",
    "Genotype",
    "Listed",
    "NetworkSettings",
    "Problem",
    "Processes",
    "RandomSearch",
    "Recipe",
    "Search",
    "SearchSettings",
    "Task",
    "build_network",
    "denoising",
    "estimate_sigma",
    "evaluate",
    "fit",
    "fit_many",
    "hold_out",
    "inpainting",
    "interop",
    "presets",
    "random_outputs",
    "read_genotypes",
    "restore",
    "score",
    "search",
    "super_resolution",
    "use_compilation_cache",
]
