"""What the scripts share: the flags of an image and a fit, presets, one-line errors."""

import importlib
import inspect
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from tqdm import tqdm

import isnas_jax as isnas
from isnas_jax import figures, images, observations, quality, records
from isnas_jax.fitting import Progress
from isnas_jax.search import FitSettings

FLAGS = flags.FLAGS

# Settings that a flag of the same name overrides; "size" is the side to which
# a clean image's shorter side is reduced first, 0 for none.
PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "size": 96,
        "channels": 32,
        "iterations": 600,
        "stopping": "es-wmv",
        "num_genotypes": 24,
        "num_inits": 1,
        "cohort": 3,
        "cohort_iterations": 300,
        "proxy": "crop",
        "proxy_size": 64,
    },
    "published": {
        "size": 0,
        "channels": 128,
        "iterations": 0,  # the task's own: 1200, 9500 or 4500
        "stopping": "fixed",
        "num_genotypes": 5000,
        "num_inits": 1,
        "cohort": 15,
        "cohort_iterations": 1200,
        "proxy": "resize",
        "proxy_size": 64,
    },
}


_CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "isnas_jax"

flags.DEFINE_string(
    "compilation_cache",
    os.environ.get("JAX_COMPILATION_CACHE_DIR", str(_CACHE)),
    "Folder that keeps compiled programs from run to run; empty for none.",
)
flags.DEFINE_list("extensions", [], "Modules to import first, with metrics, tasks and the like.")


def define_image_flags() -> None:
    """Defines the flags of one image, its corruption and the run."""
    flags.DEFINE_string("image", None, "Clean image to corrupt: a path or sample:NAME.")
    flags.DEFINE_string("observed", None, "Corrupted image to restore, as it is: a path.")
    flags.DEFINE_string("task", "denoising", "denoising, inpainting or super_resolution.")
    flags.DEFINE_string("mask", None, "Mask image for inpainting: white is known, black missing.")
    define_run_flags()


def define_run_flags() -> None:
    """Defines the flags of a corruption and of a run."""
    flags.DEFINE_float("sigma", 25.0, "Noise in grey levels (0 to 255), for denoising.")
    flags.DEFINE_float("missing", 50.0, "Percentage of missing pixels, for inpainting.")
    flags.DEFINE_integer("factor", 4, "2, 4 or 8, for super-resolution.")
    flags.DEFINE_boolean("grey", False, "Turn the clean image grey first.")
    flags.DEFINE_boolean("square", False, "Cut out the clean image's middle square first.")
    flags.DEFINE_integer("seed", 0, "Everything random follows from it.")
    flags.DEFINE_string("output_dir", "out", "Folder for results; an interrupted run resumes.")
    flags.DEFINE_string("preset", "quick", "quick or published: defaults of the flags below.")
    flags.DEFINE_integer("size", None, "Reduce the clean image to this shorter side first.")
    flags.DEFINE_integer("channels", None, "Width of the networks.")


def define_fit_flags() -> None:
    """Defines the flags of a fit."""
    flags.DEFINE_integer("iterations", None, "The most iterations of the restoration.")
    flags.DEFINE_string("stopping", None, "es-wmv, or fixed for the last iteration.")
    flags.DEFINE_float("learning_rate", 0.01, "Adam's.")
    flags.DEFINE_float("reg_noise_std", 1 / 30, "Of the noise added to z at every iteration.")
    flags.DEFINE_float("mean_decay", 0.99, "Gamma of the exponential mean.")
    flags.DEFINE_boolean("remat", False, "Trade time for memory: keep fewer feature maps.")


def define_score_flags() -> None:
    """Defines the flags of the candidates and their scores."""
    flags.DEFINE_string("genotypes", None, "List of genotypes to take instead of a random draw.")
    flags.DEFINE_boolean("skip_invalid", False, "Leave out the bad lines of that list.")
    flags.DEFINE_string("space", "free", "Where to draw genotypes from: free or toeplitz.")
    flags.DEFINE_integer("num_genotypes", None, "How many genotypes to draw, or to read at most.")
    flags.DEFINE_integer("num_inits", None, "Random outputs of each genotype.")


def define_search_flags() -> None:
    """Defines the flags of a search."""
    flags.DEFINE_string("metric", "psd_db_strip_mse", "Metric to search by, ours or published.")
    flags.DEFINE_integer("cohort", None, "How many of the best genotypes to fit.")
    flags.DEFINE_integer("cohort_iterations", None, "The most iterations of a cohort fit.")
    flags.DEFINE_string("proxy", None, "What the cohort fits: full, crop, decimate or resize.")
    flags.DEFINE_integer("proxy_size", None, "Side of the proxy in pixels.")


