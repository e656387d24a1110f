"""What a study's dataset says: rank correlations, transfer between images, choices by metric.

A dataset is a folder that `study` filled. Tables are pandas frames. An
outcome is what a fit arrived at, averaged over seeds; a score is a metric's
mean over random outputs. Only architectures whose units are all there count.
Needs pandas, pyarrow and SciPy.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np
import pandas as pd

from isnas_jax.searching import cohort as choices
from isnas_jax.searching import selection
from isnas_jax.searching.strategies import Candidates
from isnas_jax.study import store
from isnas_jax.study.intervals import estimate, resample
from isnas_jax.study.units import fit_name

CASE = ["task", "image"]
_LARGE = ["loss", "psnr", "psnr_ema", "criterion", "restored", "best"]
_SCALARS = [name for name in store.FITS.names if name not in _LARGE]

# What a fit arrived at, by name, from the rows of its table.
OUTCOMES: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "optimal stopping iteration": lambda fits: fits["best_ema_at"],
    "best PSNR": lambda fits: fits["best_psnr_ema"],
    "PSNR increase": lambda fits: fits["best_psnr_ema"] - fits["observed_psnr"],
    "restored PSNR": lambda fits: fits["restored_psnr"],
    "last PSNR": lambda fits: fits["last_psnr_ema"],
}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A study's results.

    Attributes:
      folder: Where it is.
      fits: A row a fit of the complete architectures; scalars only.
      scores: A row an architecture, case and reference, a column a metric:
        the mean over random outputs.
      incomplete: How many architectures were left out: unfinished, or with a
        unit that failed.
    """

    folder: pathlib.Path
    fits: pd.DataFrame
    scores: pd.DataFrame
    incomplete: int

    @property
    def cases(self) -> list[tuple[str, str]]:
        """(task, image), sorted."""
        return sorted(set(self.fits[CASE].itertuples(index=False, name=None)))

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return sorted(set(self.fits["task"]))

    @property
    def genotypes(self) -> list[str]:
        """The searched architectures."""
        return sorted(set(self.scores["architecture"]))

    def images(self, task: str) -> list[str]:
        """Names of a task's images."""
        return [image for its_task, image in self.cases if its_task == task]

    def outcome(self, name: str, task: str) -> pd.DataFrame:
        """Outcomes in a task, averaged over seeds: a row a genotype, a column an image."""
        fits = self.fits[self.fits["task"] == task]
        fits = fits.assign(outcome=OUTCOMES[name](fits))
        table = fits.pivot_table("outcome", "architecture", "image", dropna=False)
        return table.reindex(self.genotypes)

    def score(self, metric: str, reference: str, task: str) -> pd.DataFrame:
        """Scores in a task against a reference: a row a genotype, a column an image."""
        scores = self.scores
        scores = scores[(scores["task"] == task) & (scores["reference"] == reference)]
        return scores.pivot(index="architecture", columns="image", values=metric)

    def references(self, task: str) -> list[str]:
        """What a task's scores compare with, sorted; see `store.score_schema`."""
        return sorted(set(self.scores["reference"][self.scores["task"] == task]))

    def metrics(self) -> list[str]:
        """Names of the metrics."""
        return [name for name in self.scores if name not in ("architecture", *CASE, "reference")]

    def large(self, column: str, task: str, image: str, seed: int = 0) -> pd.Series:
        """Curves or pictures of one case, by architecture; see `store.FITS`."""
        names = sorted(set(self.fits["architecture"]))
        table = store.read_all(
            self.folder / "fits",
            ["architecture", column],
            units=[store.unit_path(*fit_name(task, image, name, seed)).name for name in names],
            where={"task": task, "image": image, "seed": seed},
        ).to_pandas()
        return table.drop_duplicates("architecture").set_index("architecture")[column]

    def pictures(self, task: str, image: str) -> dict[str, np.ndarray]:
        """The truth and the observation of a case, (H, W, C) in steps of 1/255."""
        table = store.read_all(self.folder / "images").to_pandas()
        (row,) = table[(table[CASE] == [task, image]).all(axis=1)].to_dict("records")
        sizes = {
            "clean": (row["height"], row["width"], row["channels"]),
            "observed": (row["observed_height"], row["observed_width"], row["channels"]),
        }
        return {name: store.to_image(row[name], shape) for name, shape in sizes.items()}


