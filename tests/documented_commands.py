"""Run by test_readme in a process of its own: prints documented commands with flags that are not.

Each is checked in a fork, for scripts have flags of the same names.
"""

import os
import pathlib
import re
import runpy
import shlex
import sys

# Before the forks.
import isnas_jax.experiments.benchmarks.machine
import isnas_jax.experiments.cli
import isnas_jax.experiments.progress

import isnas_jax.report
import isnas_jax.study  # noqa: F401

ROOT = pathlib.Path(__file__).parent.parent
SCRIPT = re.compile(r" {4}.*?python -m experiments\.(\S+)(.*)")

number = 0
for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
    for line in page.read_text().replace("\\\n", " ").splitlines():
        if not (found := SCRIPT.match(line)):
            continue
        words = shlex.split(found[2], comments=True)
        given = [word for word in words if word.startswith("--") and "..." not in word]
        number += 1
        if not (fork := os.fork()):
            sys.argv = [found[1], *given, "--only_check_args"]
            runpy.run_module(f"isnas_jax.experiments.{found[1]}", run_name="__main__")
        if os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]):
            print(f"{page.name}: {line.strip()}", flush=True)
print(number, "commands")
