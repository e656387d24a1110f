"""Runs the scripts of experiments/ as commands, in forks of a process that has imported JAX.

Starting Python with JAX takes seconds, a fork milliseconds. The process that forks
never initializes JAX's backend, so each command starts as it would by itself. All
commands share the compilation cache of the test run.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import pathlib
import runpy
import shlex
import signal
import subprocess
import sys
import tempfile
import traceback

TESTS = pathlib.Path(__file__).parent
IMPORTED = (
    "isnas_jax.experiments.benchmarks.machine",
    "isnas_jax.experiments.building",
    "isnas_jax.experiments.main",
    "isnas_jax.experiments.progress",
    "isnas_jax.report",
    "isnas_jax.study",
    "matplotlib.backends.backend_agg",
    "pandas",
    "pyarrow.parquet",
    "scipy.signal",
    "skimage.restoration",
    "tabulate",
)
LONGEST = 600  # seconds, on a busy machine


@functools.cache
def _server():
    environment = dict(os.environ, PYTHONPATH=str(TESTS))
    process = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    atexit.register(process.stdin.close)
    return process


def run(name, *flags, cwd, **environment):
    """Runs `python -m experiments.NAME FLAGS` in a folder.

    Args:
      name: The script's module below `experiments`, or -c for code.
      *flags: Its arguments, or the code.
      cwd: The folder to start it in.
      **environment: Environment variables that differ from those of the tests.

    Returns:
      A `subprocess.CompletedProcess` with text of stdout and stderr.
    """
    server = _server()
    with tempfile.TemporaryDirectory() as folder:
        request = {"name": name, "flags": list(map(str, flags)), "cwd": str(cwd)}
        request |= {"environment": environment, "streams": folder}
        print(json.dumps(request), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        texts = [
            pathlib.Path(folder, stream).read_text(errors="replace") for stream in ("out", "err")
        ]
    return subprocess.CompletedProcess([name, *flags], code, *texts)


def succeed(name, *flags, cwd):
    """`run`, and fail the test unless the exit code is 0."""
    done = run(name, *flags, cwd=cwd)
    assert done.returncode == 0, f"{name} {shlex.join(done.args[1:])}\n{done.stderr}"
    return done


def _enter(request):
    """Becomes the command, in a fork."""
    os.setpgid(0, 0)
    signal.alarm(LONGEST)
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    for number, stream in enumerate((os.devnull, "out", "err")):
        path = os.path.join(request["streams"], stream)
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    sys.path[0] = ""  # as `python -m` does
    sys.argv = [request["name"], *request["flags"]]
    code = 0
    try:
        if request["name"] == "-c":
            exec(request["flags"][0], {"__name__": "__main__"})
        else:
            module = f"isnas_jax.experiments.{request['name']}"
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking the modules apart would cost as much as many a command


def _serve():
    for module in IMPORTED:
        importlib.import_module(module)
    gc.freeze()
    for line in sys.stdin:
        if not (fork := os.fork()):
            _enter(json.loads(line))
        _, status = os.waitpid(fork, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve()
