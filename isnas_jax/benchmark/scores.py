"""Scores of the benchmark's genotypes without training: computed, or stored with the benchmark.

    scores.parquet     a row per task, image, genotype and reference; a column per metric

The reference is what a metric compares random outputs with: "observed" (N in the paper), or "clean"
(GT in the paper), which only an evaluation may know. Scores are means over random initializations.
Needs pandas and pyarrow.
"""

import os
from collections.abc import Mapping

import pandas as pd
import pyarrow as pa

from isnas_jax.benchmark.evaluation import INDEX, every_fit, genotypes
from isnas_jax.benchmark.rows import VERSION
from isnas_jax.benchmark.table import Benchmark
from isnas_jax.networks import NetworkConfig, Space, free_space, network_for
from isnas_jax.problems import Problem, denoising
from isnas_jax.running import Progress, ignore
from isnas_jax.searching import AnyMetric, RandomInits, score_problems
from isnas_jax.study import key_of, store

NETWORK = NetworkConfig(channels=16)
REFERENCES = ("observed", "clean")


def score_metrics(
    bench: Benchmark,
    metrics: Mapping[str, AnyMetric],
    inits: RandomInits = RandomInits(8),
    *,
    reference: str = "observed",
    network: NetworkConfig = NETWORK,
    space: Space = free_space,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress = ignore,
) -> pd.DataFrame:
    """Compute metrics of all genotypes.

    Args:
      bench: The benchmark.
      metrics: Metrics by name.
      inits: The random initializations.
      reference: One of `REFERENCES`.
      network: What all networks have in common; 16 channels by default, as the fits.
      space: The search space of the genotypes.
      folder: Caches the scores on disk.
      progress: As for `isnas_jax.score`, for each size of the images.

    Returns:
      A table with the columns `INDEX`, and one for each metric.
    """

    def posed(image: str, task: str) -> Problem:
        if reference == "observed":
            return bench.problem(image, task)
        return denoising(bench.truth_case(image, task).clean)

    _check_reference(reference)
    names, tables = genotypes(bench), []
    cases: dict[tuple[int, ...], list[tuple[str, str]]] = {}
    for task in bench.tasks:
        for image in bench.images(task):
            cases.setdefault(bench.problem(image, task).shape, []).append((task, image))
    for pairs in cases.values():
        problems = [posed(image, task) for task, image in pairs]
        nets = [network_for(problems[0], space.parse(name), network, space) for name in names]
        scores = score_problems(
            key_of(0, "score"), nets, problems, metrics, inits, folder=folder, progress=progress
        )
        for (task, image), of_case in zip(pairs, scores, strict=True):
            means = {name: values.mean(axis=1) for name, values in of_case.items()}
            labels = {"task": task, "image": image, "architecture": names}
            tables.append(pd.DataFrame(labels | means))
    return pd.concat(tables, ignore_index=True)


def store_scores(bench: Benchmark, scores: pd.DataFrame, reference: str = "observed") -> None:
    """Add scores to the folder of a benchmark; those of the same metrics and cases are replaced."""
    _check_reference(reference)
    added = scores.assign(reference=reference).set_index([*INDEX, "reference"])
    known = _stored(bench)
    merged = added.combine_first(known) if known is not None else added
    table = pa.Table.from_pandas(merged.astype("float32").reset_index(), preserve_index=False)
    store.write(bench.folder / "scores.parquet", table, VERSION)


def stored_scores(bench: Benchmark, reference: str = "observed") -> pd.DataFrame:
    """Return the stored scores against a reference: a table with `INDEX` and the metrics' columns.

    Metrics that lack a score of any case are left out.
    """
    _check_reference(reference)
    table = every_fit(bench)
    known = _stored(bench)
    if known is None or reference not in known.index.get_level_values("reference"):
        return table
    scores = known.xs(reference, level="reference")
    return table.join(scores, on=INDEX).dropna(axis="columns")


def _stored(bench: Benchmark) -> pd.DataFrame | None:
    path = bench.folder / "scores.parquet"
    if not path.exists():
        return None
    return store.read(path).to_pandas().set_index([*INDEX, "reference"])


def _check_reference(reference: str) -> None:
    if reference not in REFERENCES:
        raise ValueError(f"reference {reference!r} must be one of {', '.join(REFERENCES)}")
