"""From flags to the objects of the library."""

import contextlib
import dataclasses
import functools
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import isnas_jax as isnas
from isnas_jax import registries, running, study
from isnas_jax.io import check_mask, images, load_mask
from isnas_jax.networks import Space
from isnas_jax.problems.problem import check_factor
from isnas_jax.registry import Registry
from isnas_jax.searching import has_scores

from .flags import FLAGS, given, refuse_unused

# Shorter side to which a preset reduces a clean image; other presets keep it.
SIZES = {"quick": 96}
# Number of genotypes to draw where neither a flag nor the preset has one.
NUM_GENOTYPES = 4
# Noise counts as correlated if its estimate in every other pixel is so many times as strong, and
# above so many gray levels. White noise on photographs stays below a factor of 2, texture below
# 12 gray levels; blurred noise has a factor of about 2.7.
_CORRELATION_FACTOR, _CORRELATION_LEVEL = 2.0, 12.0


def runner() -> running.Runner:
    """Return the runner of the flags; its workers import the extensions."""
    create = registries.RUNNERS[FLAGS.runner]
    parameters, options = inspect.signature(create).parameters, {}
    names = {"ray_address": "address", "job_cpus": "cpus", "job_gpus": "gpus"}
    for flag, value in given("workers", *names).items():
        if (name := names.get(flag, flag)) not in parameters:
            raise ValueError(f"runner {FLAGS.runner!r} has no {flag}: no parameter {name!r}")
        options[name] = value
    running.check_workers(options.get("workers", 1))
    if "modules" in parameters:
        options["modules"] = FLAGS.extensions
    return functools.partial(create, **options)


def check_corruption(label: str, tasks: Sequence[isnas.Task]) -> None:
    """Refuse flags that play no part in these tasks; the label names the tasks' flag."""

    def unused(functions: Iterable[Callable[..., Any]]) -> list[str]:
        used = set().union(*(inspect.signature(function).parameters for function in functions))
        return [name for name in ("sigma", "missing", "factor", "mask") if name not in used]

    reasons = {f"with {label}": unused(task.corrupt for task in tasks)}
    if given("observed"):
        flags_of_pose = unused(task.pose for task in tasks)
        reasons["with --observed"] = ["gray", "square", "size", *flags_of_pose]
    if given("mask"):
        reasons["with --mask"] = ["missing"]
    refuse_unused(reasons)


def _refuse_unused_in(config: isnas.Config) -> None:
    """Refuse flags that change nothing in a config."""
    search = config.search
    scores = ("num_inits", "metric")
    scoring = (*scores, "genotypes", "num_genotypes", "skip_invalid", "strategy")
    portfolio = "strategy" in FLAGS and isinstance(search.strategy, isnas.Portfolio)
    listed = isinstance(search.strategy, isnas.GenotypeList)
    matmul = config.network.numerics.uses_matmul
    refuse_unused(
        {
            "with --cohort=0": () if search.cohort else (*scoring, "cohort_selection"),
            "with --genotypes": ("strategy",) if listed else (),
            "with --strategy=portfolio": ("num_genotypes",) if portfolio else (),
            "on a portfolio; --num_genotypes=8 scores 8 random genotypes instead": (
                (*scores, "space", "cohort_selection") if portfolio else ()
            ),
            "without --genotypes": () if listed else ("skip_invalid",),
            "on one random output: see --num_inits": (
                ("shared_weights",) if search.inits.num == 1 else ()
            ),
            "on this proxy": () if hasattr(search.proxy, "size") else ("proxy_size",),
            "without convolutions: see --implementation": ("precision",) if matmul else (),
        }
    )


def config(problem: isnas.Problem, iterations: int | None = None) -> isnas.Config:
    """Return the preset's config for a problem, with the fields that flags replace.

    Iterations that are given replace --iterations.
    """
    preset = registries.PRESETS[FLAGS.preset](problem)
    numerics = isnas.Numerics(**given("implementation", "precision", "dtype"))
    network = dataclasses.replace(preset.network, numerics=numerics, **given("channels", "remat"))
    changes = _fit_changes()
    if iterations is not None:
        changes["iterations"] = iterations
    fit = dataclasses.replace(preset.fit, **changes)
    search = dataclasses.replace(preset.search, **_search_changes(preset.search, network.channels))
    changes.pop("iterations", None)
    cohort_changes = given(iterations="cohort_iterations")
    if search.fit or cohort_changes:
        cohort_fit = dataclasses.replace(search.fit or fit, **changes, **cohort_changes)
        search = dataclasses.replace(search, fit=cohort_fit)
    result = isnas.Config(network, fit, search)
    _refuse_unused_in(result)
    return result


