r"""Make tables and figures of a dataset that `make_dataset` wrote.

    python -m experiments.analyze --dataset=dataset --output_dir=report

Tables are written as text, Markdown, LaTeX and CSV, figures as PNG and PDF. --items selects:

    table1        Kendall's tau of metrics with the optimal stopping iteration, best PSNR and PSNR
                  increase, with bootstrap intervals, and that of the random score
    published     table1 with the published numbers, differences, rank agreement
    figure1       PSNR increase on every image, sorted by one image; transfer gaps
    agreement     rank agreement between images, of fitted quality and of scores
    figure2       PSNR curves of several genotypes, peaks marked
    histograms    figures 3 and 6: final PSNR, the metric's top 5 and 15 marked
    qualitative   figures 4 and 5: clean image, observation, DIP, NAS-DIP, ISNAS-DIP
"""

import dataclasses
import pathlib

from absl import flags

from isnas_jax import figures, report
from isnas_jax.io import records
from isnas_jax.study import analysis

from .flags import define_output_dir, define_seed
from .main import FLAGS, run_script, write_command


def define_flags() -> None:
    """Define the flags of this script."""
    flags.DEFINE_string("dataset", None, "Folder that make_dataset writes to.")
    define_output_dir("report", "Folder for tables and figures.")
    flags.DEFINE_list("items", [], "Which tables and figures; all by default.")
    flags.DEFINE_list("metrics", [], "Metrics of table1; by default the supplement's and ours.")
    flags.DEFINE_string("metric", "psd_db_strip_mse", "Metric that selects genotypes.")
    flags.DEFINE_string("outcome", "restored PSNR", "Quantity of the histograms.")
    flags.DEFINE_string("reference", None, "Image to sort figure1 by; the first by default.")
    define_seed("Seed of bootstrap and random cohorts.")
    flags.DEFINE_integer("resamples", 1000, "Bootstrap samples.", lower_bound=1)


def main() -> None:
    """Read the dataset and write the items."""
    if FLAGS.dataset is None:
        raise ValueError("give --dataset, a folder that make_dataset writes to")
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
    texts = [
        f"{len(dataset.genotypes)} genotypes, {len(dataset.cases)} cases; {dataset.incomplete} "
        "architectures left out, unfinished or failed"
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
    write_command(folder)
    page = report.write_page(folder)
    print(*texts, f"see {page}", sep="\n")


if __name__ == "__main__":
    run_script(main, define_flags)
