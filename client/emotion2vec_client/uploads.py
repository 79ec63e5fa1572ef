"""Opens the files to upload, so that a request body can be sent again from its beginning."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

import httpx

File: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO
"""A path, the bytes of a file, or an open, seekable binary file, which is read from its beginning."""

_CHUNK_BYTES = 256 * 1024
_CONTENT_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class UploadBody:
    """A request body that can be read several times.

    Attributes:
        headers: Content-Type and Content-Length.
        iter_chunks: reads the body from its beginning.
    """

    headers: dict[str, str]
    iter_chunks: Callable[[], Iterator[bytes]]

    async def aiter_chunks(self) -> AsyncIterator[bytes]:
        """Read the body from its beginning, in threads: a disk or network share must not block the event loop."""
        chunks = self.iter_chunks()
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            yield chunk


@contextmanager
def raw_body(file: File) -> Iterator[UploadBody]:
    """One file as the whole body.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not seekable, so that it could not be sent again.
    """
    with ExitStack() as stack:
        _, content = _open(file, 0, stack)
        size = content.seek(0, os.SEEK_END)
        yield UploadBody({"Content-Type": _CONTENT_TYPE, "Content-Length": str(size)}, lambda: _read(content))


@contextmanager
def form_body(field: str, files: Sequence[File]) -> Iterator[UploadBody]:
    """Several files as the parts `field` of a multipart form.

    Raises:
        OSError: if one cannot be read.
        ValueError: if one is not seekable, or there are no files.
    """
    if not files:
        raise ValueError("there are no files to send")
    with ExitStack() as stack:
        parts = [(field, (*_open(file, index, stack), _CONTENT_TYPE)) for index, file in enumerate(files)]
        form = httpx.Request("POST", "http://service", files=parts)  # only encodes the form; it is never sent
        stream = form.stream
        # Each iteration over httpx's multipart stream rewinds the files.
        assert isinstance(stream, httpx.SyncByteStream)  # noqa: S101 - narrows the type
        headers = {name: form.headers[name] for name in ("Content-Type", "Content-Length")}
        yield UploadBody(headers, lambda: iter(stream))


def _open(file: File, index: int, stack: ExitStack) -> tuple[str, BinaryIO]:
    """File name and content. `stack` closes files opened here; a file that the caller opened stays open."""
    if isinstance(file, bytes | bytearray | memoryview):
        return f"file-{index}", io.BytesIO(file)
    if isinstance(file, str | os.PathLike):
        # Names need not be UTF-8 on disk, but they must be in a form.
        name = os.fsencode(Path(file).name).decode("utf-8", "backslashreplace")
        return name, stack.enter_context(Path(file).open("rb"))
    if not file.seekable():
        raise ValueError("the file is not seekable, so it could not be sent again: pass its bytes instead")
    return f"file-{index}", file


def _read(content: BinaryIO) -> Iterator[bytes]:
    content.seek(0)
    while chunk := content.read(_CHUNK_BYTES):
        yield chunk
