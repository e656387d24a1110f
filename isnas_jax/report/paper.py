"""The paper's tables and figures, computed from a study's dataset.

An entry of `ITEMS` is a function (dataset, folder, config) -> text for the terminal. It
writes tables as text, Markdown, LaTeX and CSV and figures as PNG and PDF into the folder.
Register your own with `ITEMS["name"] = function`. Needs pandas, SciPy, matplotlib and tabulate.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd

from isnas_jax import figures
from isnas_jax.io import records
from isnas_jax.ops import quality
from isnas_jax.registry import Registry
from isnas_jax.report import tables
from isnas_jax.study import analysis, store
from isnas_jax.study.analysis import Dataset
from isnas_jax.study.units import key_of

# Column of the supplement's Table 1: (the published metric, the metric of this package).
SUPPLEMENT = {
    "db_mse": ("psd db mse", "psd_db_mse"),
    "db_strip": ("psd db strip mse", "psd_db_strip_mse"),
    "strip_emd": ("psd strip hist emd", "psd_strip_hist_emd"),
    "bw_99": ("psd 99_per_bw", "psd_99_bw"),
}
PUBLISHED = pathlib.Path(__file__).parent / "published"
# The paper's symbol of the image that a score compares with.
SYMBOLS = {"observed": "N", "clean": "GT", "masked": "N masked"}
COHORT_SIZES = (5, 15)


@dataclasses.dataclass(frozen=True)
class PaperConfig:
    """Metrics, outcome and bootstrap of the tables and figures.

    Attributes:
      metrics: Metrics of table1; by default those of SUPPLEMENT that the dataset has.
      metric: Metric that chooses genotypes.
      outcome: Outcome of the histograms, a name in `analysis.OUTCOMES`.
      reference: Image that figure1 sorts by; by default the first.
      seed: Seed of bootstrap and random cohorts.
      resamples: Number of bootstrap samples.
    """

    metrics: Sequence[str] = ()
    metric: str = "psd_db_strip_mse"
    outcome: str = "restored PSNR"
    reference: str | None = None
    seed: int = 0
    resamples: int = 1000

    def check(self, dataset: Dataset) -> None:
        """Raise ValueError, with the valid choices, for a name that the dataset lacks."""
        for kind, names, choices in (
            ("metric", [self.metric, *self.metrics], dataset.metrics()),
            ("outcome", [self.outcome], list(analysis.OUTCOMES)),
        ):
            for name in names:
                if name not in choices:
                    raise ValueError(
                        f"{kind} {name!r} is not in the dataset; choose from {', '.join(choices)}"
                    )


Item: TypeAlias = Callable[[Dataset, pathlib.Path, PaperConfig], str]


def _taus(
    dataset: Dataset, outcomes: Sequence[str], metrics: Sequence[str], config: PaperConfig
) -> pd.DataFrame:
    """Return `analysis.kendall_table` with a column `score` that names metric and reference."""
    key = key_of(config.seed, "bootstrap")
    long = analysis.kendall_table(dataset, outcomes, metrics, key=key, resamples=config.resamples)
    return long.assign(score=long["metric"] + " " + long["reference"].map(SYMBOLS))


def table1(dataset: Dataset, folder: pathlib.Path, config: PaperConfig) -> str:
    """Write Kendall's tau by score (rows, a random score last) and image (columns)."""
    known = [name for pair in SUPPLEMENT.values() for name in pair]
    metrics = config.metrics or [name for name in known if name in dataset.metrics()]
    metrics = metrics or [config.metric]
    outcomes = ("optimal stopping iteration", "best PSNR", "PSNR increase")
    long = _taus(dataset, outcomes, metrics, config)
    tables.write(folder / "table1", long.drop(columns="score").set_index("task"), digits=3)
    texts = []
    for (task, outcome), part in long.groupby(["task", "outcome"]):
        images = [*dataset.images(task), "mean"]
        # Each reference has one control, which all metrics repeat.
        control = part[part["metric"] == metrics[0]]
        names = {"control": "tau", "control_low": "low", "control_high": "high"}
        control = control.drop(columns=[*names.values()]).rename(columns=names)
        control["score"] = "random " + control["reference"].map(SYMBOLS)
        rows = pd.concat([part, control])
        rows["cell"] = [
            f"{row.tau:.2f} [{row.low:.2f}, {row.high:.2f}]" for row in rows.itertuples()
        ]
        table = rows.pivot(index="score", columns="image", values="cell")[images]
        table = table.reindex(rows["score"].unique())
        name = f"table1-{task}-{outcome.replace(' ', '_')}"
        text = tables.write(folder / name, table)
        title = f"Kendall's tau with the {outcome}, {task}, {part['n'].iloc[0]} genotypes"
        texts.append(f"{title}\n{text}\n")
    return "\n".join(texts)


