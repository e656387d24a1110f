r"""Judge stopping rules, cohorts and aggregations from recorded fits, in about a minute.

    python -m experiments.decisions.tables --output_dir=tables

The input folder holds `curves.parquet` and `members.parquet`, which `gather` writes, and
`runs.csv` of `experiments.compare`. Each topic becomes a Markdown page in the output
folder. Add rules to `stopping.RULES`, cohorts to `aggregation.COHORTS` and aggregations
to `aggregation.AGGREGATIONS`. Intervals are 95 % bootstrap over images; all rows of an image
stay together.
"""

import pathlib
import re
from collections.abc import Iterator, Mapping

import pandas as pd
from absl import flags

from isnas_jax.io import records

from ..main import FLAGS, run_script
from .aggregation import aggregate, aggregation_table, cohort_tables, default_cohort, folds_table
from .curves import EXPERIMENTS
from .methods import method_tables, overview
from .scores import score_table
from .stopping import gap_tables, gaps

# Rules and cohorts were chosen on these images; the tables report on the others.
TUNING_IMAGES = ("coffee", "coins", "moon")
_NEGATIVE_ZERO = re.compile(r"-(0\.0+)(?!\d)")

# Title and text of each page.
PAGES = {
    "experiments": (
        "Experiments",
        """\
The recorded fits. "Top" genotypes have the lowest of 64 scores by `psd_db_strip_mse`; "random" ones
are the first of the others. All are fitted to every measurement and to the training problem of each
split. Only baselines and the two random genotypes of lower score are fitted to all folds; tables
call these genotypes "top-half".""",
    ),
    "stopping": (
        "Stopping rules",
        """\
PSNR in dB below the best EMA (equation 4) of the fit to all measurements; negative is better than
that oracle. "Bias-corrected" rules are those of the default: they stop at the lowest smoothed
validation error of the bias-corrected EMA, with a patience of a tenth of the most iterations.
ES-WMV has a window of 50. ES-WMV and ES-EMV have a patience of a sixth of the fit.""",
    ),
    "scores": (
        "What the score predicts",
        """\
Kendall's τ between training-free score and best PSNR over an image's genotypes (negative is good),
and the best PSNR of the top genotypes less that of random ones. Means over images.""",
    ),
    "aggregation": (
        "Selections and combinations",
        """\
Mean PSNR less that of the oracle, which returns the cohort's best member. The reference cohort has
DIP, NAS-DIP where there is no noise, and the two of lower score among some random genotypes.
"Least" is the image on which the stack compares worst with the member of lowest validation
error.""",
    ),
    "cohorts": (
        "Cohorts",
        """\
Mean PSNR of stacks, of single networks with the rule "bias-corrected", and of classical
restorations. "Top" genotypes have the lowest of 64 scores, "random" ones are the first of the
others, and "top-half" ones have the lowest scores of these. Differences are paired by image. "The
best classical" is chosen with the clean image.""",
    ),
    "methods": (
        "Methods",
        """\
Mean PSNR and SSIM over images and seeds, with paired differences in dB over the runs that both
methods have. "The best classical" is chosen with the clean image.""",
    ),
}


def experiment_table(curves: pd.DataFrame) -> pd.DataFrame:
    """Return one row per experiment with its config and number of images."""
    rows = {}
    for name, group in curves.groupby("experiment", sort=False):
        experiment = EXPERIMENTS[name]
        rows[name] = {
            "problem": experiment.title,
            "images": group["image"].nunique(),
            "top": experiment.num_top,
            "random": experiment.num_random,
            "baselines": ", ".join(experiment.baselines),
            "channels": experiment.channels,
            "iterations": experiment.iterations,
            "splits": ", ".join(experiment.splits),
            "folds": experiment.folds,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("experiment")


def recorded_tables(
    curves: pd.DataFrame, members: pd.DataFrame
) -> Iterator[tuple[str, dict[str, pd.DataFrame]]]:
    """Yield for each page from the recorded fits its name and its tables by heading."""
    yield "experiments", {"All experiments": experiment_table(curves)}
    yield "stopping", gap_tables(gaps(curves))
    yield "scores", {"All experiments": score_table(curves)}
    results = aggregate(members)
    one_fold = results[~results["split"].str.contains("folds")]
    aggregations = {
        "The reference cohort": aggregation_table(one_fold),
        "With classical restorations": aggregation_table(
            one_fold, lambda experiment: f"{default_cohort(experiment)}, classical"
        ),
        "Three random genotypes": aggregation_table(one_fold, lambda _: "3 random"),
        "One fold and three": folds_table(results),
    }
    yield "aggregation", aggregations
    yield "cohorts", cohort_tables(one_fold)


def markdown(table: pd.DataFrame) -> str:
    """Return a table in Markdown, with its index as the first column.

    Zeros have no sign: rounding errors, which depend on the machine, would decide on it.
    """
    unsigned = table.map(lambda value: _NEGATIVE_ZERO.sub(r"\1", str(value)))
    return unsigned.to_markdown(tablefmt="github", disable_numparse=True)


def page(title: str, text: str, tables: Mapping[str, pd.DataFrame]) -> str:
    """Return a page with a title, a text, and tables under their headings."""
    sections = [f"## {heading}\n\n{markdown(table)}" for heading, table in tables.items()]
    note = "Generated by `experiments.decisions.tables`; see [decisions](../decisions.md)."
    return "\n\n".join([f"# {title}", note, text, *sections]) + "\n"


def fill(page: str, name: str, table: pd.DataFrame) -> str:
    """Return a page with a table put between the lines <!-- NAME --> and <!-- end -->."""
    marked = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not marked.search(page):
        raise ValueError(f"the page has no lines '<!-- {name} -->' and '<!-- end -->'")
    return marked.sub(lambda match: f"{match[1]}\n{markdown(table)}\n\n{match[2]}", page)


def define_flags() -> None:
    """Define the flags of this script."""
    flags.DEFINE_string("input_dir", "docs/decisions", "Folder of the recorded fits and runs.")
    flags.DEFINE_string("output_dir", "decisions_tables", "Folder for the pages.")
    flags.DEFINE_string("page", None, "Markdown file to fill the table of methods into.")
    flags.DEFINE_boolean("tuning", False, "Judge on the images that choices were made on.")


def main() -> None:
    """Write the pages, and fill the overview of methods into the page that links to them."""
    source, target = pathlib.Path(FLAGS.input_dir), pathlib.Path(FLAGS.output_dir)
    frames = [pd.read_parquet(source / f"{name}.parquet") for name in ("curves", "members")]
    curves, members = (
        frame[frame["image"].isin(TUNING_IMAGES) == FLAGS.tuning] for frame in frames
    )
    tables = dict(recorded_tables(curves, members))
    if not FLAGS.tuning:  # methods were not compared on the tuning images
        tables["methods"] = method_tables(pd.read_csv(source / "runs.csv"))
        if FLAGS.page:
            path = pathlib.Path(FLAGS.page)
            text = fill(path.read_text(encoding="utf-8"), "methods", overview(tables["methods"]))
            records.write_bytes(path, text.encode())
    for name, by_heading in tables.items():
        records.write_bytes(target / f"{name}.md", page(*PAGES[name], by_heading).encode())
        print(target / f"{name}.md")


if __name__ == "__main__":
    run_script(main, define_flags)
