r"""Classical restorations of the same problem, as points of reference.

    python -m experiments.classical --image=sample:chelsea --task=denoising --output_dir=out_nlm

Denoising: non-local means, total variation (Chambolle), and BM3D if the
package bm3d is installed. Inpainting: biharmonic. Super-resolution: bicubic.
"""

from collections.abc import Sequence

import jax
from absl import flags

from experiments import cli
from isnas_jax import classical, images, quality, records

FLAGS = flags.FLAGS

cli.define_image_flags()


def main(_: Sequence[str]) -> None:
    """The story: pose the problem, restore it by known means, write it down."""
    settings = cli.preset(FLAGS.task)
    corrupt_key, _rest = jax.random.split(jax.random.key(FLAGS.seed), 3)[:2]
    problem, truth = cli.load_problem(corrupt_key, settings["size"])
    folder = cli.open_folder({"size": settings["size"]}, "classical")
    report = {}
    for name in classical.CLASSICAL[FLAGS.task]:
        restored = classical.restore(name, problem, FLAGS.task, FLAGS.sigma)
        images.save(folder / f"{name.replace(' ', '_')}.png", restored)
        if truth is not None:
            report[name] = quality.report(restored, truth)
            print(f"{name}: {report[name]['psnr']:.2f} dB, SSIM {report[name]['ssim']:.3f}")
    records.write_json(folder / "result.json", report)


if __name__ == "__main__":
    cli.run(main)
