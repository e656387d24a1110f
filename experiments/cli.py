"""What the scripts share: flags to objects, one-line errors."""

import contextlib
import dataclasses
import functools
import importlib.util
import inspect
import os
import pathlib
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from PIL import Image

import isnas_jax as isnas
from isnas_jax import running
from isnas_jax.io import check_mask, images, load_mask, paths, records
from isnas_jax.problems.problem import check_factor
from isnas_jax.registry import Registry

from . import help, streams

FLAGS = flags.FLAGS

# The side to which a preset reduces a clean image's shorter side first; others leave it.
SIZES = {"quick": 96}
_CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "isnas_jax"
# Flags that hold paths, as people type them.
_PATHS = ["image", "observed", "mask", "images", "genotypes", "dataset", "folder", "input_dir"]
_PATHS += ["output_dir", "compilation_cache"]
_SEEDS = 2**32  # JAX's keys are made of 32 bits
# Packages without which a classical restoration is not in its registry.
_PACKAGES = {"BM3D": "bm3d"}
# Above these, noise counts as correlated: how many times as strong it is estimated to be in every
# other pixel, and how strong there, in gray levels. White noise on photographs stays below 2,
# texture below 12; blurred noise is near 2.7.
_CORRELATED, _VISIBLE = 2.0, 12.0
# Flags that change no number; a runner whose processes have other cores sums in another order.
_APART = ("output_dir", "compilation_cache", "preset", "workers", "ray_address", "json")


def _cache() -> str:
    """The default folder of compiled programs; none for a user without a home."""
    try:
        base = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    except RuntimeError:
        return ""
    return str(base / "isnas_jax")


flags.DEFINE_string(
    "compilation_cache",
    os.environ.get("JAX_COMPILATION_CACHE_DIR", _cache()),
    "Folder that keeps compiled programs from run to run, 1 GiB at most; empty for none.",
)
flags.DEFINE_list("extensions", [], "Modules to import first, with metrics, tasks and the like.")


# Seconds after Ctrl-C in which a runner may end what it began.
_PATIENCE = 30.0

# Errors in what the user gave, and what a machine may lack.
_GIVEN = (ValueError, FloatingPointError, OSError, ModuleNotFoundError, running.WorkerDiedError)


@help.group("Image")
def define_image_flags() -> None:
    """Defines the flags of one image, its corruption and the run."""
    flags.DEFINE_string("image", None, "Clean image to corrupt: a path or sample:NAME.")
    flags.DEFINE_string("observed", None, "Corrupted image to restore, as it is: a path.")
    flags.DEFINE_string("task", "denoising", "denoising, inpainting or super_resolution.")
    flags.DEFINE_string("mask", None, "Mask image for inpainting: white is known, black missing.")
    define_run_flags()


class _Sigma(flags.ArgumentParser):
    """A number, or "auto"."""

    def parse(self, argument):
        try:
            return argument if argument == "auto" else float(argument)
        except ValueError:
            raise ValueError(f"{argument!r} is neither a number nor auto") from None


class _Folder(flags.ArgumentParser):
    """The path of a folder."""

    def parse(self, argument):
        if not argument:
            raise ValueError("the name of the folder is empty; . is the current one")
        return os.path.expanduser(argument)


def define_output_dir(default: str, text: str) -> None:
    """Defines --output_dir."""
    flags.DEFINE(_Folder(), "output_dir", default, text, serializer=flags.ArgumentSerializer())


def define_seed(text: str) -> None:
    """Defines --seed."""
    flags.DEFINE_integer("seed", 0, text, lower_bound=0, upper_bound=_SEEDS - 1)


