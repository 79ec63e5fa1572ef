"""Detecting the format, and files that are shorter than their headers declare."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.preprocess.byte_source import ByteSource
from service.preprocess.declared_length import Header, Kind, read_header
from tests.audio_samples import FORMATS, encode, speech

KINDS: dict[str, Kind] = {
    "wav-s16": "wav",
    "wavex": "wav",
    "rf64": "wav",
    "w64": "w64",
    "aiff": "aiff",
    "au": "au",
    "caf": "caf",
    "caf-alac": "caf-packed",
    "flac": "flac",
    "ogg-vorbis": "ogg",
    "ogg-opus": "ogg-opus",
    "m4a": "mp4",
    "3gp": "mp4",
    "webm": "matroska",
    "wma": "asf",
    "mp3": "other",
    "aac": "other",
    "gsm": "other",
    "mpegts": "other",
}
# FLAC declares samples, not bytes; the others declare nothing.
UNDECLARED = ("flac", "aac", "gsm", "mpegts")


def header_of(data: bytes | bytearray) -> Header:
    return read_header(ByteSource(data))


def made(name: str) -> bytearray:
    rate = 8_000 if FORMATS[name].rates == (8_000,) else 16_000
    return bytearray(encode(name, speech(rate), rate))


@pytest.mark.parametrize("name", KINDS)
def test_kind(name: str) -> None:
    assert header_of(made(name)) == Header(KINDS[name], truncated=False)


@pytest.mark.parametrize("name", sorted(set(KINDS) - set(UNDECLARED)))
def test_truncated_files(name: str) -> None:
    data = made(name)
    assert header_of(data[: len(data) // 2]).truncated
    assert header_of(data[: len(data) * 9 // 10]).truncated


@pytest.mark.parametrize("name", sorted(set(KINDS) - set(UNDECLARED)))
def test_data_after_the_audio_is_ignored(name: str) -> None:
    assert not header_of(made(name) + b"TAG" + bytes(125)).truncated


@pytest.mark.parametrize("name", ["wav-s16", "aiff", "au", "m4a", "webm", "mp3"])
def test_a_few_missing_bytes_are_accepted(name: str) -> None:
    """Some programs count their own header as audio."""
    assert not header_of(made(name)[:-44]).truncated


@pytest.mark.parametrize("size", [200_000, 10**9 + 5_000, 1_234_567_890, 0x7FFD0000])
@pytest.mark.parametrize(("name", "tag", "order"), [("wav-s16", b"data", "<"), ("aiff", b"SSND", ">")])
def test_other_sizes_are_declared(name: str, tag: bytes, order: str, size: int) -> None:
    data = made(name)
    struct.pack_into(f"{order}I", data, data.index(tag) + 4, size)
    assert header_of(data).truncated


@pytest.mark.parametrize("name", ["au", "caf", "m4a", "wma"])
def test_a_second_file_is_unread(name: str) -> None:
    data = made(name)
    assert header_of(data + data).unread_bytes == len(data)


@pytest.mark.parametrize("name", sorted(set(KINDS) - {"w64", *UNDECLARED}))
@pytest.mark.parametrize("behind", [b"", b"TAG" + bytes(range(125)), bytes(5_000), b"\r\n"])
def test_tags_and_zeros_are_not_unread_audio(name: str, behind: bytes) -> None:
    assert header_of(made(name) + behind).unread_bytes == 0


@pytest.mark.parametrize(
    ("tag", "size"),
    [
        (b"ID3\3\0\0\0\0\1\x7f", 10 + 255),
        (b"APETAGEX" + struct.pack("<IIII8x", 2000, 300, 1, 0xA0000000), 32 + 300),
        (b"TAG", 128),
    ],
)
def test_what_follows_a_tag_is_unread(tag: bytes, size: int) -> None:
    data = made("wav-s16") + tag.ljust(size, b"\1")
    assert header_of(data).unread_bytes == 0
    assert header_of(data + b"\1" * 1000).unread_bytes == 1000


def test_the_first_buffer_alone_is_declared() -> None:
    """A recorder that stopped before it could correct its header."""
    data = made("wav-s16")
    struct.pack_into("<I", data, data.index(b"data") + 4, 4096)
    assert header_of(data).unread_bytes == len(data) - 44 - 4096


def test_fragments_are_read_with_the_first_index() -> None:
    box = struct.Struct(">I4s")
    mp4 = b"".join(box.pack(size + 8, name) + bytes(size) for size, name in ((16, b"ftyp"), (99, b"moov")))
    fragment = box.pack(108, b"moof") + bytes(100) + box.pack(1008, b"mdat") + bytes(1000)
    assert header_of(mp4 + fragment + mp4 + fragment) == Header("mp4")
    assert header_of(mp4 + fragment + mp4[:24] + mp4[24:] + box.pack(1008, b"mdat") + b"\1" * 1000).unread_bytes > 1000
    assert header_of(mp4 + fragment + fragment[:900]).truncated


def test_quicktime_without_a_type_and_fragments_alone() -> None:
    mov = made("mov")
    untyped = mov[int.from_bytes(mov[:4], "big") :]
    assert header_of(untyped) == Header("mp4")
    assert header_of(untyped[: len(untyped) // 2]).truncated
    assert header_of(b"\0\0\0\x08moof\0\0\0\x10mdat" + bytes(8)).index_missing


def test_an_mp4_without_index() -> None:
    data = made("m4a")
    assert not header_of(data).index_missing
    assert header_of(data[:-2000]).index_missing
    struct.pack_into(">I", data, data.index(b"mdat") - 4, 0)
    assert header_of(data[: data.index(b"moov") - 4]).index_missing


def test_a_picture_is_no_audio_without_index() -> None:
    box = struct.Struct(">I4s4x")
    heic = box.pack(12, b"ftyp") + box.pack(12, b"meta") + box.pack(12, b"mdat")
    assert not header_of(heic + bytes(20)).index_missing


def test_an_ogg_packet_that_continues_on_a_missing_page() -> None:
    page = b"OggS" + bytes(22) + b"\2" + b"\xff\xff" + bytes(510)
    assert header_of(made("ogg-opus") + page).truncated


def test_an_ogg_page_that_lacks_a_byte_is_missing() -> None:
    data = made("ogg-opus")
    assert header_of(data[:-1]).truncated
    last = data.rindex(b"OggS")
    assert header_of(data[: last + 10]).truncated
    assert not header_of(data[:last]).truncated  # a live recording without a last page


@pytest.mark.parametrize(
    "size", [0, 10**9, 2 * 10**9, 2 * 10**9 - 36, 1 << 30, 0x7FFE0000, 0x7FFFF000, 0x7FFFFFFF, 0x80000024, 0xFFFFFFFF]
)
@pytest.mark.parametrize(("name", "tag", "order"), [("wav-s16", b"data", "<"), ("aiff", b"SSND", ">")])
def test_sizes_that_mean_unknown(name: str, tag: bytes, order: str, size: int) -> None:
    data = made(name)
    struct.pack_into(f"{order}I", data, data.index(tag) + 4, size)
    assert not header_of(data).truncated


def test_unknown_sizes_of_other_formats() -> None:
    au = made("au")
    struct.pack_into(">I", au, 8, 0xFFFFFFFF)
    caf = made("caf")
    struct.pack_into(">q", caf, caf.index(b"data") + 4, -1)
    webm = made("webm")
    place = webm.index(b"\x18\x53\x80\x67") + 4
    webm[place : place + 8] = b"\x01" + b"\xff" * 7
    mp4 = made("m4a")
    struct.pack_into(">I", mp4, mp4.index(b"mdat") - 4, 0)
    rf64 = made("rf64")
    struct.pack_into("<QQ", rf64, rf64.index(b"ds64") + 8, 0, 0)
    for data in (au, caf, webm, mp4, rf64):
        assert not header_of(data).truncated
    for data in (au, caf, mp4, rf64):
        assert not header_of(data[: len(data) // 2]).truncated
    assert header_of(webm[: len(webm) // 2]).truncated  # in a cluster, which declares its size


def test_big_endian_wav() -> None:
    samples = bytes(3200)
    chunks = b"fmt " + struct.pack(">IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16) + b"data" + struct.pack(">I", 3200)
    data = b"RIFX" + struct.pack(">I", 4 + len(chunks) + 3200) + b"WAVE" + chunks + samples
    assert header_of(data) == Header("wav", truncated=False)
    assert header_of(data[:2000]).truncated


def test_mp4_with_a_long_size() -> None:
    mp4 = b"\0\0\0\x10ftypM4A \0\0\0\0" + struct.pack(">I4sQ", 1, b"mdat", 5016)
    assert not header_of(mp4 + bytes(5000)).truncated
    assert header_of(mp4 + bytes(3000)).truncated


@pytest.mark.parametrize("place", [13, 21, 36])
def test_mp3_tags(place: int) -> None:
    """The position of the tag depends on version and channels; a tag without a size declares nothing."""
    frame = bytearray(b"\xff\xfb\x90\x00" + bytes(400))
    struct.pack_into(">4sIII", frame, place, b"Info", 3, 100, 50_000)
    data = b"ID3\3\0\0\0\0\1\0" + bytes(128) + frame
    assert header_of(data + bytes(10_000)).truncated
    assert not header_of(data + bytes(50_000)).truncated
    struct.pack_into(">4sII", frame, place, b"Xing", 1, 100)
    assert not header_of(frame + bytes(10_000)).truncated


def test_mp3_with_vbri() -> None:
    frame = bytearray(b"\xff\xfb\x90\x00" + bytes(400))
    struct.pack_into(">4sHHHII", frame, 36, b"VBRI", 1, 0, 75, 50_000, 100)
    assert header_of(frame + bytes(10_000)).truncated
    assert not header_of(frame + bytes(50_000)).truncated


@pytest.mark.parametrize(
    "start",
    [
        b"RIFF\0\0\0\0WAVE",
        b"FORM\0\0\0\0AIFF",
        b"caff\0\1\0\0",
        b"\0\0\0\x08ftyp",
        b"OggS",
        b"\x1a\x45\xdf\xa3",
        b"ID3",
        b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0",
        b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + bytes(16) + b"data",
        b"FORM\0\0\0\0AIFFCOMM\0\0\0\x12" + bytes(18) + b"SSND",
        b"\0\0\0\x08ftyp\0\0\0\x08moov\0\0\0\x08moov",
        b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\xff",
        b"fLaC\0\0\0\x22" + bytes(13) + b"\1",
        b".snd",
    ],
)
@given(rest=st.binary(max_size=80))
def test_never_raises(start: bytes, rest: bytes) -> None:
    header_of(start + rest)
    header_of(rest)


def test_millions_of_empty_chunks_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0
    at = ByteSource.at

    def counted(source: ByteSource, position: int, size: int) -> bytes:
        nonlocal reads
        reads += 1
        return at(source, position, size)

    monkeypatch.setattr(ByteSource, "at", counted)
    header_of(b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 100_000)
    header_of(b"\0\0\0\x08ftyp" + b"\0\0\0\x08free" * 100_000)
    assert reads < 10_000
