"""Find the links of a chained file: several Ogg or FLAC streams, one behind the other.

Radio recorders begin a new link with each title, and people join files with `cat`. libsndfile decodes only the first
link. FFmpeg reads on, but it keeps the first link's parameters and does not trim the end of a link. So each link is
decoded as a file of its own.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from service.errors import NotDecodable
from service.preprocess.byte_source import ByteSource

MOST_LINKS = 1000
"""Most links of a file. Opening a decoder for each takes a millisecond."""

_MOST_PAGES = 1 << 15
"""Most Ogg pages that the service reads itself, in 0.3 to 0.6 s. Six hours of Vorbis have so many, at 4 KiB each. The
child that decodes reads all of them, but has a time limit."""

_HEADER = 282
"""Most bytes of a page's header: 27, and a table of up to 255 sizes."""

_SEARCHED = 1 << 20
"""Bytes that are searched at once."""

_FLAC = b"fLaC\x00\x00\x00\x22"
"""How a FLAC stream begins: its mark, and the header of a block of 34 bytes."""


@dataclass(frozen=True, slots=True)
class _Page:
    """An Ogg page.

    Attributes:
        position: in the file, in bytes.
        first: whether it is the first page of a stream.
        granule: samples of the stream up to the end of the page; negative if no packet ends in it.
        serial: of the stream.
        packets: how many packets end in it.
        longest: samples that a packet of the Vorbis stream that begins here adds at most; 0 on other pages.
    """

    position: int
    first: bool
    granule: int
    serial: int
    packets: int
    longest: int


def is_plain(source: ByteSource) -> bool:
    """Return whether an Ogg or FLAC file is known to be one link without a gap in its clock.

    It is also False if finding out would take too long.
    """
    if source.at(0, 4) != b"OggS":
        return len(list(itertools.islice(_flac_begins(source), 2))) < 2
    pages = list(itertools.islice(_pages(source), _MOST_PAGES))
    if len(pages) == _MOST_PAGES or len(list(itertools.islice(_link_begins(pages), 2))) > 1:
        return False
    return not _vorbis_gap(pages)


def find_links(source: ByteSource) -> list[tuple[int, int]]:
    """Return where each link begins and ends, in bytes; the whole file if its format knows no links.

    Raises:
        NotDecodable: there are more than `MOST_LINKS`.
    """
    mark = source.at(0, 4)
    begins: Iterator[int] = iter([0])
    if mark == b"OggS":
        begins = _link_begins(_pages(source))
    elif mark == _FLAC[:4]:
        begins = _flac_begins(source)
    first = list(itertools.islice(begins, MOST_LINKS + 1))
    if len(first) > MOST_LINKS:
        raise NotDecodable(f"The file is a chain of more than {MOST_LINKS} streams.")
    return list(itertools.pairwise([0, *first[1:], source.size]))


def _link_begins(pages: Iterable[_Page | None]) -> Iterator[int]:
    """Where links begin. A link begins with the first pages of all its streams."""
    inside = False
    for page in pages:
        if page is not None:
            if page.first and not inside:
                yield page.position
            inside = page.first


def _pages(source: ByteSource) -> Iterator[_Page | None]:
    """The pages of an Ogg file; None for up to `_SEARCHED` bytes that are not a page."""
    position = 0
    while len(head := source.at(position, _HEADER)) >= 27:
        if head.startswith(b"OggS"):
            flags, granule, serial = struct.unpack_from("<BqI", head, 5)
            sizes = head[27 : 27 + head[26]]
            packets = len(sizes) - sizes.count(255)
            longest = 0
            if head[28:35] == b"\x01vorbis" and len(head) > 56:
                longest = (1 << (head[56] >> 4)) // 2  # half of the longest block
            yield _Page(position, bool(flags & 2), granule, serial, packets, longest)
            position += 27 + len(sizes) + sum(sizes)
        else:
            found = source.at(position, _SEARCHED).find(b"OggS", 1)
            position += found if found > 0 else _SEARCHED - 3
            yield None


def _vorbis_gap(pages: list[_Page | None]) -> bool:
    """Whether a Vorbis stream has pages whose samples cannot reach from the page before to their own position.

    What is missing in a damaged file is no gap: libsndfile reports the damage.
    """
    whole = [page for page in pages if page is not None]
    first = next((page for page in whole if page.longest), None)
    if len(whole) < len(pages) or first is None:
        return False
    granule = None
    for page in whole:
        if page.serial == first.serial and page.granule > 0:
            if granule is not None and page.granule - granule > page.packets * first.longest:
                return True
            granule = page.granule
    return False


def _flac_begins(source: ByteSource) -> Iterator[int]:
    """Where FLAC streams begin."""
    position = 0
    while len(data := source.at(position, _SEARCHED)) >= len(_FLAC):
        found = data.find(_FLAC)
        while found >= 0:
            yield position + found
            found = data.find(_FLAC, found + 1)
        position += _SEARCHED - len(_FLAC) + 1