@help.group("Corruption and run")
def define_run_flags() -> None:
    """Defines the flags of a corruption and of a run."""
    flags.DEFINE(
        _Sigma(),
        "sigma",
        25.0,
        "Noise in gray levels (0 to 255), for denoising; auto estimates it of an --observed image.",
        serializer=flags.ArgumentSerializer(),
    )
    flags.DEFINE_float("missing", 50.0, "Percentage of missing pixels, for inpainting.")
    flags.DEFINE_integer("factor", 4, "2, 4 or 8, for super-resolution.")
    flags.DEFINE_boolean("gray", False, "Turn the clean image gray first.")
    flags.DEFINE_boolean("square", False, "Cut out the clean image's middle square first.")
    define_seed("Everything random follows from it.")
    define_output_dir("out", "Folder for results; an interrupted run resumes.")
    flags.DEFINE_string("preset", "quick", "quick or published: defaults of the flags below.")
    flags.DEFINE_integer(
        "size", None, "Reduce the clean image to this shorter side first, 0 not; quick: to 96."
    )


@help.group("Networks")
def define_network_flags() -> None:
    """Defines the flags of the networks."""
    flags.DEFINE_integer("channels", None, "Width of the networks.")
    flags.DEFINE_string("implementation", None, "matmul or conv; by default what suits the device.")
    flags.DEFINE_string("precision", None, "Of convolutions: highest (default), high, default.")
    flags.DEFINE_string("dtype", None, "Of feature maps: float32 (default), bfloat16.")
    flags.DEFINE_string(
        "space", None, "Search space: free, toeplitz, light or an extension's; by the preset."
    )


@help.group("Fit")
def define_fit_flags() -> None:
    """Defines the flags of a fit."""
    flags.DEFINE_integer("iterations", None, "The most iterations, before any refit_factor.")
    flags.DEFINE_string("stopping", None, "es-wmv, es-emv, validation, discrepancy or fixed.")
    flags.DEFINE_float("learning_rate", None, "The optimizer's.")
    flags.DEFINE_float("input_noise_std", None, "Of the noise added to z at every iteration.")
    flags.DEFINE_float("ema_decay", None, "Gamma of the exponential mean.")
    flags.DEFINE_string("optimizer", None, "adam, or one of an extension.")
    flags.DEFINE_list("regularizers", [], "Added to the loss, NAME:WEIGHT: total variation:0.01.")
    flags.DEFINE_string(
        "split", None, "Measurements to validate with: held-out:0.1, bootstrap:0.15."
    )
    flags.DEFINE_boolean("debias", None, "Divide the exponential mean by 1 - gamma^t.")
    flags.DEFINE_boolean("remat", False, "Trade time for memory: keep fewer feature maps.")


@help.group("Fit")
def define_refit_flags() -> None:
    """Define the flags of fits to parts of the measurements, followed by a fit to all."""
    flags.DEFINE_integer("folds", None, "Times to split, to be more certain of what is decided.")
    flags.DEFINE_float("refit_factor", None, "How much longer the whole is fitted than a part was.")
    flags.DEFINE_float(
        "refit_from", None, "Fraction of a part's iterations after which its fit goes on with all."
    )


@help.group("Candidates and scores")
def define_score_flags() -> None:
    """Defines the flags of the candidates and their scores."""
    flags.DEFINE_string("genotypes", None, "List of genotypes to take instead of a random draw.")
    flags.DEFINE_boolean("skip_invalid", False, "Leave out the bad lines of that list.")
    flags.DEFINE_integer("num_genotypes", None, "How many genotypes to draw, or to read at most.")
    flags.DEFINE_integer("num_inits", None, "Random outputs of each genotype.")


@help.group("Search")
def define_search_flags() -> None:
    """Defines the flags of a search."""
    flags.DEFINE_string("strategy", None, "Which genotypes to score: random, or an extension's.")
    flags.DEFINE_string("metric", "psd_db_strip_mse", "Metric to search by, ours or published.")
    flags.DEFINE_integer("cohort", None, "How many of the best genotypes to fit.")
    flags.DEFINE_integer("cohort_iterations", None, "The most iterations of a cohort fit.")
    flags.DEFINE_string("proxy", None, "What the cohort fits: full, crop, decimate or resize.")
    flags.DEFINE_integer("proxy_size", None, "Side of the proxy in pixels.")
    flags.DEFINE_string(
        "selection", None, "Whom of the cohort to choose: closest, validation, ranks."
    )
    flags.DEFINE_string(
        "combine", None, "What to return: selected, or the cohort's scores, mean, stack."
    )
    flags.DEFINE_list(
        "extra_members",
        None,
        "Fitted in addition: dip, nas-dip, classical restorations.",
    )


