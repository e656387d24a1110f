"""Paths as people type, paste and drop them."""

import os
import re
import unicodedata
import urllib.parse
import urllib.request

_QUOTES = ('""', "''", "“”", "‘’")


def from_text(text: str) -> str:
    """Return the path that a text means.

    Blanks and quotes around it are dropped unless a file has them in its name, `~` is the home
    folder, and a `file:` URI becomes its path. A name whose accents are spelled otherwise on
    disk is found. Samples ("sample:NAME") are written in lower case.

    Raises:
      ValueError: For the address of something on another computer.
    """
    if os.path.lexists(text) and not text.startswith("~"):
        return text
    path = text.strip()
    if len(path) > 1 and path[0] + path[-1] in _QUOTES:
        path = path[1:-1].strip()
    if path.lower().startswith("sample:"):
        return "sample:" + path.partition(":")[2].strip().lower()
    if path.lower().startswith("file:/"):
        uri = urllib.parse.urlsplit(path)
        if uri.netloc not in ("", "localhost"):
            raise ValueError(f"{text!r} is on another computer; copy it here first")
        path = urllib.request.url2pathname(uri.path)
    elif re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
        raise ValueError(f"{text!r} is an address, not a path; download it first")
    path = os.path.expanduser(path)
    spellings = (unicodedata.normalize(form, path) for form in ("NFC", "NFD"))
    return next((other for other in (path, *spellings) if os.path.lexists(other)), path)