def published(dataset: Dataset, folder: pathlib.Path, config: PaperConfig) -> str:
    """Write the published Kendall's tau, those of the dataset and the difference of their means.

    Needs denoising and all metrics of SUPPLEMENT; skipped otherwise.
    """
    from scipy.stats import kendalltau  # takes half a second

    if "denoising" not in dataset.tasks:
        return ""
    column_of = {name: column for column, (name, _) in SUPPLEMENT.items()}
    if missing := [name for name in column_of if name not in dataset.metrics()]:
        return f"Skipped published: the dataset has no {', '.join(missing)}\n"
    texts = []
    for outcome, file in (
        ("optimal stopping iteration", "kendall_stopping"),
        ("best PSNR", "kendall_psnr"),
    ):
        paper = pd.read_csv(PUBLISHED / f"{file}.csv", index_col="image")
        paper.columns = [
            column if column.endswith(("_n", "_gt")) else f"{column}_n" for column in paper
        ]
        paper.loc["mean"] = paper.mean()
        long = _taus(dataset, [outcome], list(column_of), config)
        long = long[long["task"] == "denoising"]
        column = long["metric"].map(column_of) + "_" + long["reference"].map(SYMBOLS).str.lower()
        ours = long.assign(column=column).pivot(index="image", columns="column", values="tau")
        ours = ours.loc[[*dataset.images("denoising"), "mean"], paper.columns]
        means = paper.loc["mean"], ours.loc["mean"]
        difference = (means[1] - means[0]).to_frame("ours - published").T
        table = pd.concat({"published": paper, "ours": ours, "difference of means": difference})
        table = table.rename_axis(["source", "image"]).rename(
            columns=lambda name: name.replace("_", " ")
        )
        text = tables.write(folder / f"published-{file}", table)
        agreement = kendalltau(*means)
        line = (
            f"Rank agreement of the two rows of means (Kendall's tau): {agreement.statistic:.2f}, "
            f"p = {agreement.pvalue:.2f}; {int((np.sign(means[0]) == np.sign(means[1])).sum())} "
            f"of {len(paper.columns)} have the same sign."
        )
        records.write_bytes(folder / f"published-{file}-agreement.txt", f"{line}\n".encode())
        texts.append(f"Kendall's tau with the {outcome}, denoising\n{text}\n{line}\n")
    return "\n".join(texts)


def figure1(dataset: Dataset, folder: pathlib.Path, config: PaperConfig) -> str:
    """Draw the standardized PSNR increase by image and write the transfer gaps."""
    texts = []
    for task in dataset.tasks:
        increase = analysis.standardized_increase(dataset, task)
        if increase.isna().any(axis=None):
            continue
        reference = config.reference or str(increase.columns[0])
        if reference not in increase:
            raise ValueError(
                f"reference {reference!r} is not an image of {task}; "
                f"choose from {', '.join(increase)}"
            )
        columns = {str(image): values.to_numpy() for image, values in increase.items()}
        figure = figures.transfer(columns, reference)
        figures.save_for_print(figure, folder / f"figure1-{task}")
        gaps = analysis.transfer_gaps(dataset, task)
        text = tables.write(folder / f"transfer-{task}", gaps)
        title = f"Transfer gap in dB, {task}; rows choose the genotype, columns are restored"
        texts.append(f"{title}\n{text}\n")
    return "\n".join(texts)


