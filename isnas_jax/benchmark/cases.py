"""The problems of the benchmark: clean images, corrupted in tasks of some strength.

    images/IMAGE.parquet     a row: `IMAGES`

The name of a task has the strength of its corruption: denoising_25 is denoising with a sigma of 25
gray levels. The corruption of an image follows from the seed of the study and the image's name.
Images are float32 (H, W, C) in [0, 1]. Needs pyarrow.
"""

import pathlib

import numpy as np
import pyarrow as pa

from isnas_jax.benchmark.rows import VERSION
from isnas_jax.registries import TASKS
from isnas_jax.study import Case, pose, store

# The option of `Task.corrupt` that is the strength of a task, and its type.
STRENGTHS = {
    "denoising": ("sigma", float),
    "inpainting": ("missing", float),
    "super_resolution": ("factor", int),
}

IMAGES = pa.schema(
    [
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("channels", pa.int32()),
        ("seed", pa.int32()),  # of the study
        ("clean", pa.binary()),  # float32
    ]
)


def task_name(task: str, strength: float) -> str:
    """Return the name of a task with a strength, such as denoising_25."""
    return f"{task}_{strength:g}"


def pose_case(image: str, clean: np.ndarray, name: str, seed: int) -> Case:
    """Corrupt a clean image for a task with its strength in the name, as a study with a seed."""
    task, _, strength = name.rpartition("_")
    option, kind = STRENGTHS[task]
    return pose(seed, image, clean, TASKS[task], **{option: kind(strength)})


def write_image(folder: pathlib.Path, image: str, clean: np.ndarray, seed: int) -> None:
    """Write a clean image, and the seed of its study, to a folder of a benchmark.

    Raises:
      ValueError: If the folder has another image of this name, or another seed.
    """
    pixels = np.asarray(clean, np.float32)
    rows = store.table([(*pixels.shape, seed, pixels.tobytes())], IMAGES)
    path = folder / store.unit_path("images", image)
    if not path.exists():
        store.write(path, rows, VERSION)
    elif store.read(path).to_pylist() != rows.to_pylist():
        raise ValueError(f"{str(folder)!r} has another image {image!r}, or one with another seed")


def read_case(folder: pathlib.Path, image: str, name: str) -> Case:
    """Return the case of an image in a task of a benchmark."""
    (row,) = store.read(folder / store.unit_path("images", image)).to_pylist()
    shape = row["height"], row["width"], row["channels"]
    clean = np.frombuffer(row["clean"], np.float32).reshape(shape)
    return pose_case(image, clean, name, row["seed"])
