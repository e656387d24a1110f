r"""Classical restorations of the same problem, as points of reference.

    python -m experiments.classical --image=sample:chelsea --task=denoising --output_dir=out_nlm

Denoising: non-local means and total variation (Chambolle), told the noise's
strength, TV at scikit-image's default weight. Inpainting: biharmonic.
Super-resolution: bicubic. All from scikit-image.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import skimage.restoration as restoration
import skimage.transform as transform
from absl import flags

import isnas_jax as isnas
from experiments import cli
from isnas_jax import images, quality, records

FLAGS = flags.FLAGS

cli.define_image_flags()


def classical(problem: isnas.Problem) -> dict[str, np.ndarray]:
    """Restorations by name."""
    observed: Any = np.asarray(problem.observed)
    if FLAGS.task == "denoising":
        sigma = FLAGS.sigma / 255
        return {
            "non-local means": restoration.denoise_nl_means(
                observed, h=0.8 * sigma, sigma=sigma, fast_mode=False, channel_axis=-1
            ),
            "total variation": restoration.denoise_tv_chambolle(observed, channel_axis=-1),
        }
    if FLAGS.task == "inpainting":
        missing = np.asarray(problem.operator(jnp.ones(problem.shape)))[..., 0] == 0
        filled = restoration.inpaint_biharmonic(observed, missing, channel_axis=-1)
        return {"biharmonic": filled}
    return {"bicubic": transform.resize(observed, problem.shape, order=3)}


def main(_: Sequence[str]) -> None:
    """The story: pose the problem, restore it by known means, write it down."""
    settings = cli.preset(FLAGS.task)
    corrupt_key, _rest = jax.random.split(jax.random.key(FLAGS.seed), 3)[:2]
    problem, truth = cli.load_problem(corrupt_key, settings["size"])
    folder = cli.open_folder({"size": settings["size"]}, "classical")
    report = {}
    for name, image in classical(problem).items():
        restored = np.clip(image, 0, 1).astype(np.float32)
        images.save(folder / f"{name.replace(' ', '_')}.png", restored)
        if truth is not None:
            report[name] = quality.report(restored, truth)
            print(f"{name}: {report[name]['psnr']:.2f} dB, SSIM {report[name]['ssim']:.3f}")
    records.write_json(folder / "result.json", report)


if __name__ == "__main__":
    cli.run(main)
