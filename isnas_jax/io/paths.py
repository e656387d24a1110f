"""Paths as users type, paste or drop them into a terminal."""

import os
import re
import unicodedata
import urllib.parse
import urllib.request

_QUOTE_PAIRS = ('""', "''", "“”", "‘’")


def from_text(text: str) -> str:
    """Return the path that a user's text refers to.

    Surrounding spaces and quotes are removed, unless a file of exactly this name exists.
    `~` becomes the home folder, and a `file:` URI its path. Accents match file names in
    either Unicode form. Samples ("sample:NAME") become lower case.

    Raises:
      ValueError: For a URL, or a `file:` URI of another computer.
    """
    if os.path.lexists(text) and not text.startswith("~"):
        return text
    path = text.strip()
    if len(path) > 1 and path[0] + path[-1] in _QUOTE_PAIRS:
        path = path[1:-1].strip()
    if path.lower().startswith("sample:"):
        return "sample:" + path.partition(":")[2].strip().lower()
    if path.lower().startswith("file:/"):
        uri = urllib.parse.urlsplit(path)
        if uri.netloc not in ("", "localhost"):
            raise ValueError(f"{text!r} is on another computer; copy it here first")
        path = urllib.request.url2pathname(uri.path)
    elif re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
        raise ValueError(f"{text!r} is a URL, not a path; download it first")
    path = os.path.expanduser(path)
    normalized = (unicodedata.normalize(form, path) for form in ("NFC", "NFD"))
    return next((variant for variant in (path, *normalized) if os.path.lexists(variant)), path)
