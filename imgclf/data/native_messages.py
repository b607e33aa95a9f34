"""What the decoders' C libraries write to the standard error stream, such as libtiff's "Using code not yet in table": kept out of it.

It says nothing that an image's reason and detail do not say, and it would stand between the lines of the log.
"""

import contextlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import TextIO

_DECODERS = re.compile(
    rb"(tempfile\.tif|TIFF\w*|LZW\w*|PackBits\w*|Fax\w*|ZIP\w*|JPEG\w*|LogLuv\w*|_TIFF\w*|PixarLog\w*|libpng|libjpeg|Corrupt JPEG data|"
    rb"Premature end of JPEG|Unsupported marker|Invalid SOS|Invalid JPEG|Warning: unknown JFIF|\[ ?(WARN|ERROR)[:@].*(imgcodecs|grfmt))"
)
_lock = threading.Lock()
_held: list[int] = []  # the file that takes the messages, while one does


@contextlib.contextmanager
def held_back() -> Iterator[TextIO]:
    """Keeps the decoders' messages back while the block runs; everything else that was written meanwhile follows at its end.

    Yields:
      The standard error stream as it was, for what must be seen at once, such as a progress bar.
    """
    with _lock:
        alone = not _held
        if alone:
            sys.stderr.flush()
            file = tempfile.TemporaryFile()  # noqa: SIM115  closed below, by the same block
            before = os.dup(2)
            os.dup2(file.fileno(), 2)
            _held.append(file.fileno())
    if not alone:  # another thread holds them back already
        yield sys.stderr
        return
    try:
        with open(os.dup(before), "w", encoding="utf-8", errors="backslashreplace", buffering=1) as stream:
            yield stream if _is_the_stream(sys.stderr) else sys.stderr
    finally:
        with _lock:
            sys.stderr.flush()
            _held.clear()
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            others = b"".join(line for line in file.read().splitlines(keepends=True) if not _DECODERS.match(line))
            file.close()
        if others:
            os.write(2, others)


def holding() -> bool:
    """Whether messages are held back now."""
    return bool(_held)


def written() -> int:
    """How many bytes have been held back so far; 0 while nothing is."""
    return os.fstat(_held[0]).st_size if _held else 0


def _is_the_stream(stream: TextIO) -> bool:
    """Whether a stream writes to the process's standard error, and not to a notebook or a test's buffer."""
    try:
        return stream.fileno() == 2
    except (OSError, ValueError, AttributeError):
        return False
