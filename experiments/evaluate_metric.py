r"""Judge metrics by the benchmark: do they rank the networks first that restore best?

    python -m experiments.evaluate_metric --metrics=psd_db_strip_mse --output_dir=leaderboard

Nothing is fitted. Each metric is computed for every genotype of the benchmark, and compared with
what its fits reached. leaderboard.csv has all quantities that `isnas_jax.benchmark.leaderboard`
describes, and each task has a table of some. Metrics whose scores are stored with the benchmark are
listed too, and controls: a random score, the operations of a step, the mean rank on the other
images of each task (transfer TASK), and validation errors of brief fits. --transfer_from adds mean
ranks in another benchmark. --models adds predictors that learn from the other images; they need
scikit-learn. --store adds the scores to the benchmark.
"""

import functools
import importlib.util

import jax
from absl import flags

import isnas_jax as isnas
from isnas_jax import benchmark
from isnas_jax.benchmark.evaluation import INDEX
from isnas_jax.registries import METRICS, SPACES
from isnas_jax.report import tables

from . import progress
from .flags import define_output_dir, define_seed
from .main import FLAGS, open_folder, run_script


def define_flags() -> None:
    """Define the flags of this script."""
    flags.DEFINE_list("metrics", list(METRICS), "Metrics to judge, an extension's included.")
    flags.DEFINE_list("models", [], "Predictors to judge too: linear, boosted trees.")
    flags.DEFINE_string("benchmark", None, "Folder of a benchmark; by default the package's.")
    flags.DEFINE_string("transfer_from", None, "Folder of another benchmark that ranks genotypes.")
    flags.DEFINE_integer("channels", 16, "Width of its networks.", lower_bound=1)
    flags.DEFINE_string("space", "free", "Search space of its genotypes.")
    flags.DEFINE_integer("num_inits", 8, "Random initializations of each genotype.", lower_bound=1)
    flags.DEFINE_boolean("store", False, "Store the scores in the folder of the benchmark.")
    flags.DEFINE_integer("resamples", 1000, "Bootstrap samples of the images.", lower_bound=1)
    define_output_dir("leaderboard", "Folder for the tables.")
    define_seed("Seed of bootstrap and random selections.")


def main() -> None:
    """Compute the metrics, judge them, and write and print the tables."""
    metrics = {name: METRICS[name] for name in dict.fromkeys([*FLAGS.metrics, "random"])}
    models = {name: benchmark.MODELS[name] for name in FLAGS.models}
    if models and not importlib.util.find_spec("sklearn"):
        raise ValueError("--models needs scikit-learn: pip install scikit-learn")
    if FLAGS.store and not FLAGS.benchmark:
        raise ValueError("--store needs --benchmark: the package's own is not changed")
    bench = benchmark.load(FLAGS.benchmark or benchmark.DATA)
    other = benchmark.load(FLAGS.transfer_from) if FLAGS.transfer_from else None
    folder = open_folder(("metrics", "models", "resamples", "seed"), benchmark_digest=bench.digest)
    with progress.shown() as status:
        score = functools.partial(
            benchmark.score_metrics,
            bench,
            inits=isnas.RandomInits(FLAGS.num_inits),
            network=isnas.NetworkConfig(channels=FLAGS.channels),
            space=SPACES[FLAGS.space],
            folder=folder / "work",
            progress=status,
        )
        scores = score(metrics)
        if FLAGS.store:
            of_images = {
                name: metric
                for name, metric in metrics.items()
                if not isinstance(metric, isnas.NetworkMetric)
            }
            benchmark.store_scores(bench, score(of_images, reference="clean"), "clean")
            benchmark.store_scores(bench, scores)
    stored = benchmark.stored_scores(bench)
    scores = scores.merge(stored[[*INDEX, *stored.columns.difference(scores.columns)]], on=INDEX)
    predicted = {name: -benchmark.predict(bench, scores, models[name]) for name in models}
    scores = scores.assign(**predicted).merge(benchmark.control_scores(bench), on=INDEX)
    if other:
        ranks = benchmark.transfer_scores(other, bench).set_index(INDEX)
        scores = scores.join(ranks.add_suffix(", other benchmark"), on=INDEX)
    quantities = benchmark.leaderboard(
        bench, scores, key=jax.random.key(FLAGS.seed), resamples=FLAGS.resamples
    )
    source = f"{bench.version}, digest {bench.digest}"
    tables.write(folder / "leaderboard", quantities.assign(benchmark=source).set_index("benchmark"))
    for task in bench.tasks:
        text = tables.write(folder / task, benchmark.leaderboard_of(quantities, task))
        print(f"{task}, {len(bench.images(task))} images ({source})\n{text}\n")
    print(f"see {folder}")


if __name__ == "__main__":
    run_script(main, define_flags)
