r"""Classical restorations of the same problem, as points of reference.

    python -m experiments.classical --image=sample:chelsea --task=denoising --output_dir=out_nlm

Denoising: non-local means, total variation (Chambolle), and BM3D if the
package bm3d is installed. Inpainting: biharmonic. Super-resolution: bicubic.
"""

from collections.abc import Sequence

import jax
from absl import flags

from isnas_jax.io import images, records
from isnas_jax.ops import quality
from isnas_jax.problems import classical

from . import cli

FLAGS = flags.FLAGS

cli.define_image_flags()


def main(_: Sequence[str]) -> None:
    """The story: pose the problem, restore it by known means, write it down."""
    problem, clean = cli.load_problem(jax.random.key(FLAGS.seed))
    bits = cli.bits()
    folder = cli.open_folder(problem=problem, clean=clean)
    report = {}
    for name in classical.names_of(problem.task):
        restored = classical.restore(name, problem)
        images.save(folder / f"{name.replace(' ', '_')}.png", restored, bits=bits)
        if clean is not None:
            report[name] = quality.report(restored, clean)
            print(f"{name}: {report[name]['psnr']:.2f} dB, SSIM {report[name]['ssim']:.3f}")
    records.write_json(folder / "result.json", report)


if __name__ == "__main__":
    cli.run(main)