def _fit_changes() -> dict[str, Any]:
    """Return the fields of `FitConfig` that flags give."""
    changes = given("iterations", "learning_rate", "input_noise_std", "ema_decay", "debias")
    changes |= given("folds", "refit_factor", "refit_from")
    changes |= _entries(stopping=registries.STOPPING, optimizer=registries.OPTIMIZERS)
    for text in given("split").values():
        changes["split"] = _create(registries.SPLITS, text)
    for texts in given("regularizers").values():
        changes["regularizers"] = tuple(_create(registries.REGULARIZERS, text) for text in texts)
    return changes


def _entries(**tables: Registry) -> dict[str, Any]:
    """Return the entries that flags name, by flag."""
    return {name: tables[name][value] for name, value in given(*tables).items()}


def _search_changes(search: isnas.SearchConfig, channels: int) -> dict[str, Any]:
    """Return the fields of `SearchConfig` that flags give, except the fit."""
    changes = given("cohort") | _entries(
        space=registries.SPACES,
        metric=registries.METRICS,
        cohort_selection=registries.COHORT_SELECTIONS,
        selection=registries.SELECTIONS,
        combination=registries.COMBINATIONS,
    )
    if "extra_members" in FLAGS and FLAGS.extra_members is not None:
        changes["extra_members"] = tuple(map(_extra_member, FLAGS.extra_members))
    inits = given("shared_weights", num="num_inits")
    changes["inits"] = dataclasses.replace(search.inits, **inits)
    proxy: Any = search.proxy
    size = given("proxy_size").get("proxy_size", getattr(proxy, "size", 64))
    if chosen := given("proxy"):
        changes["proxy"] = registries.PROXIES[chosen["proxy"]](size)
    elif hasattr(proxy, "size"):
        changes["proxy"] = dataclasses.replace(proxy, size=size)
    if "genotypes" in FLAGS:
        space = changes.get("space", search.space)
        changes["strategy"] = _strategy(search.strategy, space, channels)
    return changes


def check_installed(names: Iterable[str]) -> None:
    """Raise ModuleNotFoundError if BM3D is among the names and its package is missing."""
    if "BM3D" in names and "BM3D" not in registries.CLASSICAL:
        raise ModuleNotFoundError("BM3D needs bm3d: pip install bm3d")


def _extra_member(name: str) -> Any:
    check_installed([name])
    members: dict[str, Any] = {**registries.BASELINES, **registries.CLASSICAL}
    return Registry("member", members)[name]


def _create(registry: Registry, text: str) -> Any:
    """Return the strategy that an entry creates from a number, given as NAME:NUMBER."""
    name, _, number = text.rpartition(":")
    create = registry[name or text]  # refuses an unknown name
    try:
        value = float(number)
    except ValueError:
        raise ValueError(f"{registry.kind} {text!r} is not NAME:NUMBER") from None
    return create(value)


def _strategy(strategy: Any, space: Any, channels: int) -> Any:
    """Return the file's genotypes, the strategy of the flags, or else the given one."""
    if FLAGS.genotypes is not None:
        genotypes = _read_list(FLAGS.genotypes, space, channels, FLAGS.skip_invalid)
        if FLAGS.num_genotypes is not None and FLAGS.num_genotypes < 1:
            raise ValueError(f"num_genotypes {FLAGS.num_genotypes} must be at least 1")
        return isnas.GenotypeList(tuple(genotypes[: FLAGS.num_genotypes]))
    if not (values := given("strategy", "num_genotypes")):
        return strategy
    create = registries.STRATEGIES[values.get("strategy", "random")]
    return create(values.get("num_genotypes", num_genotypes(strategy)))


@functools.cache
def _read_list(path: str, space: Any, channels: int, skip_invalid: bool) -> list[Any]:
    """Read genotypes from a file; skipped lines are reported once."""
    genotypes, skipped = isnas.read_genotypes(
        path, space=space, channels=channels, skip_invalid=skip_invalid
    )
    if skipped:
        print(f"skipped {len(skipped)} invalid lines, the first: {skipped[0]}", file=sys.stderr)
    return genotypes


def num_genotypes(strategy: Any) -> int:
    """Return the number of genotypes that a strategy scores, or else that of scripts."""
    return getattr(strategy, "num", NUM_GENOTYPES) if has_scores(strategy) else NUM_GENOTYPES


def genotypes(key: jax.Array, config: isnas.Config) -> list[Any]:
    """Return the candidates of a config without a search: its list, or a random draw."""
    strategy: Any = config.search.strategy
    if isinstance(strategy, isnas.GenotypeList):
        return list(strategy.genotypes)
    return list(config.search.space.sample(key, num_genotypes(strategy), config.network.channels))