def load(folder: pathlib.Path) -> Dataset:
    """Reads a dataset; ValueError if there is nothing complete in it."""
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
    done = counts.index[counts == counts.max()]
    scored = set(scores["architecture"])
    complete = [name for name in done if name in scored or ":" not in name]
    incomplete = len(set(fits["architecture"]) | scored) - len(complete)
    scores = scores[scores["architecture"].isin(complete)]
    if scores.empty:
        raise ValueError(f"{str(folder)!r} holds no genotype with all its fits and scores")
    fits = fits[fits["architecture"].isin(complete)]
    return Dataset(folder, fits, scores.reset_index(drop=True), incomplete)


def kendall(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of x and y (N,) in every resample (R, N); nan where one is constant.

    A pair of items i, j that were drawn c_i and c_j times stands for c_i c_j
    pairs, those of an item with itself being ties: so tau is a quotient of
    quadratic forms in the counts.
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
    """Kendall's tau between scores and outcomes over the genotypes: Table 1 of the supplement.

    Returns:
      A row a task, image, outcome, metric and reference with tau, low, high
      (95 % bootstrap over genotypes), the same of the random score as
      control, control_low and control_high, and the number of genotypes n.
      The image "mean" is the mean of tau over images, resampled together.
    """
    counts = resample(key, len(dataset.genotypes), resamples)
    rows = []
    for task in dataset.tasks:
        for outcome in outcomes:
            reached = dataset.outcome(outcome, task)
            if reached.isna().any(axis=None):
                continue  # no increase where the observation has no PSNR
            for reference in dataset.references(task):
                found = {
                    metric: _taus(dataset.score(metric, reference, task), reached, counts)
                    for metric in [*metrics, "random"]
                }
                for metric in metrics:
                    for image, taus in found[metric].items():
                        tau, control = estimate(taus), estimate(found["random"][image])
                        values = (*tau, *control, len(dataset.genotypes))
                        rows.append((task, image, outcome, metric, reference, *values))
    estimates = ["tau", "low", "high", "control", "control_low", "control_high", "n"]
    return pd.DataFrame(rows, columns=[*CASE, "outcome", "metric", "reference", *estimates])


def _taus(scores: pd.DataFrame, reached: pd.DataFrame, counts: np.ndarray) -> dict[str, np.ndarray]:
    taus = {
        str(image): kendall(scores[image].to_numpy(), reached[image].to_numpy(), counts)
        for image in reached
    }
    return taus | {"mean": np.mean(list(taus.values()), axis=0)}


def standardized_increase(dataset: Dataset, task: str) -> pd.DataFrame:
    """PSNR increase of every genotype, less its image's mean, in its standard deviations."""
    increase = dataset.outcome("PSNR increase", task)
    return (increase - increase.mean()) / increase.std(ddof=0)


def transfer_gaps(dataset: Dataset, task: str) -> pd.DataFrame:
    """What it costs, in dB, to restore an image (column) with the best genotype of another (row).

    With a last row for the genotype that is best on the other images' mean.
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
    """The genotypes whose scores against the observation are best, best first."""
    scores = dataset.score(metric, "observed", task)[image]
    return list(scores.index[choices.lowest(scores.to_numpy(), min(num, len(scores)))])


def choose(dataset: Dataset, metric: str, task: str, image: str, num: int) -> str:
    """The genotype that ISNAS-DIP takes of its cohort of num, without the clean image.

    Its restored image is closest to the cohort's metric-weighted mean.
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
    """Mean and standard deviation of the best of num random values, over repeats."""
    candidates = Candidates(range(len(values)), np.empty((len(values), 0)))
    bests = [
        values[choices.at_random(one, candidates, min(num, len(values)))].max()
        for one in jax.random.split(key, repeats)
    ]
    return float(np.mean(bests)), float(np.std(bests, ddof=1))