@help.group("Who does the work")
def define_runner_flags() -> None:
    """Defines the flags of who does the work."""
    flags.DEFINE_string("runner", "threads", "Who does the work: threads, processes, or ray.")
    flags.DEFINE_integer(
        "workers", None, "Jobs at a time: 2 here, a process a core, or what a cluster can do."
    )
    flags.DEFINE_string(
        "ray_address", None, "Of a Ray cluster, auto for this machine's; a new one by default."
    )
    flags.DEFINE_integer("job_cpus", None, "Cores that a job asks of a Ray cluster; 1 by default.")
    flags.DEFINE_float("job_gpus", None, "GPUs that a job asks of it, or a share of one.")


def runner() -> running.Runner:
    """The runner of the flags, its processes knowing the extensions too."""
    found = isnas.RUNNERS[FLAGS.runner]
    takes, options = inspect.signature(found).parameters, {}
    names = {"ray_address": "address", "job_cpus": "cpus", "job_gpus": "gpus"}
    for flag, value in given("workers", *names).items():
        if (name := names.get(flag, flag)) not in takes:
            raise ValueError(f"runner {FLAGS.runner!r} has no {flag}")
        options[name] = value
    running.check_workers(options.get("workers", 1))
    if "modules" in takes:
        options["modules"] = FLAGS.extensions
    return functools.partial(found, **options)


def given(*names: str) -> dict[str, Any]:
    """Those of these flags that the script has and that are not left open."""
    values = {name: FLAGS[name].value for name in names if name in FLAGS}
    return {name: value for name, value in values.items() if value not in (None, [])}


def refuse_idle(reasons: Mapping[str, Iterable[str]]) -> None:
    """ValueError for a given flag that has no effect; what turns something off is no claim.

    Args:
      reasons: The flags without effect in this run, by the reason in words.
    """
    for reason, names in reasons.items():
        for name in names:
            if name in FLAGS and FLAGS[name].present and FLAGS[name].value not in (None, False):
                raise ValueError(f"--{name} has no effect {reason}")


def check_corruption(label: str, tasks: Sequence[isnas.Task]) -> None:
    """Refuses flags that play no part in these tasks, which the label names as a flag."""

    def unused(makers: Iterable[Callable[..., Any]]) -> list[str]:
        taken = set().union(*(inspect.signature(maker).parameters for maker in makers))
        return [name for name in ("sigma", "missing", "factor", "mask") if name not in taken]

    reasons = {f"with {label}": unused(task.corrupt for task in tasks)}
    if given("observed"):
        taken = unused(task.pose for task in tasks)
        reasons["with --observed"] = ["gray", "square", "size", *taken]
    if given("mask"):
        reasons["with --mask"] = ["missing"]
    refuse_idle(reasons)


def _check_flags(config: isnas.Config) -> None:
    """Refuses flags that change nothing in a recipe."""
    search = config.search
    scored = ("genotypes", "num_genotypes", "skip_invalid", "num_inits", "strategy", "metric")
    listed = isinstance(search.strategy, isnas.GenotypeList)
    refuse_idle(
        {
            "with --cohort=0": () if search.cohort else (*scored, "cohort_selection"),
            "with --genotypes": ("strategy",) if listed else (),
            "without --genotypes": () if listed else ("skip_invalid",),
            "on one random output: see --num_inits": ("shared_weights",)
            if search.inits.num == 1
            else (),
            "on this proxy": () if hasattr(search.proxy, "size") else ("proxy_size",),
            "without convolutions: see --implementation": (
                ("precision",) if config.network.numerics.uses_matmul else ()
            ),
        }
    )


