r"""Restore an image with one architecture: a genotype, dip or nas-dip.

python -m experiments.restore --image=sample:camera --architecture=dip --output_dir=out_dip
"""

import time
from collections.abc import Sequence

import jax
from absl import flags

import isnas_jax as isnas
from isnas_jax import figures, report
from isnas_jax.fitting import validates
from isnas_jax.io import records
from isnas_jax.networks import network_for, parse_architecture
from isnas_jax.searching import stages

from . import cli, progress
from .preview import preview

FLAGS = flags.FLAGS

cli.define_image_flags()
cli.define_network_flags()
cli.define_fit_flags()
cli.define_refit_flags()
cli.define_runner_flags()
flags.DEFINE_boolean("json", False, "Print the result as JSON instead of a table.")
flags.DEFINE_string("architecture", "dip", "dip, nas-dip, or a genotype CELL:BITS.")


def main(_: Sequence[str]) -> None:
    """The story: pose the problem, fit the architecture, write everything down."""
    figures.use_defaults()
    key = jax.random.key(FLAGS.seed)
    problem, clean = cli.load_problem(key)
    bits = cli.bits()
    config = cli.config(problem)
    unused = () if validates(config.fit) else ("split", "folds", "refit_factor", "refit_from")
    cli.refuse_idle({"without a validation: see --split and --stopping": unused})
    architecture = parse_architecture(FLAGS.architecture, config.search.space)
    network_for(problem, architecture, config.network, config.search.space)  # or ValueError
    runner = cli.runner()
    folder = cli.open_folder(problem=problem, network=config.network, fit=config.fit, clean=clean)

    start = time.perf_counter()
    with progress.shown(stages.of_restoration(config)) as run:
        fit = isnas.restore(
            key,
            problem,
            architecture,
            config,
            clean=clean,
            folder=folder / "work",
            progress=run,
            runner=runner,
            preview=preview(folder, problem, run, bits),
        )

    member = report.Member(FLAGS.architecture, 1.0, fit)
    record = report.write_restoration(folder, problem, fit.restored, [member], clean, bits=bits)
    report.write_timings(folder, {"restore": time.perf_counter() - start})
    report.write_page(folder)
    print(records.to_json(record) if FLAGS.json else report.summary(record, folder))


if __name__ == "__main__":
    cli.run(main)
