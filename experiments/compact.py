r"""Fold the many small files of a dataset into few, which are read as before.

    python -m experiments.compact --dataset=dataset

It is safe while `make_dataset` runs, and safe to kill.
"""

import pathlib

from absl import flags

from isnas_jax.study import compaction

from .main import FLAGS, run_script


def define_flags() -> None:
    """Define the flags of this script."""
    flags.DEFINE_string("dataset", None, "Folder that make_dataset writes to.")


def main() -> None:
    """Fold the files and print their number."""
    if not FLAGS.dataset:
        raise ValueError("give --dataset, a folder that make_dataset writes to")
    print(f"folded {compaction.compact(pathlib.Path(FLAGS.dataset))} files")


if __name__ == "__main__":
    run_script(main, define_flags)