def options_of(function: Callable[..., Any], **others: Any) -> dict[str, Any]:
    """Return sigma, missing, factor and others as far as a function has these parameters."""
    check_factor(FLAGS.factor)
    values = {"sigma": FLAGS.sigma, "missing": FLAGS.missing, "factor": FLAGS.factor} | others
    parameters = inspect.signature(function).parameters
    options = {name: value for name, value in values.items() if name in parameters}
    if options.get("sigma") == "auto":
        raise ValueError("sigma auto is for an --observed image; noise to be added needs a number")
    return options


def find_images() -> dict[str, str]:
    """Return the paths of --images by name."""
    if not FLAGS.images:
        raise ValueError("give --images: files, folders or sample:NAME")
    return images.find(FLAGS.images)


def pose(seed: int, image: str, clean: Any, task: isnas.Task) -> study.Case:
    """Return a clean image as a case of a study, corrupted by the flags."""
    return study.pose(seed, image, clean, task, **options_of(task.corrupt, mask=None))


def load_clean(path: str, task: str) -> np.ndarray:
    """Load a clean image and resize it by the flags."""
    clean = images.load(path)
    if FLAGS.gray:
        clean = images.gray(clean)
    if FLAGS.square:
        clean = images.crop_to_square(clean)
    if size := SIZES.get(FLAGS.preset, 0) if FLAGS.size is None else FLAGS.size:
        clean = images.resize(clean, size)
    if task == "super_resolution":
        clean = images.crop_to_multiple(clean, FLAGS.factor)
    return clean


def _observed_sigma(observed: np.ndarray) -> float | None:
    """Return --sigma for an observed image if it was given, or an estimate."""
    if FLAGS.sigma != "auto":
        return FLAGS.sigma if FLAGS["sigma"].present else None
    sigma = isnas.estimate_sigma(observed)
    print(f"sigma is estimated to be {sigma:.1f} gray levels", file=sys.stderr)
    return sigma


def _print_limits(observed: np.ndarray) -> None:
    """Print a note on an observed image with correlated noise or JPEG artifacts."""
    fine, coarse = map(isnas.estimate_sigma, (observed, observed[::2, ::2]))
    if coarse > max(_CORRELATION_FACTOR * fine, _CORRELATION_LEVEL):
        print(
            f"note: the noise looks correlated between pixels (sigma {fine:.1f}, but {coarse:.1f} "
            "in every other pixel); such noise is reduced by about 1 dB at most",
            file=sys.stderr,
        )
        return
    with contextlib.suppress(OSError), Image.open(FLAGS.observed) as opened:
        if opened.format in ("JPEG", "MPO"):
            print("note: artifacts of JPEG are reduced by about 0.5 dB at most", file=sys.stderr)


def bits() -> int:
    """Return the bits per channel of images to write: those of the image that was given."""
    depth = images.bit_depth(FLAGS.observed or FLAGS.image)
    if depth > 8 and not importlib.util.find_spec("png"):
        raise ValueError("an image of 16 bits needs pypng to be written: pip install pypng")
    return depth


def load_problem(key: jax.Array) -> tuple[isnas.Problem, jax.Array | None]:
    """Return the problem of the flags, and the clean image if there is one.

    The key is that of the run; the first of its three parts corrupts the image.
    """
    task = registries.TASKS[FLAGS.task]
    registries.PRESETS[FLAGS.preset]  # refuses an unknown name before images are loaded
    check_corruption(f"--task={FLAGS.task}", [task])
    if (FLAGS.image is None) == (FLAGS.observed is None):
        raise ValueError("give one of --image (clean) and --observed (corrupted)")
    mask = load_mask(FLAGS.mask) if FLAGS.mask else None
    if FLAGS.observed is not None:
        observed = images.load(FLAGS.observed)
        if mask is not None:
            check_mask(mask, observed)
        noisy = "sigma" in inspect.signature(task.pose).parameters
        if noisy:
            _print_limits(observed)
        sigma = _observed_sigma(observed) if noisy else None
        options = options_of(task.pose, mask=mask, sigma=sigma)
        if "mask" in options and mask is None:
            raise ValueError(f"--observed with --task={FLAGS.task} needs --mask")
        return task.pose(observed, **options), None
    clean = jnp.asarray(load_clean(FLAGS.image, FLAGS.task))
    corrupt_key = jax.random.split(key, 3)[0]
    return task.corrupt(corrupt_key, clean, **options_of(task.corrupt, mask=mask)), clean


def architecture(text: str, space: Space) -> Any:
    """Return the baseline of a name, or the genotype of a space that a text describes."""
    if text in registries.BASELINES:
        return registries.BASELINES[text]
    try:
        return space.parse(text)
    except ValueError as error:
        names = ", ".join(registries.BASELINES)
        raise ValueError(f"{error}; networks by name are {names}") from None
