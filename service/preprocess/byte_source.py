"""The bytes of an upload as a file object for C libraries: seekable, without a name, and never raising."""

from __future__ import annotations

import errno
import io
import os
from typing import IO

from service.errors import ServiceError

Data = bytes | bytearray | memoryview | IO[bytes]
"""An upload: in memory, or a seekable binary file (multipart uploads spool to disk)."""


class ByteSource:
    """A read-only file object around an upload.

    libsndfile and FFmpeg read through callbacks. An exception in a callback is printed to standard error instead of
    raised, and a hostile header makes both libraries seek to impossible positions. So every method returns an error
    number or no bytes instead, and `check` raises afterwards. There is no `name` attribute, so that no library can
    guess the format from it or open the file again.
    """

    def __init__(self, data: Data) -> None:
        self._file = io.BytesIO(data) if isinstance(data, bytes | bytearray | memoryview) else data
        self._failure: Exception | None = None
        self._begin = 0
        self._position = 0
        self.size = 0
        try:
            self.size = self._file.seek(0, os.SEEK_END)
        except (OSError, ValueError) as error:
            self._failure = error

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, or everything that is left if `size` is negative."""
        try:
            self._file.seek(self._begin + self._position)
            left = self.size - self._position
            data = self._file.read(left if size < 0 else min(size, left))
        except (OSError, ValueError) as error:  # ValueError: the file was closed
            self._failure = error
            return b""
        self._position += len(data)
        return data

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Read into `buffer` and return the number of bytes read."""
        view = memoryview(buffer)
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position, at most to the end of the file; -EINVAL, and no change, if it would be negative."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}.get(whence)
        if base is None or base + offset < 0:
            return -errno.EINVAL
        # Nothing can be read past the end, and a position of more than 64 bits would raise.
        self._position = min(base + offset, self.size)
        return self._position

    def tell(self) -> int:
        """Return the current position in bytes."""
        return self._position

    def at(self, position: int, size: int) -> bytes:
        """Read up to `size` bytes from `position`."""
        self.seek(position)
        return self.read(size)

    def part(self, begin: int, end: int) -> ByteSource:
        """Return the bytes from `begin` to `end` as a source of its own, which reads from the same file."""
        part = ByteSource(self._file)
        part._begin = self._begin + begin
        part.size = min(end, self.size) - begin
        return part

    def check(self) -> None:
        """Raise ServiceError if reading the upload itself has failed, which is not the fault of the audio."""
        if self._failure is not None:
            raise ServiceError("The upload could not be read back.") from self._failure
