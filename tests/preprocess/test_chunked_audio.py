"""WAV and AIFF files whose chunks are irregular, and several files in one."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import numpy as np
import pytest

from service.preprocess.byte_source import ByteSource
from service.preprocess.chunked_audio import JoinedFile, read_chunks
from service.preprocess.decode import decode
from tests.audio_samples import FORMATS, encode, speech

JOINABLE = ["wavex", "rf64", "aiff", *(name for name in FORMATS if name.startswith("wav-"))]
RIFF_ORDER = {"wav-s16": "<", "aiff": ">"}


def made(name: str, clip: int = 0) -> bytes:
    rate = 8_000 if FORMATS[name].rates == (8_000,) else 16_000
    return encode(name, speech(rate, clip=clip), rate)


def with_chunk(name: str, chunk: bytes, size: int, pad: bytes) -> bytes:
    """A file with one more chunk before its samples."""
    data = made(name)
    place = data.index(b"data" if name == "wav-s16" else b"SSND")
    added = chunk + struct.pack(f"{RIFF_ORDER[name]}I", size) + b"x" * size + pad
    return data[:place] + added + data[place:]


@pytest.mark.parametrize("name", RIFF_ORDER)
@pytest.mark.parametrize("chunk", [b"LIST", b"NAME", b"zzzz", b"id3 "])
@pytest.mark.parametrize("size", [1, 13, 12])
@pytest.mark.parametrize("pad", [b"", b"\0", b" "])
def test_chunks_with_and_without_a_pad_byte(name: str, chunk: bytes, size: int, pad: bytes) -> None:
    if size % 2 == 0:
        pad = b""
    data = with_chunk(name, chunk, size, pad)
    waveform = decode(data, max_duration=10)
    assert np.array_equal(waveform.samples, decode(made(name), max_duration=10).samples)
    assert (waveform.truncated, waveform.unread_bytes) == (False, 0)


@pytest.mark.parametrize("name", RIFF_ORDER)
def test_two_chunks_without_pad_bytes(name: str) -> None:
    data = with_chunk(name, b"NAME", 5, b"")
    place = data.index(b"NAME")
    data = data[:place] + data[place : place + 13] + data[place:]
    assert decode(data, max_duration=10).duration == decode(made(name), max_duration=10).duration


def test_an_odd_number_of_samples_before_another_chunk() -> None:
    data = encode("wav-u8", speech(seconds=0.5)[:, :7_999], 16_000)
    data = data[: 44 + 7_999]
    for pad in (b"", b"\0"):
        waveform = decode(data + pad + b"LIST" + struct.pack("<I", 200) + b"INFO" + b"x" * 196, max_duration=10)
        assert (waveform.samples.shape[1], waveform.unread_bytes) == (7_999, 0)


@pytest.mark.parametrize("name", JOINABLE)
def test_files_one_after_the_other(name: str) -> None:
    files = [made(name), made(name, clip=1), made(name, clip=2)]
    parts = [decode(file, max_duration=10) for file in files]
    waveform = decode(b"".join(files), max_duration=30)
    assert (waveform.truncated, waveform.unread_bytes) == (False, 0)
    expected = np.concatenate([part.samples for part in parts], axis=1)
    if "adpcm" not in name and name not in ("wav-gsm", "wav-g726"):  # which depend on the samples before
        assert np.array_equal(waveform.samples, expected)
    assert waveform.samples.shape[1] == pytest.approx(expected.shape[1], abs=700)


@pytest.mark.parametrize("name", ["wav-s16", "aiff"])
def test_the_last_of_several_files_ends_early(name: str) -> None:
    file = made(name)
    waveform = decode((file + file)[:-8_000], max_duration=30)
    assert waveform.truncated
    assert waveform.samples.shape[1] == 2 * decode(file, max_duration=10).samples.shape[1] - 4_000


@pytest.mark.parametrize("name", ["wav-s16", "aiff"])
def test_a_file_of_another_format_is_unread(name: str) -> None:
    file, other = made(name), encode(name, speech(8_000), 8_000)
    waveform = decode(file + other, max_duration=30)
    assert waveform.duration == decode(file, max_duration=10).duration
    assert waveform.unread_bytes == len(other)


def test_big_endian_wav() -> None:
    def riffx(samples: bytes) -> bytes:
        chunks = b"fmt " + struct.pack(">IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
        chunks += b"data" + struct.pack(">I", len(samples)) + samples
        return b"RIFX" + struct.pack(">I", 4 + len(chunks)) + b"WAVE" + chunks

    samples = (speech()[0] * 32767).astype(">i2").tobytes()
    once, twice = (decode(riffx(samples) * times, max_duration=10).samples for times in (1, 2))
    assert np.array_equal(twice, np.tile(once, 2))


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_alaw"])
def test_compressed_aiff(codec: str) -> None:
    """Its header names the codec, and counts samples."""
    import soundfile

    file = io.BytesIO()
    subtype, endian = ("PCM_16", "LITTLE") if codec == "pcm_s16le" else ("ALAW", "FILE")
    soundfile.write(file, speech()[0], 16_000, format="AIFF", subtype=subtype, endian=endian)
    data = file.getvalue()
    assert data[8:12] == b"AIFC"
    once, twice = (decode(data * times, max_duration=10).samples for times in (1, 2))
    assert np.array_equal(twice, np.tile(once, 2))


def test_thousands_of_files_are_not_all_read() -> None:
    """The rest is said to be unread, and nothing takes long."""
    tiny = encode("wav-s16", np.full((1, 100), 0.5, np.float32), 16_000)
    waveform = decode(tiny * 3_000, max_duration=60)
    frames = waveform.samples.shape[1]
    assert 100_000 < frames < 300_000
    assert waveform.unread_bytes == len(tiny) * (3_000 - frames // 100)


def test_files_without_audio() -> None:
    for data in (
        b"",
        b"RIFF\0\0\0\0WAVE",
        b"RIFF\0\0\0\0WAVEdata\1\0\0\0x",
        b"FORM\0\0\0\0AIFFSSND\0\0\0\x20" + bytes(32),
    ):
        assert read_chunks(ByteSource(data)) is None


def test_a_joined_file_is_read_from_any_position() -> None:
    data = bytes(range(200))
    joined = io.BufferedReader(JoinedFile(ByteSource(data), b"head", [(10, 5), (100, 0), (50, 20)]), 7)
    expected = b"head" + data[10:15] + data[50:70]

    def pieces(size: int) -> Iterator[bytes]:
        joined.seek(0)
        while piece := joined.read(size):
            yield piece

    for size in (1, 3, 8, 100):
        assert b"".join(pieces(size)) == expected
    assert joined.seek(0, io.SEEK_END) == len(expected)
    joined.seek(-7, io.SEEK_CUR)
    assert joined.read() == expected[-7:]
    joined.seek(1000)
    assert joined.read() == b""
