"""Detect the format of a file, whether it ends before its declared end, and whether more follows behind its audio.

Decoders report neither: libsndfile reduces the declared length to what is present, FFmpeg stops without an error, and
both ignore what follows. So the declared end is read here, from the boxes, chunks and pages themselves.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from service.preprocess.byte_source import ByteSource
from service.preprocess.chunked_audio import MOST_CHUNKS, is_placeholder, read_chunks

Kind = Literal[
    "wav", "w64", "aiff", "au", "caf", "caf-packed", "flac", "ogg", "ogg-opus", "mp4", "matroska", "asf", "other"
]

_LEAST_MISSING, _MOST_MISSING = 64, 1024
"""Bounds in bytes for what may be missing at the end of a file that counts as whole."""

_LEAST_UNREAD = 64
"""Fewer bytes behind the audio are not worth mentioning."""

_OGG_PAGE = 65_307
"""Most bytes in an Ogg page."""

_BLOCK = 1 << 20
"""Bytes that are searched at a time."""

_MP4_BOXES = frozenset(b"ftyp moov mdat moof mfra free skip wide sidx styp ssix uuid meta pdin prft emsg udta".split())
_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says about itself, compared with what it is.

    Attributes:
        kind: the format.
        truncated: whether the file ends before the end that it declares, or in the middle of a page or a box.
        unread_bytes: behind the audio, where decoders stop; 0 for metadata, tags and zeros.
        index_missing: whether the index is missing without which the audio cannot be found.
        joined: a file with the same audio, to be decoded instead; see `service.preprocess.chunked_audio`.
    """

    kind: Kind
    truncated: bool = False
    unread_bytes: int = 0
    index_missing: bool = False
    joined: ByteSource | None = None


@dataclass(frozen=True, slots=True)
class _Extent:
    """Where the audio should end, None if that is not declared, and where decoders stop, None if they do not."""

    end: int | None = None
    behind: int | None = None
    index_missing: bool = False
    joined: ByteSource | None = None


def read_header(source: ByteSource) -> Header:
    """Detect the format, and compare the declared end with the end of the file. Never raises."""
    kind = _identify(source.at(0, 36))
    # FLAC declares a number of samples, not of bytes, and joined FLAC files are all decoded (`links`).
    extent = _EXTENTS[kind](source) if kind in _EXTENTS else _Extent()
    end = extent.end
    return Header(
        kind,
        truncated=end is not None and end - source.size > _may_be_missing(kind, end),
        unread_bytes=0 if extent.behind is None else _unread_bytes(source, extent.behind),
        index_missing=extent.index_missing,
        joined=extent.joined,
    )


