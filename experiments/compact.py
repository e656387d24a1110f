r"""Fold the many small files of a dataset into few, which are read as before.

    python -m experiments.compact --dataset=dataset

`make_dataset` may be at it meanwhile, and may be killed, as may this.
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from isnas_jax.study import compaction

from . import cli

FLAGS = flags.FLAGS

flags.DEFINE_string("dataset", None, "Folder that make_dataset fills.")


def main(_: Sequence[str]) -> None:
    """The story: one call."""
    if not FLAGS.dataset:
        raise ValueError("give --dataset: the folder that make_dataset fills")
    print(f"folded {compaction.compact(pathlib.Path(FLAGS.dataset))} files")


if __name__ == "__main__":
    cli.run(main)
