"""Find the audio of WAV and AIFF files in their chunks, also where decoders would miss some of it.

Some programs leave out the pad byte behind a chunk of odd length, and some recorders write several whole files one
after the other. For such a file there is a `JoinedFile` with one header and all of the audio, which any decoder reads.
"""

from __future__ import annotations

import io
import itertools
import os
import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from service.preprocess.byte_source import ByteSource

MOST_CHUNKS = 4096
"""Most chunks or boxes that are read; a file made of millions of empty ones must not cost time."""

_LONGEST_FORMAT = 1024
"""Bytes of the chunk that describes the format."""

_CONTAINERS = (b"RIFF", b"RIFX", b"RF64", b"FORM")
_METADATA = frozenset(
    (b"LIST", b"id3 ", b"ID3 ", b"bext", b"cue ", b"smpl", b"iXML", b"fact", b"PEAK", b"JUNK", b"junk")
)
_HEADER = 8
"""Bytes of the name and the size of a chunk."""


@dataclass(frozen=True, slots=True)
class ChunkedAudio:
    """Where the audio of a file is.

    Attributes:
        end: where it ends as its header declares; None if the header declares no length.
        behind: the first byte that neither is audio nor belongs to a chunk; None if the audio has no declared end.
        joined: a file with the same audio and a header that decoders read right; None if they read this one right.
    """

    end: int | None
    behind: int | None
    joined: ByteSource | None


def is_placeholder(size: int) -> bool:
    """Whether a size of 32 bits means "unknown".

    Programs that cannot know the size when they write it put 0, almost 2 GiB or more, or a multiple of 1e9 or of 2**30;
    some add or subtract the size of their header.
    """
    round_sizes = (10**9, 2 * 10**9, 1 << 30)
    return size == 0 or size >= 0x7FFE0000 or any(abs(size - each) <= 128 for each in round_sizes)


