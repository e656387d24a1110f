r"""Restore an image with one architecture: a genotype, dip or nas-dip.

python -m experiments.restore --image=sample:camera --architecture=dip --output_dir=out_dip
"""

import time

import jax
from absl import flags

import isnas_jax as isnas
from isnas_jax import figures, report
from isnas_jax.io import records
from isnas_jax.networks import network_for
from isnas_jax.searching import plan_restoration

from . import building, progress
from .flags import define, refuse_unused
from .main import FLAGS, open_folder, run_script


def define_flags() -> None:
    """Define the flags of this script."""
    define("image", "run", "network", "fit", "refit", "runner")
    flags.DEFINE_boolean("json", False, "Print the result as JSON instead of a table.")
    flags.DEFINE_string("architecture", "dip", "dip, nas-dip, or a genotype CELL:BITS.")


def main() -> None:
    """Pose the problem, fit the architecture, and write everything down."""
    figures.use_defaults()
    key = jax.random.key(FLAGS.seed)
    problem, clean = building.load_problem(key)
    bits = building.bits()
    config = building.config(problem)
    unused = () if config.fit.validates else ("split", "folds", "refit_factor", "refit_from")
    refuse_unused({"without validation: see --split and --stopping": unused})
    architecture = building.architecture(FLAGS.architecture, config.search.space)
    network_for(problem, architecture, config.network, config.search.space)  # or ValueError
    runner = building.runner()
    folder = open_folder(problem=problem, network=config.network, fit=config.fit, clean=clean)

    begin = time.perf_counter()
    with progress.shown(plan_restoration(config)) as status:
        progress.show_previews(status, folder, problem, bits)
        fit = isnas.restore(
            key,
            problem,
            architecture,
            config,
            clean=clean,
            folder=folder / "work",
            progress=status,
            runner=runner,
        )

    member = report.Member(FLAGS.architecture, 1.0, fit)
    record = report.write_restoration(folder, problem, fit.restored, [member], clean, bits=bits)
    report.write_timings(folder, {"restore": time.perf_counter() - begin})
    report.write_page(folder)
    print(records.to_json(record) if FLAGS.json else report.summary(record, folder))


if __name__ == "__main__":
    run_script(main, define_flags)
