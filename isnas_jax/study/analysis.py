"""Analyze a dataset: rank correlations, transfer between images, selection by a metric.

A dataset is a folder that `study.run` filled. An outcome is a property of a fit, averaged over
seeds. A score is the mean of a metric over random outputs. Only architectures whose units are all
finished count. Needs pandas, pyarrow and SciPy.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np
import pandas as pd

from isnas_jax.searching import selection
from isnas_jax.searching.cohort import lowest, random_subset
from isnas_jax.searching.strategies import Candidates
from isnas_jax.study import store
from isnas_jax.study.intervals import estimate, resample
from isnas_jax.study.units import fit_name

CASE = ["task", "image"]
# Columns of curves and images; `Dataset.large` reads them one by one.
_LARGE = ["loss", "psnr", "psnr_ema", "psnr_biased_ema", "validation", "criterion", "restored"]
_LARGE += ["best"]
_SCALARS = [name for name in store.FITS.names if name not in _LARGE]

# Outcomes by name: functions of a table of fits.
OUTCOMES: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "optimal stopping iteration": lambda fits: fits["best_ema_at"],
    "best PSNR": lambda fits: fits["best_psnr_ema"],
    "PSNR increase": lambda fits: fits["best_psnr_ema"] - fits["observed_psnr"],
    "restored PSNR": lambda fits: fits["restored_psnr"],
    "last PSNR": lambda fits: fits["last_psnr_ema"],
}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The results of a study.

    Attributes:
      folder: The folder of the dataset.
      fits: A row per fit of the complete architectures, without curves and images.
      scores: A row per architecture, case and reference, and a column per metric, averaged over
        random outputs.
      incomplete: Number of architectures without all of their units, which are left out.
    """

    folder: pathlib.Path
    fits: pd.DataFrame
    scores: pd.DataFrame
    incomplete: int

    @property
    def cases(self) -> list[tuple[str, str]]:
        """The pairs (task, image), sorted."""
        return sorted(set(self.fits[CASE].itertuples(index=False, name=None)))

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return sorted(set(self.fits["task"]))

    @property
    def genotypes(self) -> list[str]:
        """The architectures that were scored, as text."""
        return sorted(set(self.scores["architecture"]))

    def images(self, task: str) -> list[str]:
        """Return the names of a task's images."""
        return [image for case_task, image in self.cases if case_task == task]

    def outcome(self, name: str, task: str) -> pd.DataFrame:
        """Return a task's outcomes, averaged over seeds: a row per genotype, a column per image."""
        fits = self.fits[self.fits["task"] == task]
        fits = fits.assign(outcome=OUTCOMES[name](fits))
        table = fits.pivot_table("outcome", "architecture", "image", dropna=False)
        return table.reindex(self.genotypes)

    def score(self, metric: str, reference: str, task: str) -> pd.DataFrame:
        """Return scores of a task and a reference: a row per genotype, a column per image."""
        scores = self.scores
        scores = scores[(scores["task"] == task) & (scores["reference"] == reference)]
        return scores.pivot(index="architecture", columns="image", values=metric)

    def references(self, task: str) -> list[str]:
        """Return the references of a task's scores, sorted; see `store.score_schema`."""
        return sorted(set(self.scores["reference"][self.scores["task"] == task]))

    def metrics(self) -> list[str]:
        """Return the names of the metrics."""
        return [name for name in self.scores if name not in ("architecture", *CASE, "reference")]

    def large(self, column: str, task: str, image: str, seed: int = 0) -> pd.Series:
        """Return a column of curves or images of one case, by architecture; see `store.FITS`."""
        names = sorted(set(self.fits["architecture"]))
        table = store.read_all(
            self.folder / "fits",
            ["architecture", column],
            units=[store.unit_path(*fit_name(task, image, name, seed)).name for name in names],
            where={"task": task, "image": image, "seed": seed},
        ).to_pandas()
        return table.drop_duplicates("architecture").set_index("architecture")[column]

    def pictures(self, task: str, image: str) -> dict[str, np.ndarray]:
        """Return the clean image and the observation of a case, (H, W, C) in steps of 1/255."""
        table = store.read_all(self.folder / "images").to_pandas()
        (row,) = table[(table[CASE] == [task, image]).all(axis=1)].to_dict("records")
        shapes = {
            "clean": (row["height"], row["width"], row["channels"]),
            "observed": (row["observed_height"], row["observed_width"], row["channels"]),
        }
        return {name: store.to_image(row[name], shape) for name, shape in shapes.items()}


def load(folder: pathlib.Path) -> Dataset:
    """Read a dataset, or raise ValueError if it has no complete genotype."""
    failed = len(list((folder / "failures").rglob("*.parquet")))
    for part in ("fits", "scores", "images"):
        if not any((folder / part).rglob("*.parquet")):
            if failed:
                raise ValueError(
                    f"{str(folder)!r} holds no {part}: {failed} units failed, see make_dataset"
                )
            raise ValueError(f"{str(folder)!r} is no dataset: it holds no {part}")
    fits = store.read_all(folder / "fits", _SCALARS).to_pandas()
    fits = fits.drop_duplicates([*CASE, "architecture", "seed"])
    scores = store.read_all(folder / "scores").to_pandas()
    scores = (
        scores.groupby(["architecture", *CASE, "reference"], as_index=False)
        .mean()
        .drop(columns="output")
    )
    counts = fits.groupby("architecture").size()
    fitted = counts.index[counts == counts.max()]
    scored = set(scores["architecture"])
    # Baselines, whose names have no colon, are not scored.
    complete = [name for name in fitted if name in scored or ":" not in name]
    incomplete = len(set(fits["architecture"]) | scored) - len(complete)
    scores = scores[scores["architecture"].isin(complete)]
    if scores.empty:
        raise ValueError(f"{str(folder)!r} holds no genotype with all its fits and scores")
    fits = fits[fits["architecture"].isin(complete)]
    return Dataset(folder, fits, scores.reset_index(drop=True), incomplete)


