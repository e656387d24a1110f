"""Registries: the strategies of each kind by the names that flags and tables use.

A registry is a dict. `registries.METRICS["mine"] = metric` makes a metric available to the scripts.
Library functions take the strategies themselves.
"""

import collections
import importlib.util
from collections.abc import Callable
from typing import Any

import optax

from isnas_jax import fitting, networks, problems, running, searching
from isnas_jax.problems import classical
from isnas_jax.registry import Registry
from isnas_jax.searching import feature_proxies, metrics, presets, zero_cost

# Problems.
#: Kinds of problems.
TASKS: Registry[problems.Task] = Registry(
    "task", {task.name: task for task in problems.PUBLISHED_TASKS}
)
#: Classical restorations.
CLASSICAL: Registry[problems.Classical] = Registry(
    "classical restoration",
    {
        str(entry): entry
        for entry in (
            classical.observed,
            classical.non_local_means,
            classical.total_variation,
            classical.biharmonic,
            classical.bicubic,
            *([classical.bm3d] if importlib.util.find_spec("bm3d") else []),
        )
    },
)
#: Maps a fraction or a noise ratio to a split.
SPLITS: Registry[Callable[[float], problems.Split]] = Registry(
    "split", {"held-out": problems.HoldOut, "bootstrap": problems.CoupledBootstrap}
)
#: Maps a side in pixels to a proxy; None fits the problem itself.
PROXIES: Registry[Callable[[int], problems.Proxy | None]] = Registry(
    "proxy",
    {
        "full": lambda size: None,
        "crop": problems.Crop,
        "decimate": problems.Decimate,
        "resize": problems.Resize,
    },
)

# Networks.
#: Search spaces of genotypes.
SPACES: Registry[networks.Space] = Registry(
    "search space",
    {
        "free": networks.free_space,
        "toeplitz": networks.toeplitz_space,
        "light": networks.light_space,
    },
)
#: Networks with a name instead of a genotype.
BASELINES: Registry[networks.Baseline] = Registry(
    "network", {"dip": networks.dip, "nas-dip": networks.nas_dip}
)

# Fits.
#: Stopping rules.
STOPPING: Registry[fitting.StoppingRule] = Registry(
    "stopping rule",
    {
        "es-wmv": fitting.WindowedVariance(),
        "es-emv": fitting.MovingVariance(),
        "validation": fitting.LeastValidation(),
        "discrepancy": fitting.Discrepancy(),
        "fixed": fitting.FixedIterations(),
    },
)
#: Maps the learning rate to an optax transformation.
OPTIMIZERS: Registry[fitting.Optimizer] = Registry("optimizer", {"adam": optax.adam})
#: Maps a weight to a regularizer.
REGULARIZERS: Registry[Callable[[float], fitting.Regularizer]] = Registry(
    "regularizer", {"total variation": fitting.TotalVariation}
)

# Searches.
#: The metrics of the published code, including its errors.
PUBLISHED_METRICS: Registry[searching.Metric] = Registry("published metric", metrics.PUBLISHED)
#: Zero-cost proxies: metrics of a network's gradients and feature maps.
NETWORK_METRICS: Registry[searching.NetworkMetric] = Registry(
    "network metric",
    {
        function.__name__: searching.NetworkMetric(function)
        for function in (
            zero_cost.parameters,
            zero_cost.grad_norm,
            zero_cost.snip,
            zero_cost.grasp,
            zero_cost.fisher,
            zero_cost.synflow,
            zero_cost.zico,
            zero_cost.ntk_signal_to_noise,
            zero_cost.init_difference_psd,
            feature_proxies.naswot,
            feature_proxies.zen,
            feature_proxies.meco,
            feature_proxies.az_expressivity,
            feature_proxies.az_progressivity,
        )
    },
)
#: Metrics; published metrics and network metrics can be looked up too.
METRICS: Registry[searching.AnyMetric] = Registry(
    "metric",
    {
        "psd_db_mse": metrics.psd_db_mse,
        "psd_db_strip_mse": metrics.psd_db_strip_mse,
        "psd_strip_hist_emd": metrics.psd_strip_hist_emd,
        "psd_99_bw": metrics.psd_99_bw,
        "random": metrics.random,
    },
    fallback=collections.ChainMap(PUBLISHED_METRICS, NETWORK_METRICS),  # type: ignore[arg-type]
)
#: Maps a number of genotypes to a search strategy.
STRATEGIES: Registry[Callable[[int], searching.Strategy]] = Registry(
    "search strategy",
    {"random": searching.RandomSearch, "portfolio": lambda num: searching.Portfolio()},
)
#: Choose the candidates to fit.
COHORT_SELECTIONS: Registry[searching.CohortSelection] = Registry(
    "cohort selection",
    {
        "top-k": searching.top_k,
        "top-half": searching.top_half,
        "random": searching.random_subset,
    },
)
#: Choose one member of the cohort.
SELECTIONS: Registry[searching.Selection] = Registry(
    "selection",
    {
        "closest": searching.closest_to_mean,
        "validation": searching.lowest_validation,
        "ranks": searching.lowest_mean_rank,
    },
)
#: Weigh the members in the restoration.
COMBINATIONS: Registry[searching.Combination] = Registry(
    "combination",
    {
        "selected": searching.selected_only,
        "scores": searching.score_weighted_mean,
        "mean": searching.uniform_mean,
        "stack": searching.Stack(),
    },
)
#: Map a problem to a config.
PRESETS: Registry[searching.Preset] = Registry(
    "preset", {"quick": presets.quick, "published": presets.published}
)

# Runs.
#: Run jobs.
RUNNERS: Registry[Callable[..., Any]] = Registry(
    "runner",
    {"threads": running.Threads, "processes": running.Processes, "ray": running.Ray},
)
