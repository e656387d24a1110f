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

import dataclasses
import pathlib
from collections.abc import Sequence

from absl import flags

from isnas_jax import figures, report
from isnas_jax.io import records
from isnas_jax.study import analysis

from . import cli

FLAGS = flags.FLAGS

flags.DEFINE_string("dataset", None, "Folder that make_dataset filled.")
cli.define_output_dir("report", "Folder for tables and figures.")
flags.DEFINE_list("items", [], "Which tables and figures; all by default.")
flags.DEFINE_list("metrics", [], "Metrics of table1; those of the supplement and ours by default.")
flags.DEFINE_string("metric", "psd_db_strip_mse", "Metric that chooses genotypes.")
flags.DEFINE_string("outcome", "restored PSNR", "What the histograms show.")
flags.DEFINE_string("reference", None, "Image to sort figure1 by; the first by default.")
cli.define_seed("Of bootstrap and random cohorts.")
flags.DEFINE_integer("resamples", 1000, "Bootstrap samples.", lower_bound=1)


def main(_: Sequence[str]) -> None:
    """The story: read the dataset, make what was asked for."""
    if FLAGS.dataset is None:
        raise ValueError("give --dataset, a folder that make_dataset filled")
    figures.use_defaults()
    items = {name: report.ITEMS[name] for name in FLAGS.items or report.ITEMS}
    dataset = analysis.load(pathlib.Path(FLAGS.dataset))
    config = report.PaperConfig(
        tuple(FLAGS.metrics),
        FLAGS.metric,
        FLAGS.outcome,
        FLAGS.reference,
        FLAGS.seed,
        FLAGS.resamples,
    )
    config.check(dataset)
    left_out = f"; {dataset.incomplete} architectures left out, unfinished or failed"
    texts = [
        f"{len(dataset.genotypes)} genotypes, {len(dataset.cases)} cases"
        f"{left_out if dataset.incomplete else ''}"
    ]
    folder = pathlib.Path(FLAGS.output_dir)
    texts += [text for item in items.values() if (text := item(dataset, folder, config))]
    described = {
        "script": "analyze",
        "dataset": FLAGS.dataset,
        "genotypes": len(dataset.genotypes),
        "cases": {task: dataset.images(task) for task in dataset.tasks},
        **dataclasses.asdict(config),
    }
    records.write_json(folder / "analysis.json", described)
    cli.write_command(folder)
    page = report.write_page(folder)
    print(*texts, f"see {page}", sep="\n")


if __name__ == "__main__":
    cli.run(main)