def preset(task: str) -> dict[str, Any]:
    """The preset's settings for a task with the flags that were given put over them."""
    if FLAGS.preset not in PRESETS:
        raise ValueError(
            f"preset {FLAGS.preset!r} does not exist; choose from {', '.join(PRESETS)}"
        )
    settings = dict(PRESETS[FLAGS.preset])
    if FLAGS.preset == "published":
        settings["iterations"] = observations.find(task).iterations
        if task == "super_resolution":
            settings["proxy"] = "full"
            settings["cohort_iterations"] = settings["iterations"]
        if task == "inpainting":
            settings["proxy"] = "decimate"
    given = {name: FLAGS[name].value for name in settings if name in FLAGS}
    return settings | {name: value for name, value in given.items() if value is not None}


def fit_settings(settings: dict[str, Any]) -> FitSettings:
    """The settings of a fit from the preset and the flags."""
    return FitSettings(
        settings["channels"],
        settings["iterations"],
        settings["stopping"],
        FLAGS.learning_rate,
        FLAGS.reg_noise_std,
        FLAGS.mean_decay,
        FLAGS.remat,
    )


def search_settings(settings: dict[str, Any], cohort_by: str) -> isnas.SearchSettings:
    """The settings of a search from the preset and the flags."""
    return isnas.SearchSettings(
        FLAGS.metric,
        settings["num_inits"],
        settings["cohort"],
        cohort_by,
        settings["cohort_iterations"],
        settings["proxy"],
        settings["proxy_size"],
    )


def _mask() -> np.ndarray:
    mask = images.load(FLAGS.mask)
    if mask.shape[-1] == 3:
        mask = mask.mean(axis=-1, keepdims=True)
    if not np.isin(mask, (0, 1)).all():
        raise ValueError(f"mask {FLAGS.mask!r} holds greys; it takes black and white only")
    return mask


def options_of(function: Callable[..., Any], **others: Any) -> dict[str, Any]:
    """Those of sigma, missing, factor and others that a function has parameters for."""
    if FLAGS.factor not in observations.FACTORS:
        raise ValueError(f"factor {FLAGS.factor} is not one of {observations.FACTORS}")
    given = {"sigma": FLAGS.sigma, "missing": FLAGS.missing, "factor": FLAGS.factor} | others
    return {name: given[name] for name in inspect.signature(function).parameters if name in given}


def load_truth(path: str, task: str, size: int) -> np.ndarray:
    """A clean image as the flags and a task want it, its shorter side reduced unless that is 0."""
    truth = images.load(path)
    if FLAGS.grey:
        truth = images.grey(truth)
    if FLAGS.square:
        truth = images.crop_to_square(truth)
    if size:
        truth = images.resize(truth, size)
    if task == "super_resolution":
        truth = images.crop_to_multiple(truth, FLAGS.factor)
    return truth


def load_problem(key: jax.Array, size: int) -> tuple[isnas.Problem, jax.Array | None]:
    """The problem that the flags pose, and the clean image where there is one."""
    task = observations.find(FLAGS.task)
    if (FLAGS.image is None) == (FLAGS.observed is None):
        raise ValueError("give one of --image (clean) and --observed (corrupted)")
    mask = _mask() if FLAGS.mask else None
    if FLAGS.observed is not None:
        posed = options_of(task.pose, mask=mask)
        if posed.get("mask", "no mask needed") is None:
            raise ValueError(f"--observed with --task={FLAGS.task} needs --mask")
        return task.pose(images.load(FLAGS.observed), **posed), None
    clean = jnp.asarray(load_truth(FLAGS.image, FLAGS.task, size))
    return task.corrupt(key, clean, **options_of(task.corrupt, mask=mask)), clean


def load_genotypes(key: jax.Array, settings: dict[str, Any]) -> list[isnas.Genotype]:
    """The candidates: drawn, or the first of a list."""
    number, channels = settings["num_genotypes"], settings["channels"]
    if FLAGS.genotypes is None:
        return isnas.sample_genotypes(key, number, space=FLAGS.space, channels=channels)
    genotypes, skipped = isnas.read_genotypes(
        FLAGS.genotypes, channels=channels, skip_invalid=FLAGS.skip_invalid
    )
    if skipped:
        print(f"left out {len(skipped)} bad lines, first: {skipped[0]}", file=sys.stderr)
    return genotypes if FLAGS.num_genotypes is None else genotypes[:number]


def write_scores(
    folder: pathlib.Path, genotypes: Sequence[isnas.Genotype], values: dict[str, np.ndarray]
) -> None:
    """Writes mean and standard deviation over initialisations, a row a genotype."""
    rows = []
    for index, genotype in enumerate(genotypes):
        row: dict[str, Any] = {"genotype": str(genotype)}
        for name, scores in values.items():
            row[name] = float(scores[index].mean())
            row[f"{name} std"] = float(scores[index].std())
        rows.append(row)
    records.write_csv(folder / "scores.csv", rows)


def write_timings(folder: pathlib.Path, seconds: dict[str, float]) -> None:
    """Writes how long each stage took: the one record that differs between equal runs."""
    records.write_json(folder / "timings.json", {"seconds": seconds})


