"""A file that is somewhere else, fetched piece by piece: how an upload gets into the process that runs FFmpeg.

Imports nothing that is slow to load: see `service.preprocess.ffmpeg.child_main`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from functools import lru_cache

PIECE = 1 << 18
"""Bytes that are asked for at once: most clips come as one piece, and a long file costs few exchanges."""

_KEPT = 8
"""Pieces that are kept. FFmpeg goes to and fro between places of a file, such as its picture and its sound."""


class PiecedFile(io.RawIOBase):
    """Reads a file of `size` bytes through `fetch`, which returns the `PIECE` bytes (fewer at the end) from a place on.

    `first` is the first piece. It is kept, since headers are looked at again and again.
    """

    def __init__(self, size: int, first: bytes, fetch: Callable[[int], bytes]) -> None:
        self._size = size
        self._first = first
        self._fetch = lru_cache(_KEPT)(fetch)
        self._position = 0

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a place, which callers keep within the file."""
        self._position = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence] + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override] # a Buffer is either
        """Read up to the end of a piece."""
        offset = self._position % PIECE
        place = self._position - offset
        if self._position >= self._size:
            return 0
        part = (self._fetch(place) if place else self._first)[offset : offset + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)