def _may_be_missing(kind: Kind, end: int) -> int:
    """Bytes that may be missing: a 32nd of the file within bounds, since some programs count their header as audio."""
    return _LEAST_MISSING if kind in ("mp4", "matroska") else max(_LEAST_MISSING, min(_MOST_MISSING, end // 32))


def _unread_bytes(source: ByteSource, position: int) -> int:
    """Count the bytes from a position on, unless they are tags or zeros."""
    for _ in range(MOST_CHUNKS):
        tag = source.at(position, 32)
        if tag.startswith(b"TAG"):
            position += 128
        elif tag.startswith(b"ID3") and len(tag) > 10:
            position += _id3_size(tag)
        elif tag.startswith(b"APETAGEX") and len(tag) == 32:
            position += 32 + int(struct.unpack_from("<I", tag, 12)[0])
        else:
            break
    size = source.size - position
    if size < _LEAST_UNREAD:
        return 0
    source.seek(position)
    while block := source.read(_BLOCK):
        if block.count(0) < len(block):
            return size
    return 0


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
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"styp", b"moof"):  # not all begin with a type
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


def _chunked(source: ByteSource) -> _Extent:
    chunks = read_chunks(source)
    return _Extent() if chunks is None else _Extent(chunks.end, chunks.behind, joined=chunks.joined)


def _w64(source: ByteSource) -> _Extent:
    position = 40
    for _ in range(MOST_CHUNKS):
        chunk = source.at(position, 24)
        if len(chunk) < 24:
            break
        size: int = struct.unpack_from("<Q", chunk, 16)[0]
        if chunk.startswith(_W64_DATA):
            return _Extent() if size <= 24 or size >= 1 << 62 else _Extent(position + size)
        position += max(24, size + -size % 8)  # the size includes the header
    return _Extent()


def _au(source: ByteSource) -> _Extent:
    head = source.at(0, 12)
    if len(head) < 12:
        return _Extent()
    offset, size = struct.unpack_from(">II" if head.startswith(b".snd") else "<II", head, 4)
    end = int(offset + size)
    if size == 0 or (is_placeholder(size) and end > source.size):
        return _Extent()
    return _Extent(end, end)


def _caf(source: ByteSource) -> _Extent:
    position, end = 8, None
    for _ in range(MOST_CHUNKS):
        chunk = source.at(position, 12)
        if len(chunk) < 12:
            break
        name, size = struct.unpack(">4sq", chunk)
        if end is not None and (not name.isalnum() or position + 12 + size > source.size):
            break
        if size < 0:  # the audio extends to the end of the file
            return _Extent()
        position += 12 + size
        if name == b"data":
            end = position
    return _Extent() if end is None else _Extent(end, position)


def _ogg(source: ByteSource) -> _Extent:
    """Return where the last page should end. A page that lacks a byte cannot be decoded, so all of it is missing.

    That the last page is not marked as the last means nothing: live recorders do not know which one it will be.
    """
    tail = source.at(max(0, source.size - _OGG_PAGE), _OGG_PAGE)
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if not page.startswith(b"OggS"):
        return _Extent()
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    size = 27 + len(segments) + sum(segments)
    if len(page) <= 26 or len(segments) < page[26] or len(page) < size:
        return _Extent(source.size + _OGG_PAGE)
    if segments.endswith(b"\xff"):  # the last packet continues on a page that is missing
        return _Extent(source.size + _OGG_PAGE)
    return _Extent(source.size, source.size - len(page) + size)


def _mp4(source: ByteSource) -> _Extent:
    """Return where the last top-level box should end, and where a second file begins, which decoders ignore."""
    position = start = 0
    indexed = False
    behind: int | None = None
    for _ in range(MOST_CHUNKS):
        box = source.at(position, 16)
        if len(box) < 8:
            return _Extent(position, behind or position, index_missing=not indexed)
        size: int = struct.unpack_from(">I", box)[0]
        name = box[4:8]
        if size == 1 and len(box) == 16:
            size = struct.unpack_from(">Q", box, 8)[0]
        elif size == 0 and name in _MP4_BOXES:  # up to the end of the file
            return _Extent(index_missing=not indexed and name != b"moov")
        end = position + size
        if size < 8 or (name not in _MP4_BOXES and (end > source.size or not name.isalnum())):
            return _Extent(behind=behind or position, index_missing=not indexed)
        if name == b"ftyp":
            start = position
        elif name == b"moov":
            if indexed and behind is None:
                behind = start or position
            indexed = indexed or end <= source.size
        elif name == b"moof":  # which is decoded with the first index
            behind = None
        elif name == b"meta":  # the index of a picture, which has no audio
            indexed = True
        position = end
        if position >= source.size:
            return _Extent(position, behind, index_missing=not indexed)
    return _Extent()


def _matroska(source: ByteSource) -> _Extent:
    """Return where the segment should end, or the last element of a segment of unknown size."""
    header = _ebml_size(source, 4)
    if header is None:
        return _Extent()
    position, size = header
    position += size
    if source.at(position, 4) != _SEGMENT:
        return _Extent()
    if segment := _ebml_size(source, position + 4):
        end = segment[0] + segment[1]
        # FFmpeg reads a second file as well.
        return _Extent(end, None if source.at(end, 4) == _EBML else end)
    position += 4 + len(_ebml_bytes(source, position + 4))
    for _ in range(MOST_CHUNKS):
        head = source.at(position, 4)
        if len(head) < 4 or head == _EBML or (width := 9 - head[0].bit_length()) > 4:
            break
        element = _ebml_size(source, position + width)
        if element is None:  # also of unknown size
            break
        position = element[0] + element[1]
        if position >= source.size:
            return _Extent(position)
    return _Extent()


def _ebml_bytes(source: ByteSource, position: int) -> bytes:
    """Read the bytes of an EBML size; empty if there are too few."""
    data = source.at(position, 8)
    width = 9 - data[0].bit_length() if data else 9
    return data[:width] if width <= len(data) else b""


def _ebml_size(source: ByteSource, position: int) -> tuple[int, int] | None:
    """Read an EBML size: where the content begins, and its size. None for "unknown", as live recorders write."""
    data = _ebml_bytes(source, position)
    most = (1 << 7 * len(data)) - 1
    value = int.from_bytes(data, "big") & most
    return None if value == most else (position + len(data), value)


def _asf(source: ByteSource) -> _Extent:
    head = source.at(16, 8)
    if len(head) < 8:
        return _Extent()
    position: int = struct.unpack("<Q", head)[0]
    data = source.at(position, 24)
    if len(data) < 24 or not data.startswith(_ASF_DATA):
        return _Extent()
    size: int = struct.unpack_from("<Q", data, 16)[0]
    if size <= 50:
        return _Extent()
    end = position = position + size
    for _ in range(MOST_CHUNKS):  # indexes follow
        data = source.at(position, 24)
        if len(data) < 24 or data.startswith(_ASF_HEADER):
            break
        size = struct.unpack_from("<Q", data, 16)[0]
        if size < 24 or position + size > source.size:
            break
        position += size
    return _Extent(end, position)


def _mp3(source: ByteSource) -> _Extent:
    """Return where an MP3 file with a Xing, Info or VBRI tag should end."""
    start = 0
    if (tag := source.at(0, 10)).startswith(b"ID3") and len(tag) == 10:
        start = _id3_size(tag)
    frame = source.at(start, 192)
    if len(frame) < 192 or frame[0] != 0xFF or frame[1] & 0xE0 != 0xE0:
        return _Extent()
    if frame[36:40] == b"VBRI":
        return _Extent(start + int(struct.unpack_from(">I", frame, 46)[0]))
    # The tag follows the side information, whose size depends on the MPEG version and the number of channels.
    for place in (13, 21, 36):
        if frame[place : place + 4] in (b"Xing", b"Info"):
            flags: int = struct.unpack_from(">I", frame, place + 4)[0]
            if not flags & 2:
                return _Extent()
            return _Extent(start + int(struct.unpack_from(">I", frame, place + 8 + 4 * (flags & 1))[0]))
    return _Extent()


def _id3_size(tag: bytes) -> int:
    """Bytes of an ID3 tag that begins with these ten."""
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=True))


_EXTENTS: dict[Kind, Callable[[ByteSource], _Extent]] = {
    "wav": _chunked,
    "w64": _w64,
    "aiff": _chunked,
    "au": _au,
    "caf": _caf,
    "caf-packed": _caf,
    "ogg": _ogg,
    "ogg-opus": _ogg,
    "mp4": _mp4,
    "matroska": _matroska,
    "asf": _asf,
    "other": _mp3,
}
