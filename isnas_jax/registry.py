"""Named choices: what a flag or a table may call by name, and a user may add to."""

from collections.abc import Mapping
from typing import TypeVar

Entry = TypeVar("Entry")


class UnknownNameError(ValueError, KeyError):
    """A registry has no entry of a name; the message lists the names it has."""

    __str__ = ValueError.__str__


class Registry(dict[str, Entry]):
    """A dict of interchangeable strategies, looked up by the names that flags use.

    `REGISTRY["name"] = entry` registers a strategy. Library functions take the strategies
    themselves, not their names.

    Attributes:
      kind: What the entries are, for error messages.
      fallback: Entries that can be looked up but are not listed.
    """

    def __init__(
        self,
        kind: str,
        entries: Mapping[str, Entry] | None = None,
        *,
        fallback: Mapping[str, Entry] | None = None,
    ) -> None:
        super().__init__(entries or {})
        self.kind = kind
        self.fallback: Mapping[str, Entry] = fallback or {}

    def __missing__(self, name: str) -> Entry:
        """Look a name up in the fallback; UnknownNameError lists the valid names."""
        if isinstance(name, str) and name in self.fallback:
            return self.fallback[name]
        names = ", ".join([*self, *self.fallback])
        raise UnknownNameError(f"{self.kind} {name!r} does not exist; choose from {names}")


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
