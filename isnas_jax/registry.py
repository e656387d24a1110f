"""Named choices: what a flag or a table may call by name, and a user may add to."""

from collections.abc import Mapping
from typing import TypeVar

Entry = TypeVar("Entry")


class Registry(dict[str, Entry]):
    """A dict of strategies of one kind that knows what they are called.

    Add your own by `REGISTRY["name"] = entry`; library functions take the
    entries themselves, flags and tables their names.

    Attributes:
      kind: What an entry is, for messages.
      besides: More entries to be found, which do not count as members.
    """

    def __init__(
        self,
        kind: str,
        entries: Mapping[str, Entry] | None = None,
        *,
        besides: Mapping[str, Entry] | None = None,
    ) -> None:
        super().__init__(entries or {})
        self.kind = kind
        self.besides: Mapping[str, Entry] = besides or {}

    def find(self, name: str) -> Entry:
        """The entry of this name; ValueError with the valid names."""
        known = {**self, **self.besides}
        if not isinstance(name, str) or name not in known:
            raise ValueError(f"{self.kind} {name!r} does not exist; choose from {', '.join(known)}")
        return known[name]


def shown(value: object) -> str:
    """A value on one line for messages, cut to 80 characters."""
    return " ".join(repr(value).split())[:80]


def refuse_names(**given: object) -> None:
    """ValueError if one of these arguments is a name, where the thing itself is needed."""
    for argument, value in given.items():
        if isinstance(value, str):
            raise ValueError(
                f"{argument} {value!r} is a name, where the thing itself is needed; "
                "take it from its registry, as docs/extending.md lists them"
            )
