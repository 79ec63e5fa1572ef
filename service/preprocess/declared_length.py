"""Detect the format of a file, and whether the file is shorter than it declares.

Decoders do not report that a file was truncated: libsndfile reduces the declared length to what is present, and FFmpeg
stops without an error. So the declared end is read here, from the boxes, chunks and pages themselves.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from service.preprocess.byte_source import ByteSource

Kind = Literal[
    "wav", "w64", "aiff", "au", "caf", "caf-packed", "flac", "ogg", "ogg-opus", "mp4", "matroska", "asf", "other"
]

_STREAMED = 0x7FFF0000
"""Sizes from here on mean "unknown": programs that write to a pipe declare 0xFFFFFFFF or about 2 GiB."""

_MOST_CHUNKS = 4096
"""Most chunks or boxes that are read; a file made of millions of empty ones must not cost time."""

_LEAST_MISSING, _MOST_MISSING = 64, 1024
"""A 32nd of the file may be missing, within these bounds in bytes: some programs count their own header as audio."""

_OGG_PAGE = 65_307
"""Most bytes in an Ogg page."""

_MP4_BOXES = frozenset(b"ftyp moov mdat moof mfra free skip wide sidx styp ssix uuid meta pdin prft emsg udta".split())
_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"


@dataclass(frozen=True, slots=True)
class Header:
    """The format, and whether the file ends before the end that it declares."""

    kind: Kind
    truncated: bool


def read_header(source: ByteSource) -> Header:
    """Detect the format, and whether the file has markedly fewer bytes than it declares. Never raises."""
    kind = _identify(source.at(0, 36))
    end = _ENDS[kind](source) if kind in _ENDS else None
    return Header(kind, end is not None and end - source.size > max(_LEAST_MISSING, min(_MOST_MISSING, end // 32)))


def _identify(head: bytes) -> Kind:
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[:4] == b"caff":
        # libsndfile reads ALAC in CAF too, but prints to standard output on damaged files.
        return "caf" if head[28:32] in (b"lpcm", b"alaw", b"ulaw") else "caf-packed"
    if head.startswith(b"OggS"):
        return "ogg-opus" if head[28:36] == b"OpusHead" else "ogg"
    if head[4:8] == b"ftyp":
        return "mp4"
    starts: tuple[tuple[bytes, Kind], ...] = (
        (_W64_RIFF, "w64"),
        (b".snd", "au"),
        (b"dns.", "au"),
        (b"fLaC", "flac"),
        (_EBML, "matroska"),
        (_ASF_HEADER, "asf"),
    )
    return next((kind for start, kind in starts if head.startswith(start)), "other")


def _find_chunk(
    source: ByteSource, position: int, name: bytes, size_format: str, padding: int = 1
) -> tuple[int, int] | None:
    """Search the chunks from `position` on for a name: the begin of its content and its size, as `struct` reads it."""
    header = len(name) + struct.calcsize(size_format)
    for _ in range(_MOST_CHUNKS):
        chunk = source.at(position, header)
        if len(chunk) < header:
            return None
        size: int = struct.unpack_from(size_format, chunk, len(name))[0]
        position += header
        if chunk.startswith(name):
            return position, size
        position += max(0, size + -size % padding)
    return None


def _wav_end(source: ByteSource) -> int | None:
    size_format = ">I" if source.at(0, 4) == b"RIFX" else "<I"
    begin, size = _find_chunk(source, 12, b"data", size_format, padding=2) or (0, 0)
    if size == 0xFFFFFFFF and (sizes := _find_chunk(source, 12, b"ds64", size_format, padding=2)):
        long_size = int.from_bytes(source.at(sizes[0] + 8, 8), "little")
        return begin + long_size if 0 < long_size < 1 << 63 else None
    return None if size == 0 or size >= _STREAMED else begin + size


def _w64_end(source: ByteSource) -> int | None:
    position = 40
    for _ in range(_MOST_CHUNKS):
        chunk = source.at(position, 24)
        if len(chunk) < 24:
            return None
        size: int = struct.unpack_from("<Q", chunk, 16)[0]
        if chunk.startswith(_W64_DATA):
            return None if size <= 24 or size >= 1 << 62 else position + size
        position += max(24, size + -size % 8)  # the size includes the header
    return None


def _aiff_end(source: ByteSource) -> int | None:
    begin, size = _find_chunk(source, 12, b"SSND", ">I", padding=2) or (0, 0)
    return None if size <= 8 or size >= _STREAMED else begin + size


def _au_end(source: ByteSource) -> int | None:
    head = source.at(0, 12)
    if len(head) < 12:
        return None
    offset, size = struct.unpack_from(">II" if head.startswith(b".snd") else "<II", head, 4)
    return None if size == 0 or size >= _STREAMED else int(offset + size)


def _caf_end(source: ByteSource) -> int | None:
    begin, size = _find_chunk(source, 8, b"data", ">q") or (0, 0)
    return None if size <= 0 else begin + size


def _ogg_end(source: ByteSource) -> int | None:
    """Return where the last page should end. A page that lacks a byte cannot be decoded, so all of it is missing."""
    tail = source.at(max(0, source.size - _OGG_PAGE), _OGG_PAGE)
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if not page.startswith(b"OggS"):
        return None
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    whole = len(page) > 26 and len(segments) == page[26] and len(page) >= 27 + len(segments) + sum(segments)
    return source.size if whole else source.size + _OGG_PAGE


def _mp4_end(source: ByteSource) -> int | None:
    """Return where the last top-level box should end."""
    position = 0
    for _ in range(_MOST_CHUNKS):
        box = source.at(position, 16)
        if len(box) < 8:
            break
        size: int = struct.unpack_from(">I", box)[0]
        if size == 1 and len(box) == 16:
            size = struct.unpack_from(">Q", box, 8)[0]
        # Size 0 means up to the end of the file. Data other than boxes may follow, such as a tag that a player added.
        if size < 8 or box[4:8] not in _MP4_BOXES:
            return None
        position += size
        if position >= source.size:
            return position
    return None


def _matroska_end(source: ByteSource) -> int | None:
    header = _ebml_size(source, 4)
    if header is None:
        return None
    position, size = header
    position += size
    if source.at(position, 4) != _SEGMENT:
        return None
    segment = _ebml_size(source, position + 4)
    return None if segment is None else segment[0] + segment[1]


def _ebml_size(source: ByteSource, position: int) -> tuple[int, int] | None:
    """Read an EBML size: where the content begins, and its size. None for "unknown", as live recorders write."""
    data = source.at(position, 8)
    width = 9 - data[0].bit_length() if data else 9
    if not data or width > 8 or len(data) < width:
        return None
    value = int.from_bytes(data[:width], "big") & ((1 << 7 * width) - 1)
    return None if value == (1 << 7 * width) - 1 else (position + width, value)


def _asf_end(source: ByteSource) -> int | None:
    head = source.at(16, 8)
    if len(head) < 8:
        return None
    position: int = struct.unpack("<Q", head)[0]
    data = source.at(position, 24)
    if len(data) < 24 or not data.startswith(_ASF_DATA):
        return None
    size: int = struct.unpack_from("<Q", data, 16)[0]
    return None if size <= 50 else position + size


def _mp3_end(source: ByteSource) -> int | None:
    """Return where an MP3 file with a Xing, Info or VBRI tag should end."""
    start = 0
    if (tag := source.at(0, 10)).startswith(b"ID3") and len(tag) == 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=True))
    frame = source.at(start, 192)
    if len(frame) < 192 or frame[0] != 0xFF or frame[1] & 0xE0 != 0xE0:
        return None
    if frame[36:40] == b"VBRI":
        return start + int(struct.unpack_from(">I", frame, 46)[0])
    # The tag follows the side information, whose size depends on the MPEG version and the number of channels.
    for place in (13, 21, 36):
        if frame[place : place + 4] in (b"Xing", b"Info"):
            flags: int = struct.unpack_from(">I", frame, place + 4)[0]
            if not flags & 2:
                return None
            return start + int(struct.unpack_from(">I", frame, place + 8 + 4 * (flags & 1))[0])
    return None


_ENDS: dict[Kind, Callable[[ByteSource], int | None]] = {
    "wav": _wav_end,
    "w64": _w64_end,
    "aiff": _aiff_end,
    "au": _au_end,
    "caf": _caf_end,
    "caf-packed": _caf_end,
    "ogg": _ogg_end,
    "ogg-opus": _ogg_end,
    "mp4": _mp4_end,
    "matroska": _matroska_end,
    "asf": _asf_end,
    "other": _mp3_end,
}
