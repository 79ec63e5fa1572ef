"""What a caller may give as a file, opened so that it can be sent more than once."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

import httpx

File: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO
"""A path, the bytes themselves, or an open binary file that can seek; it is read from its beginning."""

_PIECE = 256 * 1024
_RAW = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body: the headers that describe it, and a function that reads it from its beginning."""

    headers: dict[str, str]
    pieces: Callable[[], Iterator[bytes]]


@contextmanager
def raw_body(file: File) -> Iterator[Body]:
    """One file as the body itself.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it cannot seek, and so could not be sent again.
    """
    with ExitStack() as stack:
        _, content = _open(file, 0, stack)
        size = content.seek(0, os.SEEK_END)
        yield Body({"Content-Type": _RAW, "Content-Length": str(size)}, lambda: _read(content))


@contextmanager
def form_body(field: str, files: Sequence[File]) -> Iterator[Body]:
    """Several files as parts `field` of a form.

    Raises:
        OSError: if one cannot be read.
        ValueError: if one cannot seek, or there are none.
    """
    if not files:
        raise ValueError("there are no files to send")
    with ExitStack() as stack:
        parts = [(field, (*_open(file, index, stack), _RAW)) for index, file in enumerate(files)]
        form = httpx.Request("POST", "http://service", files=parts)  # never sent: only encoded
        stream = form.stream
        assert isinstance(stream, httpx.SyncByteStream)  # which goes back to the beginning of each file  # noqa: S101
        yield Body({name: form.headers[name] for name in ("Content-Type", "Content-Length")}, lambda: iter(stream))


def _open(file: File, index: int, stack: ExitStack) -> tuple[str, BinaryIO]:
    """Name and content; `stack` closes what is opened here, and leaves the caller's own file open."""
    if isinstance(file, bytes | bytearray | memoryview):
        return f"file-{index}", io.BytesIO(file)
    if isinstance(file, str | os.PathLike):
        return Path(file).name, stack.enter_context(Path(file).open("rb"))
    if not file.seekable():
        raise ValueError("a file that cannot seek cannot be sent again: give its bytes")
    return f"file-{index}", file


def _read(content: BinaryIO) -> Iterator[bytes]:
    content.seek(0)
    while piece := content.read(_PIECE):
        yield piece
