r"""Judge search strategies by the benchmark, at equal simulated seconds.

    python -m experiments.evaluate_strategy --budgets=30,60,120 --output_dir=strategies

Nothing is fitted. Each strategy fits genotypes to every image until the simulated seconds of
a budget are spent. The result is the member with the lowest validation error, or the stack of all.
runs.csv has the PSNR on every image, and each task has a table of the means, less those of random
genotypes, with 95 % intervals over images.
"""

import re

import jax
from absl import flags

from isnas_jax import benchmark
from isnas_jax.report import tables

from .flags import define_output_dir, define_seed
from .main import FLAGS, open_folder, run_script


def define_flags() -> None:
    """Define the flags of this script."""
    flags.DEFINE_list("strategies", [], "Strategies to judge; all by default.")
    flags.DEFINE_list("budgets", ["30", "60", "120"], "Simulated seconds of a search.")
    flags.DEFINE_string("benchmark", None, "Folder of a benchmark; by default the package's.")
    flags.DEFINE_integer("repeats", 10, "Runs of a strategy on an image.", lower_bound=1)
    define_output_dir("strategies", "Folder for the tables.")
    define_seed("Seed of the runs.")


def read_seconds(text: str) -> float:
    """Return the number of seconds in a text; ValueError if it has none above 0."""
    if not re.fullmatch(r"\d+(\.\d+)?", text) or not float(text):
        raise ValueError(f"budget {text!r} must be a number of seconds above 0")
    return float(text)


def main() -> None:
    """Run the strategies on all images, and write and print the tables."""
    known = benchmark.STRATEGIES
    chosen = {name: known[name] for name in dict.fromkeys([*(FLAGS.strategies or known), "random"])}
    budgets = [read_seconds(text) for text in FLAGS.budgets]
    bench = benchmark.load(FLAGS.benchmark or benchmark.DATA)
    folder = open_folder(benchmark_digest=bench.digest)
    runs = benchmark.compare_strategies(
        bench, chosen, budgets, key=jax.random.key(FLAGS.seed), repeats=FLAGS.repeats
    )
    tables.write(folder / "runs", runs.set_index("task"))
    print(f"{bench.version}, digest {bench.digest}\n")
    for task in bench.tasks:
        print(task, tables.write(folder / task, benchmark.strategy_table(runs, task)), "", sep="\n")
    print(f"see {folder}")


if __name__ == "__main__":
    run_script(main, define_flags)
