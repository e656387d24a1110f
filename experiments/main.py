"""Running a script: parsing, one-line errors, the output folder, Ctrl-C."""

import importlib
import os
import pathlib
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
from absl import app, flags, logging

import isnas_jax as isnas
from isnas_jax.io import cache, paths, records
from isnas_jax.running import WorkerDiedError

from . import help
from .flags import FLAGS, define, given

# Flags that hold paths, which may start with ~.
_PATHS = ["image", "observed", "mask", "images", "genotypes", "dataset", "folder", "input_dir"]
_PATHS += ["output_dir", "compilation_cache", "benchmark", "page"]
# Flags that change no number. A runner is not among them: the processes of another number of
# cores sum in another order.
_WITHOUT_EFFECT = ("output_dir", "compilation_cache", "preset", "workers", "ray_address", "json")
# Seconds after Ctrl-C in which a runner may end its jobs.
_GRACE_PERIOD = 30.0
# Errors of the input, and of what a machine may lack.
_INPUT_ERRORS = (ValueError, FloatingPointError, OSError, ModuleNotFoundError, WorkerDiedError)


def run_script(main: Callable[[], None], define_flags: Callable[[], None]) -> None:
    """Run a script; an error of its input is one line and exit code 2."""
    define("common")
    define_flags()

    def guarded(argv: Sequence[str]) -> None:
        logging.set_verbosity(logging.WARNING)
        try:
            _set_up(argv)
            main()
            sys.stdout.flush()
        except _INPUT_ERRORS as error:
            _fail(error)

    def parse(argv: list[str]) -> list[str]:
        try:
            if {"--help", "-help", "-h"} & set(argv):
                print(help.text(), flush=True)
                sys.exit(0)
            return FLAGS(argv)
        except (flags.Error, BrokenPipeError) as error:
            _fail(error)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not in the background
        signal.signal(signal.SIGINT, _interrupt)
    streams: list[Any] = [sys.stdout, sys.stderr]
    for stream in streams:
        stream.reconfigure(errors="replace")  # a terminal may lack a character
    try:
        app.run(guarded, flags_parser=parse)
    except KeyboardInterrupt:
        _exit_after_interrupt()


def _fail(error: Exception) -> NoReturn:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    if isinstance(error, BrokenPipeError):
        os._exit(2)  # Python would report it again
    sys.exit(2)


def _set_up(argv: Sequence[str]) -> None:
    """Prepare the process by the common flags."""
    for name, value in given(*_PATHS).items():
        read = paths.from_text
        FLAGS[name].value = read(value) if isinstance(value, str) else [*map(read, value)]
    isnas.use_compilation_cache(_writable(FLAGS.compilation_cache))
    if os.getcwd() not in sys.path:  # as with python -m
        sys.path.insert(0, os.getcwd())
    for module in FLAGS.extensions:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):  # a module that it imports
                raise
            raise ValueError(
                f"extension {module!r} is not a module in the current folder or on PYTHONPATH; "
                "write its name without .py"
            ) from None
    if len(argv) > 1:
        raise ValueError(f"argument {argv[1]!r} is not a flag; write --name=value")
    if "preset" in FLAGS:
        _check_device()


def _writable(cache: str) -> str | None:
    """Return the folder of compiled programs; None, with a note, if it cannot be written."""
    try:
        if cache:
            os.makedirs(cache, exist_ok=True)
            tempfile.TemporaryFile(dir=cache).close()
    except OSError as error:
        print(f"note: compiled programs are not cached in {cache}: {error}", file=sys.stderr)
        return None
    return cache


def _check_device() -> None:
    """Raise ValueError if JAX finds no device."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter for cuda without a GPU
        platforms = jax.config.values["jax_platforms"]
        raise ValueError(
            f"JAX finds no device for JAX_PLATFORMS={platforms}; cpu always works. {error}"
        ) from None


def _interrupt(*_: Any) -> None:
    # An exception can get lost, for example in a callback from compiled code.
    timer = threading.Timer(_GRACE_PERIOD, _exit_after_interrupt)
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


def _exit_after_interrupt() -> None:
    print("\nstopped; the same command resumes the run", file=sys.stderr, flush=True)
    # Immediately: the device still computes, and must not outlive the interpreter's shutdown.
    os._exit(130)


def _script() -> str:
    return pathlib.Path(sys.argv[0]).stem


def open_folder(ignored: Sequence[str] = (), **inputs: Any) -> pathlib.Path:
    """Return the output folder, claimed for the inputs and all flags that are not ignored."""
    values = {
        flag.name: flag.value
        for flag in help.own_flags()
        if flag.name not in (*_WITHOUT_EFFECT, *ignored)
    }
    folder = cache.claim_folder(FLAGS.output_dir, {"script": _script(), **values, **inputs})
    write_command(folder)
    return folder


def write_command(folder: pathlib.Path) -> None:
    """Write the command that repeats the run, for a clone or an installed package."""
    start = ["python", "-m", f"experiments.{_script()}"]
    if __package__ != "experiments":
        start = [f"isnas-{_script().replace('_', '-')}"]
    arguments = [
        flag.serialize() for flag in help.own_flags() if flag.present and flag.name != "output_dir"
    ]
    content = shlex.join([*start, *filter(None, arguments)]) + "\n"
    records.write_bytes(folder / records.COMMAND, os.fsencode(content))
