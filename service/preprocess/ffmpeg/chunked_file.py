"""A file that is fetched in chunks: how an upload reaches the child process that runs FFmpeg."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from functools import lru_cache

CHUNK = 1 << 18
"""Bytes requested at once: most clips are one chunk, and a long file needs few requests."""

_CACHED = 8
"""Chunks that are cached. FFmpeg seeks back and forth in a file, for example between its picture and its audio."""


class ChunkedFile(io.RawIOBase):
    """A read-only file whose bytes come from a function.

    Args:
        size: of the file, in bytes.
        first: the first chunk. It stays in memory, since headers are read repeatedly.
        fetch: returns the `CHUNK` bytes from a position on, fewer at the end of the file.
    """

    def __init__(self, size: int, first: bytes, fetch: Callable[[int], bytes]) -> None:
        self._size = size
        self._first = first
        self._fetch = lru_cache(_CACHED)(fetch)
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Set the position, which must be within the file."""
        self._position = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence] + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override] # a Buffer is either
        """Read up to the end of a chunk."""
        offset = self._position % CHUNK
        start = self._position - offset
        if self._position >= self._size:
            return 0
        data = (self._fetch(start) if start else self._first)[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
