"""A script's --help: what it does, and its flags by what they are about."""

import functools
import pathlib
import sys
import textwrap
from collections.abc import Callable

from absl import flags

FLAGS = flags.FLAGS

_GROUPS: dict[str, str] = {}
_WIDTH, _COLUMN = 96, 26
_EXITS = """Exit codes
  0    done
  2    something given is wrong, said in one line
  3    done, but for units of a study that failed
  130  stopped by Ctrl-C; the same command goes on

  --flagfile=FILE takes flags from a file, one a line; some are in
  """
_PRESETS = pathlib.Path(__file__).parent / "presets"


def group(title: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Marks a function that defines flags which belong together."""

    def marked(define: Callable[[], None]) -> Callable[[], None]:
        @functools.wraps(define)
        def defining() -> None:
            before = set(FLAGS)
            define()
            for name in set(FLAGS) - before:
                _GROUPS.setdefault(name, title)

        return defining

    return marked


def text() -> str:
    """Of the script that was started."""
    found: dict[str, list[flags.Flag]] = {"This script": []}
    for title in dict.fromkeys(_GROUPS.values()):
        found[title] = []
    found["Everywhere"] = []
    own = {flag.name for flag in FLAGS.flags_by_module_dict().get(sys.argv[0], [])}
    for flag in FLAGS.get_key_flags_for_module(sys.argv[0]):
        rest = "This script" if flag.name in own else "Everywhere"
        found[_GROUPS.get(flag.name, rest)].append(flag)
    parts = [(sys.modules["__main__"].__doc__ or "").strip()]
    for title, members in found.items():
        if members:
            parts.append("\n".join([title, *map(_described, members)]))
    return "\n\n".join([*parts, f"{_EXITS}{_PRESETS}"])


def _described(flag: flags.Flag) -> str:
    """Its name beside what it is, the default at the end."""
    head = f"  --[no]{flag.name}" if flag.boolean else f"  --{flag.name}"
    said = flag.help or ""
    if flag.default not in (None, [], "", False):
        said += f" (default: {flag.default_as_str})"
    lines = textwrap.wrap(said, _WIDTH - _COLUMN)
    if len(head) >= _COLUMN:
        lines = ["", *lines]
    return "\n".join(
        f"{head if not index else '':{_COLUMN}}{line}" for index, line in enumerate(lines)
    )