def check_seeds(number: int) -> None:
    """ValueError unless so many seeds follow --seed."""
    if not 1 <= number <= _SEEDS - FLAGS.seed:
        raise ValueError(
            f"num_seeds {number} must be 1 to {_SEEDS - FLAGS.seed} with seed {FLAGS.seed}"
        )


def check_installed(names: Iterable[str]) -> None:
    """ModuleNotFoundError for a classical restoration whose package is missing."""
    for name in names:
        if name in _PACKAGES and name not in isnas.CLASSICAL:
            package = _PACKAGES[name]
            raise ModuleNotFoundError(f"{name} needs {package}: pip install {package}")


def config(problem: isnas.Problem, iterations: int | None = None) -> isnas.Config:
    """The preset's recipe for a problem, with the flags that were given put over it.

    Args:
      problem: The problem.
      iterations: Instead of those of the flag.
    """
    changes = given("iterations", "cohort_iterations")
    if iterations is not None:
        changes["iterations"] = iterations
    for rule in given("stopping").values():
        changes["stopping"] = isnas.STOPPING[rule]
    found = isnas.PRESETS[FLAGS.preset](problem, **changes)
    how = given("implementation", "precision", "dtype")
    network = dataclasses.replace(
        found.network, numerics=isnas.Numerics(**how), **given("channels", "remat")
    )
    fit = _fit_changes()
    search = dataclasses.replace(
        found.search,
        fit=dataclasses.replace(found.search.fit, **fit),
        **_search_changes(found.search, network.channels),
    )
    config = isnas.Config(network, dataclasses.replace(found.fit, **fit), search)
    _check_flags(config)
    return config


def _fit_changes() -> dict[str, Any]:
    """Fields of `FitConfig` that the flags give."""
    changes = given("learning_rate", "input_noise_std", "ema_decay")
    changes |= given("folds", "refit_factor", "refit_from", "debias")
    for text in given("split").values():
        changes["split"] = _made(isnas.SPLITS, text)
    for name in given("optimizer").values():
        changes["optimizer"] = isnas.OPTIMIZERS[name]
    for texts in given("regularizers").values():
        changes["regularizers"] = tuple(_made(isnas.REGULARIZERS, text) for text in texts)
    return changes


def _search_changes(search: isnas.SearchConfig, channels: int) -> dict[str, Any]:
    """Fields of `SearchConfig` that the flags give, but for the fit."""
    registries: dict[str, tuple[str, Registry]] = {
        "space": ("space", isnas.SPACES),
        "metric": ("metric", isnas.METRICS),
        "cohort_selection": ("cohort_selection", isnas.COHORT_SELECTIONS),
        "selection": ("selection", isnas.SELECTIONS),
        "combine": ("combination", isnas.COMBINATIONS),
    }
    changes = given("cohort")
    if "extra_members" in FLAGS and FLAGS.extra_members is not None:
        check_installed(FLAGS.extra_members)
        changes["extra_members"] = tuple(FLAGS.extra_members)
    for flag, name in given(*registries).items():
        field, registry = registries[flag]
        changes[field] = registry[name]
    inits = given("shared_weights")
    for num in given("num_inits").values():
        inits["num"] = num
    changes["inits"] = dataclasses.replace(search.inits, **inits)
    size = given("proxy_size").get("proxy_size", getattr(search.proxy, "size", 64))
    for name in given("proxy").values():
        changes["proxy"] = isnas.PROXIES[name](size)
    if given("proxy_size") and not given("proxy") and hasattr(search.proxy, "size"):
        proxy: Any = search.proxy
        changes["proxy"] = dataclasses.replace(proxy, size=size)
    if "genotypes" in FLAGS:
        space = changes.get("space", search.space)
        changes["strategy"] = _strategy(search.strategy, space, channels)
    return changes


def _made(registry: Registry, text: str) -> Any:
    """What an entry makes of a number, from NAME:NUMBER."""
    name, _, number = text.rpartition(":")
    try:
        return registry[name](float(number))
    except ValueError as error:
        raise ValueError(f"{registry.kind} {text!r} is not NAME:NUMBER: {error}") from None


