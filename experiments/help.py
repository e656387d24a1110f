"""The --help of a script: its docstring, its flags by group, and the exit codes."""

import pathlib
import sys
import textwrap

from absl import flags

from .flags import FLAGS, GROUPS, TITLES

_WIDTH, _COLUMN = 96, 26
_EXITS = """Exit codes
  0    done
  2    invalid input, explained in one line
  3    done, but some units of a study failed
  130  stopped by Ctrl-C; the same command resumes the run

  --flagfile=FILE reads flags from a file, one per line; some are in
  """
_PRESETS = pathlib.Path(__file__).parent / "presets"


def own_flags() -> list[flags.Flag]:
    """Return the flags that the script has defined, those of absl left out."""
    modules = FLAGS.flags_by_module_dict()
    return [flag for name in modules if not name.startswith("absl") for flag in modules[name]]


def text() -> str:
    """Return the help of the script that was started."""
    titles = ["This script", *(title for title, _ in GROUPS.values())]
    groups: dict[str, list[flags.Flag]] = {title: [] for title in titles}
    for flag in own_flags():
        groups[TITLES.get(flag.name, titles[0])].append(flag)
    parts = [(sys.modules["__main__"].__doc__ or "").strip()]
    parts += ["\n".join([title, *map(_line, groups[title])]) for title in groups if groups[title]]
    return "\n\n".join([*parts, f"{_EXITS}{_PRESETS}"])


def _line(flag: flags.Flag) -> str:
    """Return a flag with its description and default."""
    head = f"  --[no]{flag.name}" if flag.boolean else f"  --{flag.name}"
    description = flag.help or ""
    if flag.default not in (None, [], "", False):
        description += f" (default: {flag.default_as_str})"
    lines = textwrap.wrap(description, _WIDTH - _COLUMN)
    if len(head) >= _COLUMN:
        lines = ["", *lines]
    return "\n".join(
        f"{head if not index else '':{_COLUMN}}{line}" for index, line in enumerate(lines)
    )