def open_folder(
    settings: dict[str, Any], script: str, *, besides: Sequence[str] = ()
) -> pathlib.Path:
    """The output folder, with settings and versions written or compared, but for some flags."""
    not_settings = {"preset", "output_dir", "compilation_cache", *settings, *besides}
    flags_given = {
        flag.name: flag.value
        for module in ("experiments.cli", sys.argv[0])
        for flag in FLAGS.flags_by_module_dict().get(module, [])
        if flag.name not in not_settings
    }
    versions = {f"version of {name}": value for name, value in records.versions().items()}
    return records.open_folder(
        FLAGS.output_dir, {"script": script} | flags_given | settings | versions
    )


class Bars:
    """Progress bars, one a stage."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._stage = ""

    def __call__(self, stage: str, news: Any) -> None:
        """Shows where a stage is: a `Progress`, or the pair done and total."""
        done, total = (news.iteration, news.iterations) if isinstance(news, Progress) else news
        if stage != self._stage or self._bar is None:
            self.close()
            self._bar, self._stage = tqdm(total=total, desc=stage, file=sys.stderr), stage
        self._bar.update(done - self._bar.n)
        if isinstance(news, Progress):
            self._bar.set_postfix_str(f"loss {news.loss:.5f}")

    def close(self) -> None:
        """Ends the present bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def write_restoration(
    folder: pathlib.Path, problem: isnas.Problem, fit: isnas.Fit, truth: Any, name: str
) -> dict[str, Any]:
    """Writes images, pictures and curves of a restoration; returns its record."""
    observed = np.asarray(problem.observed)
    images.save(folder / "observed.png", observed)
    images.save(folder / "restored.png", fit.restored)
    np.save(folder / "restored.npy", fit.restored)
    shown = {"observed": observed, name: fit.restored}
    record: dict[str, Any] = {
        "architecture": name,
        "iterations": len(fit.loss),
        "restored_at": fit.restored_at,
    }
    if truth is not None and fit.psnr_mean is not None:
        images.save(folder / "truth.png", np.asarray(truth))
        record["restored"] = quality.report(fit.restored, truth)
        titles = [f"{name}\n{record['restored']['psnr']:.2f} dB"]
        if observed.shape == truth.shape:
            record["observed"] = quality.report(observed, truth)
            titles.insert(0, f"observed\n{record['observed']['psnr']:.2f} dB")
        else:
            titles.insert(0, "observed")
        record["best_psnr_mean_by_truth"] = float(np.max(fit.psnr_mean))
        record["best_iteration_by_truth"] = int(np.argmax(fit.psnr_mean))
        shown = dict(zip(titles, shown.values(), strict=True)) | {"truth": np.asarray(truth)}
    figures.comparison(folder / "comparison.png", shown)
    planes = {"observed": observed, "restored": fit.restored}
    if truth is not None:
        planes["truth"] = np.asarray(truth)
    figures.power_spectra(folder / "spectra.png", planes)
    figures.curves(
        folder / "curves.png",
        fit.loss,
        fit.restored_at,
        psnr=fit.psnr,
        psnr_mean=fit.psnr_mean,
        criterion=fit.criterion,
    )
    columns = {
        name: getattr(fit, name)
        for name in ("loss", "psnr", "psnr_mean", "criterion")
        if getattr(fit, name) is not None
    }
    records.write_csv(
        folder / "curves.csv",
        (
            {"iteration": i} | {name: float(values[i]) for name, values in columns.items()}
            for i in range(len(fit.loss))
        ),
    )
    records.write_json(folder / "result.json", record)
    return record


def summary(record: dict[str, Any], folder: pathlib.Path) -> str:
    """One line for the terminal."""
    line = f"{record['architecture']}: iteration {record['restored_at']}"
    if "restored" in record:
        before = f"{record['observed']['psnr']:.2f} dB to " if "observed" in record else ""
        line += (
            f", {before}{record['restored']['psnr']:.2f} dB, SSIM {record['restored']['ssim']:.3f}"
        )
    return f"{line}; see {folder}"


def use_compilation_cache(folder: str) -> None:
    """Keeps compiled programs in a folder; scoring has hundreds that compile in a moment each."""
    jax.config.update("jax_compilation_cache_dir", folder or None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Runs a script; an error in what the user gave is one line and exit code 2."""

    def guarded(argv: Sequence[str]) -> None:
        logging.set_verbosity(logging.WARNING)
        try:
            use_compilation_cache(FLAGS.compilation_cache)
            for module in FLAGS.extensions:
                importlib.import_module(module)
            if len(argv) > 1:
                raise ValueError(f"argument {argv[1]!r} is not a flag; write --name=value")
            main(argv)
        except (ValueError, FloatingPointError, OSError, ModuleNotFoundError) as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            sys.exit(2)

    def parse(argv: list[str]) -> list[str]:
        try:
            return FLAGS(argv)
        except flags.Error as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            sys.exit(2)

    app.run(guarded, flags_parser=parse)