def _strategy(strategy: Any, space: Any, channels: int) -> Any:
    """A list's genotypes, or the strategy of the flags, or else this one."""
    if FLAGS.genotypes is not None:
        genotypes = _read_list(FLAGS.genotypes, space, channels, FLAGS.skip_invalid)
        if FLAGS.num_genotypes is not None and FLAGS.num_genotypes < 1:
            raise ValueError(f"num_genotypes {FLAGS.num_genotypes} must be at least 1")
        return isnas.GenotypeList(tuple(genotypes[: FLAGS.num_genotypes]))
    if not (named := given("strategy", "num_genotypes")):
        return strategy
    make = isnas.STRATEGIES[named.get("strategy", "random")]
    return make(named.get("num_genotypes", strategy.num))


@functools.cache
def _read_list(path: str, space: Any, channels: int, skip_invalid: bool) -> list[Any]:
    """A list's genotypes; what is left out is said once."""
    genotypes, skipped = isnas.read_genotypes(
        path, space=space, channels=channels, skip_invalid=skip_invalid
    )
    if skipped:
        print(f"left out {len(skipped)} bad lines, first: {skipped[0]}", file=sys.stderr)
    return genotypes


def genotypes(key: jax.Array, config: isnas.Config) -> list[Any]:
    """The candidates of a recipe without a search: its list, or a random draw."""
    strategy: Any = config.search.strategy
    if isinstance(strategy, isnas.GenotypeList):
        return list(strategy.genotypes)
    return list(config.search.space.sample(key, strategy.num, config.network.channels))


def options_of(function: Callable[..., Any], **others: Any) -> dict[str, Any]:
    """Those of sigma, missing, factor and others that a function has parameters for."""
    check_factor(FLAGS.factor)
    values = {"sigma": FLAGS.sigma, "missing": FLAGS.missing, "factor": FLAGS.factor} | others
    asked = inspect.signature(function).parameters
    taken = {name: value for name, value in values.items() if name in asked}
    if taken.get("sigma") == "auto":
        raise ValueError("sigma auto is for an --observed image; noise to be added needs a number")
    return taken


def load_clean(path: str, task: str) -> np.ndarray:
    """A clean image as the flags and a task want it."""
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


def _sigma_of(observed: np.ndarray) -> float | None:
    """The noise of an observed image: the flag's if it was given, or an estimate."""
    if FLAGS.sigma != "auto":
        return FLAGS.sigma if FLAGS["sigma"].present else None
    sigma = isnas.estimate_sigma(observed)
    print(f"sigma is estimated to be {sigma:.1f} gray levels", file=sys.stderr)
    return sigma


def _note_limits(observed: np.ndarray) -> None:
    """Prints a line on an observed image whose noise is correlated between pixels."""
    fine, coarse = map(isnas.estimate_sigma, (observed, observed[::2, ::2]))
    if coarse > max(_CORRELATED * fine, _VISIBLE):
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
    """Bits of a channel in the images to be written: as many as in the one that was given."""
    found = images.bits(FLAGS.observed or FLAGS.image)
    if found > 8 and not importlib.util.find_spec("png"):
        raise ValueError("an image of 16 bits needs pypng to be written: pip install pypng")
    return found


def load_problem(key: jax.Array) -> tuple[isnas.Problem, jax.Array | None]:
    """The problem that the flags pose, and the clean image where there is one.

    The key is the run's; the first of its three parts corrupts.
    """
    task = isnas.TASKS[FLAGS.task]
    isnas.PRESETS[FLAGS.preset]
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
            _note_limits(observed)
        posed = options_of(task.pose, mask=mask, sigma=_sigma_of(observed) if noisy else None)
        if posed.get("mask", "no mask needed") is None:
            raise ValueError(f"--observed with --task={FLAGS.task} needs --mask")
        return task.pose(observed, **posed), None
    clean = jnp.asarray(load_clean(FLAGS.image, FLAGS.task))
    corrupt_key = jax.random.split(key, 3)[0]
    return task.corrupt(corrupt_key, clean, **options_of(task.corrupt, mask=mask)), clean


