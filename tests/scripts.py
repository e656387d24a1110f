"""Runs a script in this process, which takes no time to start."""

import contextlib
import io
import os
import pathlib
import runpy
import signal
import sys
from typing import NamedTuple
from unittest import mock

from absl import flags

import experiments.cli  # noqa: F401  defines flags of its own, once

FLAGS = flags.FLAGS
SCRIPTS = sorted(
    path.stem
    for path in (pathlib.Path(__file__).parent.parent / "experiments").glob("*.py")
    if 'if __name__ == "__main__"' in path.read_text()
)


class Done(NamedTuple):
    """As of `subprocess.run`."""

    returncode: int
    stdout: str
    stderr: str


class Stream(io.TextIOWrapper):
    """A file in memory."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def text(self) -> str:
        return self.buffer.getvalue().decode()


@contextlib.contextmanager
def defined(name, run_name):
    """Runs a script's module; its flags are there until the block ends.

    Those of other scripts, which tests have imported, are not there meanwhile.
    """
    modules = {flag: FLAGS.find_module_defining_flag(flag) or "" for flag in FLAGS}
    others = {
        flag: (module, FLAGS[flag])
        for flag, module in modules.items()
        if module.startswith("experiments.") and module != "experiments.cli"
    }
    for flag in others:
        delattr(FLAGS, flag)
    before = set(FLAGS)
    try:
        yield runpy.run_module(f"experiments.{name}", run_name=run_name, alter_sys=True)
    finally:
        for flag in set(FLAGS) - before:
            delattr(FLAGS, flag)
        FLAGS.unparse_flags()
        for flag in FLAGS:
            FLAGS[flag].unparse()
        for name, (module, flag) in others.items():
            FLAGS[name] = flag
            FLAGS.register_flag_by_module(module, flag)


def run(name, *arguments, cwd):
    """Runs a script in a folder."""
    out, err = Stream(), Stream()
    cache = f"--compilation_cache={os.environ['JAX_COMPILATION_CACHE_DIR']}"
    handler, code = signal.getsignal(signal.SIGINT), 0
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.dict(os.environ),
        mock.patch.object(sys, "argv", [name, *arguments, cache]),
    ):
        try:
            with defined(name, "__main__"):
                pass
        except SystemExit as ended:
            code = ended.code or 0
        finally:
            signal.signal(signal.SIGINT, handler)
    return Done(code, out.text(), err.text())