def read_chunks(source: ByteSource) -> ChunkedAudio | None:
    """Find the audio of a WAV or AIFF file; None if there is none."""
    walk = _Walk(source)
    first = walk.read_file(0)
    if first is None:
        return None
    parts = [first]
    while (last := parts[-1]).next is not None and last.size % first.alignment == 0:
        part = walk.read_file(last.next)
        if part is None or part.comparable != first.comparable:
            break
        parts.append(part)
    joined = JoinedFile.of(source, parts) if first.unpadded or len(parts) > 1 else None
    return ChunkedAudio(
        end=None if last.next is None else last.begin + last.size,
        behind=last.next,
        joined=None if joined is None else ByteSource(io.BufferedReader(joined)),
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """One whole file: `size` bytes of samples at `begin`; `next` is None if its header declares no length."""

    magic: bytes
    format: bytes
    begin: int
    size: int
    next: int | None
    unpadded: bool

    @property
    def alignment(self) -> int:
        """Bytes of a sample in all channels, or of a block of a codec."""
        if self.magic.endswith(b"WAVE"):
            order = ">" if self.magic.startswith(b"RIFX") else "<"
            return max(1, int(struct.unpack_from(f"{order}H", self.format, 12)[0]))
        channels, bits = struct.unpack_from(">H4xH", self.format)
        return max(1, int(channels) * -(-int(bits) // 8))

    @property
    def comparable(self) -> tuple[bytes, bytes]:
        """What must be the same in files whose audio is joined."""
        # The format of AIFF also contains the number of samples.
        return self.magic, self.format if self.magic.endswith(b"WAVE") else self.format[:2] + self.format[6:]


class _Walk:
    """Reads chunks of a file, at most `MOST_CHUNKS` in all."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._left = MOST_CHUNKS

    def read_file(self, start: int) -> _Part | None:
        """Read the chunks of the file that begins at a position; None if there is none, or no audio in it."""
        head = self._source.at(start, 12)
        magic = head[:4] + head[8:]
        if magic in (b"RIFFWAVE", b"RIFXWAVE", b"RF64WAVE"):
            order, format_name, data_name, shortest = ">" if magic.startswith(b"RIFX") else "<", b"fmt ", b"data", 16
        elif magic in (b"FORMAIFF", b"FORMAIFC"):
            order, format_name, data_name, shortest = ">", b"COMM", b"SSND", 18
        else:
            return None
        names = (format_name, data_name, *_CONTAINERS)
        position = start + len(head)
        format_chunk, long_size, unpadded = b"", 0, False
        while (chunk := self._chunk(position, order)) is not None:
            name, size = chunk
            begin = position + _HEADER
            if name == data_name:
                if len(format_chunk) < shortest:
                    return None
                if size == 0xFFFFFFFF and 0 < long_size < 1 << 62:
                    size = long_size
                return self._part(magic, format_chunk, begin, size, order, names, unpadded)
            if name == format_name:
                format_chunk = self._source.at(begin, min(size, _LONGEST_FORMAT))
            elif name == b"ds64":
                long_size = int.from_bytes(self._source.at(begin + 8, 8), "little")
            position = self._after(begin, size, order, names)
            unpadded = unpadded or position - begin < size + size % 2
        return None

    def _part(
        self,
        magic: bytes,
        format_chunk: bytes,
        begin: int,
        size: int,
        order: str,
        names: Sequence[bytes],
        unpadded: bool,
    ) -> _Part | None:
        known = not is_placeholder(size) or begin + size <= self._source.size
        end = begin + size
        if magic.startswith(b"FORM"):  # 8 bytes come before the samples: how many others do, and the size of a block
            begin += 8 + int.from_bytes(self._source.at(begin, 4), "big")
            known = known and begin < end
        if size == 0 or not known:
            return _Part(magic, format_chunk, begin, max(0, self._source.size - begin), None, unpadded)
        position = self._after(end - size, size, order, names)
        while (chunk := self._chunk(position, order)) and self._is_chunk(*chunk, position):
            position = self._after(position + _HEADER, chunk[1], order, names)
        return _Part(magic, format_chunk, begin, end - begin, position, unpadded)

    def _chunk(self, position: int, order: str) -> tuple[bytes, int] | None:
        """Read the name and the size of a chunk."""
        head = self._source.at(position, _HEADER) if self._left else b""
        self._left -= 1
        return (head[:4], struct.unpack_from(f"{order}I", head, 4)[0]) if len(head) == _HEADER else None

    def _is_chunk(self, name: bytes, size: int, position: int) -> bool:
        """Whether a name and a size can be those of a chunk, rather than other data."""
        printable = all(0x20 <= byte < 0x7F for byte in name) and name not in _CONTAINERS
        return name in _METADATA or (printable and position + _HEADER + size <= self._source.size)

    def _after(self, begin: int, size: int, order: str, names: Sequence[bytes]) -> int:
        """Return where the chunk behind this one begins: behind the pad byte of an odd size, unless that is missing."""
        end = begin + size
        if size % 2 == 0:
            return end
        data = self._source.at(end, _HEADER)
        if data[:4] in names:
            return end
        # A pad byte should be 0. If it is not, a chunk begins here where one can, unless a known one begins behind it.
        if len(data) < _HEADER or not data[0] or data[1:5] in names:
            return end + 1
        return end if self._is_chunk(data[:4], struct.unpack_from(f"{order}I", data, 4)[0], end) else end + 1


class JoinedFile(io.RawIOBase):
    """A read-only file made of a header and of stretches of another file.

    Args:
        source: the other file.
        header: the first bytes.
        stretches: where the others begin in `source`, and how many they are.
    """

    def __init__(self, source: ByteSource, header: bytes, stretches: Sequence[tuple[int, int]]) -> None:
        self._source = source
        self._header = header
        self._begins = [begin for begin, _ in stretches]
        # Where each stretch begins in this file, and at last where the file ends.
        self._places = list(itertools.accumulate((size for _, size in stretches), initial=len(header)))
        self._position = 0

    @classmethod
    def of(cls, source: ByteSource, parts: Sequence[_Part]) -> JoinedFile:
        """Join the audio of files of the same format under one header."""
        first = parts[0]
        stretches = [(part.begin, max(0, min(part.size, source.size - part.begin))) for part in parts]
        total = sum(size for _, size in stretches)
        if first.magic.startswith(b"FORM"):
            frames = min(total // first.alignment, 0xFFFFFFFF)
            if len(first.format) > 18 and first.format[18:22] not in (b"NONE", b"sowt", b"twos"):  # not one sample each
                frames = min(sum(int.from_bytes(part.format[2:6], "big") for part in parts), 0xFFFFFFFF)
            form = first.format[:2] + struct.pack(">I", frames) + first.format[6:]
            data = _packed(b"SSND", min(total + 8, 0xFFFFFFFF), ">") + bytes(8)
            chunks = _packed(b"COMM", len(form), ">") + form + bytes(len(form) % 2) + data
            magic, order = first.magic, ">"
        else:
            order = ">" if first.magic.startswith(b"RIFX") else "<"
            magic = b"RIFX" if order == ">" else b"RIFF"
            form = first.format + bytes(len(first.format) % 2)
            chunks = _packed(b"fmt ", len(first.format), order) + form + _packed(b"data", min(total, 0xFFFFFFFF), order)
        head = _packed(magic[:4], min(4 + len(chunks) + total, 0xFFFFFFFF), order) + first.magic[4:]
        return cls(source, head + chunks, stretches)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Set the position, which must not be negative."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._places[-1]}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override] # a Buffer is either
        """Read up to the end of the header or of a stretch."""
        index = bisect_right(self._places, self._position) - 1
        if index < 0:
            data = self._header[self._position : self._position + len(buffer)]
        elif index == len(self._begins):
            return 0
        else:
            size = min(len(buffer), self._places[index + 1] - self._position)
            data = self._source.at(self._begins[index] + self._position - self._places[index], size)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _packed(name: bytes, size: int, order: str) -> bytes:
    return name + struct.pack(f"{order}I", size)