def open_folder(besides: Sequence[str] = (), **depends: Any) -> pathlib.Path:
    """The output folder, claimed for these flags and all else that the run depends on.

    Args:
      besides: Flags that the folder's content does not depend on.
      **depends: Problem, recipe and the like, to be described.
    """
    flags_given = {
        flag.name: flag.value
        for module in (__name__, sys.argv[0])
        for flag in FLAGS.flags_by_module_dict().get(module, [])
        if flag.name not in (*_APART, *besides)
    }
    config = {"script": _script(), **flags_given, **depends}
    folder = records.claim_folder(FLAGS.output_dir, config)
    write_command(folder)
    return folder


def _script() -> str:
    return pathlib.Path(sys.argv[0]).stem


def write_command(folder: pathlib.Path) -> None:
    """Writes down what does the same again, from a clone or where it is installed."""
    start = ["python", "-m", f"experiments.{_script()}"]
    if __package__ != "experiments":
        start = [f"isnas-{_script().replace('_', '-')}"]
    known = FLAGS.get_key_flags_for_module(sys.argv[0])
    given = [flag.serialize() for flag in known if flag.present and flag.name != "output_dir"]
    content = shlex.join([*start, *filter(None, given)]) + "\n"
    records.write_bytes(folder / records.COMMAND, os.fsencode(content))


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Runs a script; an error in what the user gave is one line and exit code 2."""
    # A script's --help shows the flags of its own module; these are meant as well.
    for flag in FLAGS.flags_by_module_dict().get(__name__, []):
        FLAGS.register_key_flag_for_module(sys.argv[0], flag)

    def guarded(argv: Sequence[str]) -> None:
        logging.set_verbosity(logging.WARNING)
        try:
            for name, value in given(*_PATHS).items():
                read = paths.from_text
                FLAGS[name].value = read(value) if isinstance(value, str) else [*map(read, value)]
            isnas.use_compilation_cache(_writable(FLAGS.compilation_cache))
            for module in FLAGS.extensions:
                importlib.import_module(module)
            if len(argv) > 1:
                raise ValueError(f"argument {argv[1]!r} is not a flag; write --name=value")
            if "preset" in FLAGS:
                _check_device()
            main(argv)
            sys.stdout.flush()
        except _GIVEN as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            sys.exit(2)

    def parse(argv: list[str]) -> list[str]:
        if {"--help", "-help", "-h"} & set(argv):
            print(help.text())
            sys.exit(0)
        try:
            return FLAGS(argv)
        except flags.Error as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            sys.exit(2)

    def interrupt(*_: Any) -> None:
        # An exception may get lost on its way, as in a callback from compiled code.
        last = threading.Timer(_PATIENCE, _stop)
        last.daemon = True
        last.start()
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not in the background
        signal.signal(signal.SIGINT, interrupt)
    try:
        with streams.lenient():
            app.run(guarded, flags_parser=parse)
    except KeyboardInterrupt:
        _stop()


def _writable(cache: str) -> str | None:
    """The folder of compiled programs, None with a line where it cannot be written."""
    try:
        if cache:
            os.makedirs(cache, exist_ok=True)
            tempfile.TemporaryFile(dir=cache).close()
    except OSError as error:
        print(f"note: compiled programs are not kept in {cache}: {error}", file=sys.stderr)
        return None
    return cache


def _check_device() -> None:
    """ValueError where JAX finds nothing to compute with."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter for cuda without a GPU
        platforms = jax.config.values["jax_platforms"]
        raise ValueError(
            f"JAX finds no device for JAX_PLATFORMS={platforms}; cpu always works. {error}"
        ) from None


def _stop() -> None:
    """Ends the process after Ctrl-C."""
    print("\nstopped; the same command goes on where it was", file=sys.stderr, flush=True)
    # At once: the device is still at work, and must not outlive the interpreter's shutdown.
    os._exit(130)