def kendall(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return Kendall's tau-b of x and y in every resample; nan where x or y is constant.

    If items i and j were drawn c_i and c_j times, their pair counts c_i c_j times, and pairs of an
    item with itself are ties. Thus tau is a quotient of quadratic forms in the counts.

    Args:
      x: (N,).
      y: (N,).
      counts: (R, N), how often each resample drew each item.

    Returns:
      (R,).
    """
    signs = [np.sign(np.subtract.outer(values, values)) for values in (x, y)]

    def total(matrix):
        return ((counts @ matrix) * counts).sum(axis=1)

    untied = total(np.abs(signs[0])) * total(np.abs(signs[1]))
    with np.errstate(invalid="ignore", divide="ignore"):
        return total(signs[0] * signs[1]) / np.sqrt(untied)


def kendall_table(
    dataset: Dataset,
    outcomes: Sequence[str],
    metrics: Sequence[str],
    *,
    key: jax.Array,
    resamples: int = 1000,
) -> pd.DataFrame:
    """Return Kendall's tau of scores and outcomes over the genotypes: Table 1 of the supplement.

    Args:
      dataset: The dataset.
      outcomes: Some of `OUTCOMES`. Tasks without an outcome have no rows for it.
      metrics: Some of the dataset's metrics.
      key: Random key of the bootstrap.
      resamples: Number of bootstrap samples.

    Returns:
      A row per task, image, outcome, metric and reference. Its columns are tau with the 95 %
      bootstrap interval over genotypes (low, high), the same for the random score (control,
      control_low, control_high), and the number of genotypes n. The image "mean" is the mean of
      tau over images, which are resampled together.
    """
    counts = resample(key, len(dataset.genotypes), resamples)
    rows = []
    for task in dataset.tasks:
        for outcome in outcomes:
            values = dataset.outcome(outcome, task)
            if values.isna().any(axis=None):
                continue  # no PSNR increase if the observation has another size
            for reference in dataset.references(task):
                taus = {
                    metric: _taus(dataset.score(metric, reference, task), values, counts)
                    for metric in [*metrics, "random"]
                }
                for metric in metrics:
                    for image, replicates in taus[metric].items():
                        tau, control = estimate(replicates), estimate(taus["random"][image])
                        row = (task, image, outcome, metric, reference, *tau, *control)
                        rows.append((*row, len(dataset.genotypes)))
    estimates = ["tau", "low", "high", "control", "control_low", "control_high", "n"]
    return pd.DataFrame(rows, columns=[*CASE, "outcome", "metric", "reference", *estimates])


def _taus(scores: pd.DataFrame, values: pd.DataFrame, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return `kendall` of each image's scores and outcomes, and their mean over images."""
    taus = {
        str(image): kendall(scores[image].to_numpy(), values[image].to_numpy(), counts)
        for image in values
    }
    return taus | {"mean": np.mean(list(taus.values()), axis=0)}


def standardized_increase(dataset: Dataset, task: str) -> pd.DataFrame:
    """Return PSNR increases with mean 0 and standard deviation 1 in every image (column)."""
    increase = dataset.outcome("PSNR increase", task)
    return (increase - increase.mean()) / increase.std(ddof=0)


def transfer_gaps(dataset: Dataset, task: str) -> pd.DataFrame:
    """Return the loss in dB of an image (column) with the genotype that is best on another (row).

    The last row, "all others", takes the genotype with the best mean over the other images.
    """
    best = dataset.outcome("best PSNR", task)
    gaps = pd.DataFrame(
        {target: best[target].max() - best[target][best.idxmax()].to_numpy() for target in best},
        index=best.columns,
    )
    if best.shape[1] > 1:
        others = {target: best.drop(columns=target).mean(axis=1).idxmax() for target in best}
        gaps.loc["all others"] = {
            target: best[target].max() - best.loc[others[target], target] for target in best
        }
    return gaps.rename_axis(index="best on", columns="restored")


def top(dataset: Dataset, metric: str, task: str, image: str, num: int) -> list[str]:
    """Return the genotypes with the best scores against the observation, best first."""
    scores = dataset.score(metric, "observed", task)[image]
    return list(scores.index[lowest(scores.to_numpy(), min(num, len(scores)))])


def choose(dataset: Dataset, metric: str, task: str, image: str, num: int) -> str:
    """Return the genotype that ISNAS-DIP selects from a cohort of the best scores.

    Its restored image is the closest to the cohort's metric-weighted mean.
    """
    cohort = top(dataset, metric, task, image, num)
    scores = dataset.score(metric, "observed", task)[image][cohort].to_numpy()
    shape = dataset.pictures(task, image)["clean"].shape
    restored = dataset.large("restored", task, image)
    images = np.stack([store.to_image(restored[name], shape) for name in cohort])
    mean = selection.weighted_mean(images, selection.metric_weights(scores))
    return cohort[selection.closest(images, mean)]


def random_cohorts(
    key: jax.Array, values: np.ndarray, num: int, repeats: int
) -> tuple[float, float]:
    """Return mean and standard deviation of the best of `num` random values, over repeats."""
    candidates = Candidates(range(len(values)), np.empty((len(values), 0)))
    bests = [
        values[random_subset(repeat_key, candidates, min(num, len(values)))].max()
        for repeat_key in jax.random.split(key, repeats)
    ]
    return float(np.mean(bests)), float(np.std(bests, ddof=1))
