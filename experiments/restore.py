r"""Restore an image with one architecture: a genotype, dip or nas-dip.

python -m experiments.restore --image=sample:camera --architecture=dip --output_dir=out_dip
"""

import time
from collections.abc import Sequence

import jax
from absl import flags

import isnas_jax as isnas
from experiments import cli
from isnas_jax.search import restore

FLAGS = flags.FLAGS

cli.define_image_flags()
cli.define_fit_flags()
flags.DEFINE_string("architecture", "dip", "dip, nas-dip, or a genotype CELL:BITS.")


def main(_: Sequence[str]) -> None:
    """The story: pose the problem, build the network, fit it, write everything down."""
    settings = cli.preset(FLAGS.task)
    corrupt_key, _, fit_key = jax.random.split(jax.random.key(FLAGS.seed), 3)
    fit_settings = cli.fit_settings(settings)
    name = FLAGS.architecture
    architecture = name if name in isnas.BASELINES else isnas.Genotype.parse(name)
    problem, truth = cli.load_problem(corrupt_key, settings["size"])
    net = isnas.build_network(
        architecture,
        out_channels=problem.shape[2],
        channels=settings["channels"],
        task=FLAGS.task,
        remat=FLAGS.remat,
    )
    folder = cli.open_folder(settings | {"architecture": name}, "restore")

    bars, start = cli.Bars(), time.perf_counter()
    fit = restore(
        fit_key,
        net,
        problem,
        fit_settings,
        truth=truth,
        file=folder / "work" / "restore.npz",
        progress=lambda news: bars("restore", news),
    )
    bars.close()

    record = cli.write_restoration(folder, problem, fit, truth, name)
    cli.write_timings(folder, {"restore": time.perf_counter() - start})
    print(cli.summary(record, folder))


if __name__ == "__main__":
    cli.run(main)
