r"""Classical restorations of the same problem, as points of reference.

    python -m experiments.classical --image=sample:chelsea --task=denoising --output_dir=out_nlm

Denoising: non-local means, total variation, and BM3D if the package bm3d is installed. Inpainting:
biharmonic. Super-resolution: bicubic.
"""

import jax

from isnas_jax.io import images, records
from isnas_jax.ops import quality
from isnas_jax.problems import classical
from isnas_jax.registries import CLASSICAL

from . import building
from .flags import FLAGS, define
from .main import open_folder, run_script


def define_flags() -> None:
    """Define the flags of this script."""
    define("image", "run")


def main() -> None:
    """Pose the problem, restore it by every method, and write images and quality."""
    problem, clean = building.load_problem(jax.random.key(FLAGS.seed))
    bits = building.bits()
    folder = open_folder(problem=problem, clean=clean)
    qualities = {}
    for name, method in CLASSICAL.items():
        if method.task != problem.task:
            continue
        restored = classical.restore(method, problem)
        images.save(folder / f"{name.replace(' ', '_')}.png", restored, bits=bits)
        if clean is not None:
            qualities[name] = quality.report(restored, clean)
            print(f"{name}: {qualities[name]['psnr']:.2f} dB, SSIM {qualities[name]['ssim']:.3f}")
    records.write_json(folder / "result.json", qualities)


if __name__ == "__main__":
    run_script(main, define_flags)
