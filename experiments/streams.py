"""Standard output and error that do not stop a run when they fail."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any


class _TolerantStream:
    """A text stream that replaces unencodable characters by ? and ignores a closed pipe."""

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
            # Redirect the stream, since its buffer would fail again when the interpreter exits.
            with open(os.devnull, "wb") as devnull:
                os.dup2(devnull.fileno(), self._stream.fileno())
            if not isinstance(error, BrokenPipeError):
                raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def tolerant_streams() -> Iterator[None]:
    """Replace stdout and stderr by streams that tolerate failures, until the block ends.

    A stream that is already closed writes to the null device. Its file descriptor is opened too:
    libraries write to descriptor 2 and would otherwise write into a file with that number.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    originals = sys.stdout, sys.stderr
    streams = [
        _TolerantStream(stream or open(os.devnull, "w"))  # noqa: SIM115
        for stream in originals
    ]
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        for stream in streams:
            with contextlib.suppress(OSError):
                stream.flush()
        sys.stdout, sys.stderr = originals
