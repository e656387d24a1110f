r"""Write the page of a folder that a search, restoration, comparison or analysis left.

python -m experiments.report --folder=out

Those scripts write the page when they end. This one writes it again, from the records alone.
"""

import pathlib

from absl import flags

from isnas_jax import report

from .main import FLAGS, run_script


def define_flags() -> None:
    """Define the flags of this script."""
    flags.DEFINE_string("folder", "out", "Output folder of a run.")


def main() -> None:
    """Write the page and print its path."""
    print(report.write_page(pathlib.Path(FLAGS.folder)))


if __name__ == "__main__":
    run_script(main, define_flags)
