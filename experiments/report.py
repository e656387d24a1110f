r"""Make the page of a folder that a search, restoration, comparison or analysis left.

python -m experiments.report --folder=out

They make it themselves at their end; this makes it again, of the records alone.
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from isnas_jax import report

from . import cli

FLAGS = flags.FLAGS

flags.DEFINE_string("folder", "out", "Folder that a run left.")


def main(_: Sequence[str]) -> None:
    """The story: read the records, write the page."""
    print(report.write_page(pathlib.Path(FLAGS.folder)))


if __name__ == "__main__":
    cli.run(main)