def agreement(dataset: Dataset, folder: pathlib.Path, config: PaperConfig) -> str:
    """Write Kendall's tau between images, for the genotypes' best PSNR and for their scores."""
    texts = []
    for task in dataset.tasks:
        rankings = {
            "best PSNR": dataset.outcome("best PSNR", task),
            f"{config.metric} N": dataset.score(config.metric, "observed", task),
        }
        taus = {name: values.corr(method="kendall") for name, values in rankings.items()}
        table = pd.concat(taus).rename_axis(["ranking", "image"])
        text = tables.write(folder / f"agreement-{task}", table)
        texts.append(f"Kendall's tau between images, {task}\n{text}\n")
    return "\n".join(texts)


def figure2(dataset: Dataset, folder: pathlib.Path, config: PaperConfig) -> str:
    """Draw PSNR curves of five genotypes, from worst to best, and of the baselines."""
    for task, image in dataset.cases:
        best = dataset.outcome("best PSNR", task)[image].sort_values()
        ranks = np.linspace(0, len(best) - 1, min(5, len(best))).round().astype(int)
        names = [str(best.index[rank]) for rank in ranks]
        curves = dataset.large("psnr_ema", task, image)
        shown = [*names, *(name for name in curves.index if ":" not in name)]
        figure = figures.psnr_curves({name: curves[name] for name in shown})
        figures.save_for_print(figure, folder / f"figure2-{task}-{image}")
    return ""


def histograms(dataset: Dataset, folder: pathlib.Path, config: PaperConfig) -> str:
    """Draw the outcomes of all genotypes and mark the best of cohorts by score and at random."""
    label = f"{config.outcome}, dB" if "PSNR" in config.outcome else config.outcome
    num, rows = COHORT_SIZES[-1], []
    for task in dataset.tasks:
        columns = {
            str(image): values for image, values in dataset.outcome(config.outcome, task).items()
        }
        marks: dict[str, dict[str, float]] = {}
        random_best = {}
        for image, values in columns.items():
            tops = {
                size: values[analysis.top(dataset, config.metric, task, image, size)].max()
                for size in COHORT_SIZES
            }
            chosen = analysis.choose(dataset, config.metric, task, image, num)
            marks[image] = {f"best of top {size}": float(best) for size, best in tops.items()}
            marks[image]["ISNAS-DIP's choice"] = float(values[chosen])
            key = key_of(config.seed, "random cohorts", task, image)
            random_best[image] = analysis.random_cohorts(key, values.to_numpy(), num, 10)
            mean, deviation = random_best[image]
            row = {"task": task, "image": image, "median": values.median(), "best": values.max()}
            row |= marks[image] | {f"best of random {num}, mean": mean, "s.d.": deviation}
            rows.append(row)
        figure = figures.histograms(columns, marks, random_best, label)
        figures.save_for_print(figure, folder / f"histograms-{task}")
    text = tables.write(folder / "histograms", pd.DataFrame(rows).set_index("task"))
    return f"{label}; genotypes chosen by {config.metric}\n{text}\n"


def qualitative(dataset: Dataset, folder: pathlib.Path, config: PaperConfig) -> str:
    """Draw clean image, observation and restorations, one row per image."""
    for task in dataset.tasks:
        rows = []
        for image in dataset.images(task):
            pictures = dataset.pictures(task, image)
            clean = pictures["clean"]
            restored = dataset.large("restored", task, image)
            chosen = analysis.choose(dataset, config.metric, task, image, COHORT_SIZES[-1])
            shown = {_title("observed", pictures["observed"], clean): pictures["observed"]}
            for name, network in {"DIP": "dip", "NAS-DIP": "nas-dip", "ISNAS-DIP": chosen}.items():
                if network in restored.index:
                    pixels = store.to_image(restored[network], clean.shape)
                    shown[_title(name, pixels, clean)] = pixels
            rows.append({image: clean, **shown})
        figures.save_for_print(figures.qualitative(rows), folder / f"qualitative-{task}")
    return ""


def _title(name: str, image: np.ndarray, clean: np.ndarray) -> str:
    """Append PSNR and SSIM to a name if the image has the size of the clean image."""
    if image.shape != clean.shape:
        return name
    return f"{name}\n{quality.psnr(image, clean):.2f} dB, {quality.ssim(image, clean):.3f}"


_FUNCTIONS = (table1, published, figure1, agreement, figure2, histograms, qualitative)
ITEMS: Registry[Item] = Registry("item", {item.__name__: item for item in _FUNCTIONS})
