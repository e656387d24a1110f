r"""Tables and figures of a dataset that `make_dataset` made.

    python -m experiments.analyze --dataset=dataset --output_dir=report

Every table is written as text, Markdown, LaTeX and CSV, every figure as PNG
and PDF. --items picks some of them:

    table1        Kendall's tau of metrics with the optimal stopping iteration,
                  best PSNR and PSNR increase, with bootstrap intervals and the
                  random score's
    published     table1 beside the published numbers, differences, rank agreement
    figure1       PSNR increase on every image, sorted by one; transfer gaps
    agreement     rank agreement between images, of what genotypes reach and of their scores
    figure2       PSNR curves of several genotypes, peaks marked
    histograms    figures 3 and 6: final PSNR, the metric's top 5 and 15 marked
    qualitative   figures 4 and 5: truth, observation, DIP, NAS-DIP, ISNAS-DIP
"""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import scipy.stats
from absl import flags

from experiments import cli
from isnas_jax import analysis, figures, quality, records, tables
from isnas_jax.analysis import Dataset
from isnas_jax.study import key_of

FLAGS = flags.FLAGS

flags.DEFINE_string("dataset", None, "Folder that make_dataset filled.")
flags.DEFINE_string("output_dir", "report", "Folder for tables and figures.")
flags.DEFINE_list("items", [], "Which tables and figures; all by default.")
flags.DEFINE_list("metrics", [], "Metrics of table1; those of the supplement and ours by default.")
flags.DEFINE_string("metric", "psd_db_strip_mse", "Metric that chooses genotypes.")
flags.DEFINE_string("outcome", "restored PSNR", "What the histograms show.")
flags.DEFINE_string("reference", None, "Image to sort figure1 by; the first by default.")
flags.DEFINE_integer("seed", 0, "Of bootstrap and random cohorts.")
flags.DEFINE_integer("resamples", 1000, "Bootstrap samples.")

# Column of the supplement's Table 1, its metric as published, and ours.
SUPPLEMENT = {
    "db_mse": ("psd db mse", "psd_db_mse"),
    "db_strip": ("psd db strip mse", "psd_db_strip_mse"),
    "strip_emd": ("psd strip hist emd", "psd_strip_hist_emd"),
    "bw_99": ("psd 99_per_bw", "psd_99_bw"),
}
PUBLISHED = pathlib.Path(__file__).parents[1] / "third_party" / "isnas_dip"
SYMBOL = {"observed": "N", "truth": "GT", "whole": "N whole"}
COHORTS = (5, 15)


