"""Standard output and error that never cost a run its results."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any


class _Lenient:
    """A text stream that prints ? for what its encoding lacks, and ignores a closed pipe."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, call: Callable[..., Any], *args: Any) -> None:
        try:
            call(*args)
        except OSError as error:
            # What is buffered would fail again, last when the interpreter ends.
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
            if not isinstance(error, BrokenPipeError):
                raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lenient() -> Iterator[None]:
    """Makes both streams so until the block ends.

    A stream that was closed before the start goes nowhere. Its file descriptor is taken, since
    libraries write to descriptor 2 whatever file has that number.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    before = sys.stdout, sys.stderr
    streams = [_Lenient(stream or open(os.devnull, "w")) for stream in before]  # noqa: SIM115
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        for stream in streams:
            with contextlib.suppress(OSError):
                stream.flush()
        sys.stdout, sys.stderr = before
