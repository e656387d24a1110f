"""Paths as users type them."""

import os
import re


def from_text(text: str) -> str:
    """Return the path that a user's text refers to.

    `~` becomes the home folder. Samples ("sample:NAME") become lower case.

    Raises:
      ValueError: For a URL.
    """
    if text.lower().startswith("sample:"):
        return text.lower()
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise ValueError(f"{text!r} is a URL, not a path; download it first")
    return os.path.expanduser(text)
