"""The flags that scripts have in common, and checks of their values.

Scripts define flags when they run, not when they are imported.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from absl import flags

FLAGS = flags.FLAGS

LARGEST_SEED = 2**32 - 1  # JAX's keys are built from 32 bits


class _SigmaParser(flags.ArgumentParser):
    """Parses a number, or "auto"."""

    def parse(self, argument):
        try:
            return argument if argument == "auto" else float(argument)
        except ValueError:
            raise ValueError(f"{argument!r} is neither a number nor auto") from None


def _common() -> None:
    default = os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "isnas_jax")
    flags.DEFINE_string(
        "compilation_cache",
        os.environ.get("JAX_COMPILATION_CACHE_DIR", default),
        "Folder for compiled programs, 1 GiB at most; empty for none.",
    )
    flags.DEFINE_list(
        "extensions", [], "Modules to import first, which register metrics, tasks and other parts."
    )


def _image() -> None:
    flags.DEFINE_string("image", None, "Clean image to corrupt: a path or sample:NAME.")
    flags.DEFINE_string("observed", None, "Corrupted image to restore: a path.")
    flags.DEFINE_string(
        "task", "denoising", "denoising, inpainting, super_resolution or an extension's."
    )
    flags.DEFINE_string("mask", None, "Mask image for inpainting: white is known, black missing.")


def define_output_dir(default: str, text: str) -> None:
    """Define --output_dir."""
    flags.DEFINE_string("output_dir", default, text)
    flags.register_validator("output_dir", bool, "the folder's name is empty; . is the current one")


def define_images() -> None:
    """Define --images, which `building.find_images` finds."""
    flags.DEFINE_list("images", None, "Clean images: files, folders or sample:NAME.")


def define_seed(text: str) -> None:
    """Define --seed."""
    flags.DEFINE_integer("seed", 0, text, lower_bound=0, upper_bound=LARGEST_SEED)


def _run() -> None:
    flags.DEFINE(
        _SigmaParser(),
        "sigma",
        25.0,
        "Noise in gray levels (0 to 255), for denoising; auto estimates it of an --observed image.",
        serializer=flags.ArgumentSerializer(),
    )
    flags.DEFINE_float("missing", 50.0, "Percentage of missing pixels, for inpainting.")
    flags.DEFINE_integer("factor", 4, "2, 4 or 8, for super-resolution.")
    flags.DEFINE_boolean("gray", False, "Convert the clean image to gray first.")
    flags.DEFINE_boolean("square", False, "Crop the clean image to its middle square first.")
    define_seed("Seed of everything random.")
    define_output_dir("out", "Folder for results; an interrupted run resumes.")
    flags.DEFINE_string("preset", "quick", "quick or published: defaults of the flags below.")
    flags.DEFINE_integer(
        "size",
        None,
        "Reduce the clean image to this shorter side first (quick: to 96); 0 keeps it.",
    )


def _network() -> None:
    flags.DEFINE_integer("channels", None, "Width of the networks.")
    flags.DEFINE_string(
        "implementation", None, "matmul or conv; by default the faster one on the device."
    )
    flags.DEFINE_string("precision", None, "Of convolutions: highest (default), high, default.")
    flags.DEFINE_string("dtype", None, "Of feature maps: float32 (default), bfloat16.")
    flags.DEFINE_string("space", None, "Search space: free, toeplitz, light or an extension's.")


def _fit() -> None:
    flags.DEFINE_integer("iterations", None, "Largest number of iterations of a fit.")
    flags.DEFINE_string(
        "stopping", None, "es-wmv, es-emv, validation, discrepancy, fixed or an extension's."
    )
    flags.DEFINE_float("learning_rate", None, "Learning rate of the optimizer.")
    flags.DEFINE_float(
        "input_noise_std", None, "Noise added to z at every iteration (published: reg_noise_std)."
    )
    flags.DEFINE_float("ema_decay", None, "Decay of the moving average of outputs, gamma.")
    flags.DEFINE_boolean("debias", None, "Correct the bias of that average.")
    flags.DEFINE_string("optimizer", None, "adam, or an extension's.")
    flags.DEFINE_list("regularizers", [], "Terms of the loss, NAME:WEIGHT: total variation:0.01.")
    flags.DEFINE_string(
        "split", None, "Measurements to validate with: held-out:0.1, bootstrap:0.15."
    )
    flags.DEFINE_boolean("remat", False, "Trade time for memory: store fewer feature maps.")


def _refit() -> None:
    flags.DEFINE_integer("folds", None, "Number of splits to fit; more make decisions certain.")
    flags.DEFINE_float("refit_factor", None, "Length of a refit relative to the validated fit.")
    flags.DEFINE_float(
        "refit_from", None, "Fraction of the validated fit after which the refit leaves it."
    )


def _scores() -> None:
    flags.DEFINE_string("genotypes", None, "File with genotypes to score instead of a draw.")
    flags.DEFINE_boolean("skip_invalid", False, "Skip invalid lines of that file.")
    flags.DEFINE_integer("num_genotypes", None, "Number of genotypes to draw, or to read at most.")
    flags.DEFINE_integer("num_inits", None, "Random initializations of each genotype.")


def _search() -> None:
    flags.DEFINE_string(
        "strategy", None, "Which genotypes to propose: random, portfolio, or an extension's."
    )
    flags.DEFINE_string(
        "metric",
        "psd_db_strip_mse",
        "Metric to score by: the library's, published or an extension's.",
    )
    flags.DEFINE_integer("cohort", None, "Number of candidates to fit, at most 8 of a portfolio.")
    flags.DEFINE_integer("cohort_iterations", None, "Largest number of iterations of a cohort fit.")
    flags.DEFINE_string("proxy", None, "Problem of the cohort: full, crop, decimate or resize.")
    flags.DEFINE_integer("proxy_size", None, "Side of the proxy in pixels.")
    flags.DEFINE_string("selection", None, "Which member to select: closest, validation or ranks.")
    flags.DEFINE_string(
        "combination", None, "Weights of the members: selected, scores, mean or stack."
    )
    flags.DEFINE_list(
        "extra_members", None, "Join the cohort: dip, nas-dip, names of classical restorations."
    )


def _runner() -> None:
    flags.DEFINE_string(
        "runner", "threads", "What runs the jobs: threads, processes, ray or an extension's."
    )
    flags.DEFINE_integer(
        "workers", None, "Jobs at a time; by default 2 threads, or a process per core."
    )
    flags.DEFINE_string(
        "ray_address",
        None,
        "Address of a Ray cluster, auto for this machine's; by default a new one.",
    )
    flags.DEFINE_integer("job_cpus", None, "Cores for each job on a Ray cluster; 1 by default.")
    flags.DEFINE_float("job_gpus", None, "GPUs for each job, or a fraction of one.")


# Groups of flags: their title in --help, and what defines them.
GROUPS: dict[str, tuple[str, Callable[[], None]]] = {
    "image": ("Image", _image),
    "run": ("Corruption and run", _run),
    "network": ("Networks", _network),
    "fit": ("Fit", _fit),
    "refit": ("Fit", _refit),
    "scores": ("Candidates and scores", _scores),
    "search": ("Search", _search),
    "runner": ("Runner", _runner),
    "common": ("All scripts", _common),
}
TITLES: dict[str, str] = {}  # by the name of a flag in one of the groups


def define(*groups: str) -> None:
    """Define the flags of some `GROUPS`."""
    for group in groups:
        title, define_group = GROUPS[group]
        before = set(FLAGS)
        define_group()
        TITLES.update(dict.fromkeys(set(FLAGS) - before, title))


def given(*names: str, **flags_by_field: str) -> dict[str, Any]:
    """Return the values of those flags that the script has and that are not empty.

    Keys are the names of flags, or the names of the fields that they set: `given("gray")`,
    `given(num="num_inits")`.
    """
    names_by_key = dict(zip(names, names, strict=True), **flags_by_field)
    values = {key: FLAGS[name].value for key, name in names_by_key.items() if name in FLAGS}
    return {key: value for key, value in values.items() if value not in (None, [])}


def refuse_unused(reasons: Mapping[str, Iterable[str]]) -> None:
    """Raise ValueError for a flag that was given and has no effect, which is listed by reason."""
    for reason, names in reasons.items():
        for name in names:
            if name in FLAGS and FLAGS[name].present and FLAGS[name].value not in (None, False):
                raise ValueError(f"--{name} has no effect {reason}")


def check_seeds(count: int) -> None:
    """Raise ValueError unless so many seeds follow --seed."""
    largest = LARGEST_SEED + 1 - FLAGS.seed
    if not 1 <= count <= largest:
        raise ValueError(f"num_seeds {count} must be 1 to {largest} with seed {FLAGS.seed}")
