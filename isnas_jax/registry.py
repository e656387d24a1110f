"""Registries: map names in flags and tables to interchangeable strategies.

Also helpers for error messages about arguments.
"""

from collections.abc import Mapping
from typing import TypeVar

Entry = TypeVar("Entry")


class UnknownNameError(ValueError, KeyError):
    """A name is not in a registry; the message lists the names that are."""

    __str__ = ValueError.__str__


class Registry(dict[str, Entry]):
    """A dict from names to interchangeable strategies.

    `REGISTRY["name"] = strategy` registers a strategy. Flags and tables use the names;
    library functions take the strategies themselves.

    Attributes:
      kind: Noun for one entry in error messages, such as "metric".
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
        """Return an entry of the fallback, or raise UnknownNameError."""
        if isinstance(name, str) and name in self.fallback:
            return self.fallback[name]
        valid_names = ", ".join([*self, *self.fallback])
        raise UnknownNameError(f"{self.kind} {name!r} does not exist; choose from {valid_names}")


def short_repr(value: object) -> str:
    """Return `repr(value)` on one line of at most 80 characters, for error messages."""
    return " ".join(repr(value).split())[:80]


def refuse_names(**arguments: object) -> None:
    """Raise ValueError if an argument is a registry name instead of the strategy itself."""
    for argument, value in arguments.items():
        if isinstance(value, str):
            raise ValueError(
                f"{argument} {value!r} is a name; look up the strategy in its registry "
                "(docs/extending.md lists them) and pass that"
            )