def taus(dataset: Dataset, outcomes: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Correlations in long form, a column `score` naming metric and reference."""
    key = key_of(FLAGS.seed, "bootstrap")
    long = analysis.kendall_table(dataset, outcomes, metrics, key=key, resamples=FLAGS.resamples)
    return long.assign(score=long["metric"] + " " + long["reference"].map(SYMBOL))


def with_interval(long: pd.DataFrame, value: str, low: str, high: str) -> pd.Series:
    """Cells like -0.45 [-0.55, -0.33]."""
    return long.apply(lambda row: f"{row[value]:.2f} [{row[low]:.2f}, {row[high]:.2f}]", axis=1)


def table1(dataset: Dataset, folder: pathlib.Path) -> None:
    """Kendall's tau; rows are scores, columns images, the random score at the end."""
    metrics = FLAGS.metrics or [name for pair in SUPPLEMENT.values() for name in pair]
    outcomes = ("optimal stopping iteration", "best PSNR", "PSNR increase")
    long = taus(dataset, outcomes, metrics)
    tables.write(folder / "table1", long.drop(columns="score").set_index("task"), digits=3)
    for (task, outcome), part in long.groupby(["task", "outcome"]):
        images = [*dataset.images(task), "mean"]
        cells = part.assign(cell=with_interval(part, "tau", "low", "high"))
        wide = cells.pivot(index="score", columns="image", values="cell")[images]
        wide = wide.reindex(cells["score"].unique())
        control = part[part["metric"] == metrics[0]]
        control = control.assign(
            cell=with_interval(control, "control", "control_low", "control_high"),
            score="random " + control["reference"].map(SYMBOL),
        ).pivot(index="score", columns="image", values="cell")[images]
        name = f"table1-{task}-{outcome.replace(' ', '_')}"
        text = tables.write(folder / name, pd.concat([wide, control]).rename_axis("score"))
        print(f"Kendall's tau with the {outcome}, {task}, {part['n'].iloc[0]} genotypes\n{text}\n")


def published(dataset: Dataset, folder: pathlib.Path) -> None:
    """The published tau above ours, the difference of their means, rank agreement."""
    if "denoising" not in dataset.tasks:
        return
    column_of = {name: column for column, (name, _) in SUPPLEMENT.items()}
    for outcome, file in (
        ("optimal stopping iteration", "kendall_stopping"),
        ("best PSNR", "kendall_psnr"),
    ):
        theirs = pd.read_csv(PUBLISHED / f"{file}.csv", index_col="image")
        theirs.columns = [
            column if column.endswith(("_n", "_gt")) else f"{column}_n" for column in theirs
        ]
        theirs.loc["mean"] = theirs.mean()
        long = taus(dataset, [outcome], list(column_of))
        long = long[long["task"] == "denoising"]
        column = long["metric"].map(column_of) + "_" + long["reference"].map(SYMBOL).str.lower()
        ours = long.assign(column=column).pivot(index="image", columns="column", values="tau")
        ours = ours.loc[[*dataset.images("denoising"), "mean"], theirs.columns]
        means = theirs.loc["mean"], ours.loc["mean"]
        difference = (means[1] - means[0]).to_frame("ours - published").T
        table = pd.concat({"published": theirs, "ours": ours, "difference of means": difference})
        table = table.rename_axis(["", "image"]).rename(columns=lambda name: name.replace("_", " "))
        text = tables.write(folder / f"published-{file}", table)
        agreement = scipy.stats.kendalltau(*means)
        line = (
            f"Rank agreement of the two rows of means (Kendall's tau): {agreement.statistic:.2f}, "
            f"p = {agreement.pvalue:.2f}; {int((np.sign(means[0]) == np.sign(means[1])).sum())} "
            f"of {len(theirs.columns)} have the same sign."
        )
        records.write_bytes(folder / f"published-{file}-agreement.txt", f"{line}\n".encode())
        print(f"Kendall's tau with the {outcome}, denoising\n{text}\n{line}\n")


def figure1(dataset: Dataset, folder: pathlib.Path) -> None:
    """Normalised PSNR increase by image and what transfer costs."""
    for task in dataset.tasks:
        increase = analysis.normalised_increase(dataset, task)
        if increase.isna().any(axis=None):
            continue
        reference = FLAGS.reference or str(increase.columns[0])
        if reference not in increase:
            raise ValueError(
                f"reference {reference!r} is no image; choose from {', '.join(increase)}"
            )
        columns = {str(image): values.to_numpy() for image, values in increase.items()}
        figures.transfer(folder / f"figure1-{task}", columns, reference)
        gaps = analysis.transfer_gaps(dataset, task)
        text = tables.write(folder / f"transfer-{task}", gaps)
        print(f"Transfer gap in dB, {task}: restored with the best genotype of another\n{text}\n")


def agreement(dataset: Dataset, folder: pathlib.Path) -> None:
    """How alike images rank the genotypes, by what they reach and by the metric."""
    for task in dataset.tasks:
        rankings = {
            "best PSNR": dataset.outcome("best PSNR", task),
            f"{FLAGS.metric} N": dataset.score(FLAGS.metric, "observed", task),
        }
        between = {what: values.corr(method="kendall") for what, values in rankings.items()}
        table = pd.concat(between).rename_axis(["of", "image"])
        text = tables.write(folder / f"agreement-{task}", table)
        print(f"Kendall's tau between images, {task}\n{text}\n")


def figure2(dataset: Dataset, folder: pathlib.Path) -> None:
    """PSNR curves from the worst to the best genotype, and the baselines'."""
    for task, image in dataset.cases:
        best = dataset.outcome("best PSNR", task)[image].sort_values()
        ranks = np.linspace(0, len(best) - 1, min(5, len(best))).round().astype(int)
        names = [str(best.index[rank]) for rank in ranks]
        curves = dataset.large("psnr_mean", task, image)
        shown = [*names, *(name for name in curves.index if ":" not in name)]
        figures.psnr_curves(
            folder / f"figure2-{task}-{image}", {name: curves[name] for name in shown}
        )


def histograms(dataset: Dataset, folder: pathlib.Path) -> None:
    """What the metric's best reach among all, and random ones."""
    quantity = f"{FLAGS.outcome}, dB" if "PSNR" in FLAGS.outcome else FLAGS.outcome
    rows = []
    for task in dataset.tasks:
        reached = dataset.outcome(FLAGS.outcome, task)
        marks: dict[str, dict[str, float]] = {}
        random = {}
        for image in reached:
            values = reached[image]
            tops = {
                num: values[analysis.top(dataset, FLAGS.metric, task, image, num)].max()
                for num in COHORTS
            }
            chosen = analysis.choose(dataset, FLAGS.metric, task, image, COHORTS[-1])
            marks[image] = {f"best of top {num}": float(best) for num, best in tops.items()}
            marks[image]["ISNAS-DIP's choice"] = float(values[chosen])
            key = key_of(FLAGS.seed, "random cohorts", task, image)
            random[image] = analysis.random_cohorts(key, values.to_numpy(), COHORTS[-1], 10)
            rows.append(
                {
                    "task": task,
                    "image": image,
                    "median": values.median(),
                    "best": values.max(),
                    **marks[image],
                    f"best of random {COHORTS[-1]}, mean": random[image][0],
                    "s.d.": random[image][1],
                }
            )
        columns = {str(image): values.to_numpy() for image, values in reached.items()}
        figures.histograms(folder / f"histograms-{task}", columns, marks, random, quantity)
    table = pd.DataFrame(rows).set_index("task")
    text = tables.write(folder / "histograms", table)
    print(f"{quantity}; genotypes chosen by {FLAGS.metric}\n{text}\n")


def qualitative(dataset: Dataset, folder: pathlib.Path) -> None:
    """Truth, observation and restorations, an image a row."""
    baselines = {"DIP": "dip", "NAS-DIP": "nas-dip"}
    for task in dataset.tasks:
        rows = []
        for image in dataset.images(task):
            pictures = dataset.pictures(task, image)
            restored = dataset.large("restored", task, image)
            chosen = analysis.choose(dataset, FLAGS.metric, task, image, COHORTS[-1])
            row = {image: pictures["truth"], "observed": pictures["observed"]}
            for name, architecture in (baselines | {"ISNAS-DIP": chosen}).items():
                if architecture in restored.index:
                    row[name] = analysis.picture(restored[architecture], pictures["truth"].shape)
            rows.append(
                {
                    name if name == image else titled(name, shown, pictures["truth"]): shown
                    for name, shown in row.items()
                }
            )
        figures.qualitative(folder / f"qualitative-{task}", rows)


def titled(name: str, image: np.ndarray, truth: np.ndarray) -> str:
    """A name with PSNR and SSIM where the sizes agree."""
    if image.shape != truth.shape:
        return name
    return f"{name}\n{quality.psnr(image, truth):.2f} dB, {quality.ssim(image, truth):.3f}"


ITEMS: dict[str, Callable[[Dataset, pathlib.Path], None]] = {
    "table1": table1,
    "published": published,
    "figure1": figure1,
    "agreement": agreement,
    "figure2": figure2,
    "histograms": histograms,
    "qualitative": qualitative,
}


def main(_: Sequence[str]) -> None:
    """The story: read the dataset, make what was asked for."""
    if FLAGS.dataset is None:
        raise ValueError("give --dataset, a folder that make_dataset filled")
    for name in FLAGS.items:
        if name not in ITEMS:
            raise ValueError(f"item {name!r} does not exist; choose from {', '.join(ITEMS)}")
    dataset = analysis.load(pathlib.Path(FLAGS.dataset))
    known = {
        "metric": ([FLAGS.metric, *FLAGS.metrics], dataset.metrics()),
        "outcome": ([FLAGS.outcome], analysis.OUTCOMES),
    }
    for what, (names, choices) in known.items():
        for name in names:
            if name not in choices:
                raise ValueError(
                    f"{what} {name!r} is not in the dataset; choose from {', '.join(choices)}"
                )
    print(f"{len(dataset.genotypes)} genotypes, {len(dataset.cases)} cases", end="")
    print(
        f"; {dataset.incomplete} architectures left out, unfinished or failed"
        if dataset.incomplete
        else ""
    )
    for name in FLAGS.items or ITEMS:
        ITEMS[name](dataset, pathlib.Path(FLAGS.output_dir))


if __name__ == "__main__":
    cli.run(main)
