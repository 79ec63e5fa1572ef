"""Chained Ogg and FLAC files."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
import soundfile

from service.errors import NotDecodable
from service.preprocess import links
from service.preprocess.byte_source import ByteSource
from service.preprocess.decode import decode
from service.preprocess.links import find_links, is_plain
from service.results import Floats
from tests.audio_samples import FORMATS, encode, speech
from tests.preprocess.containers import ogg_pages, with_ogg_gap

CHAINS = ["ogg-vorbis", "ogg-opus", "ogg-flac", "flac"]


def samples(data: bytes) -> Floats:
    return decode(data, max_duration=60).samples


@pytest.mark.parametrize("name", CHAINS)
def test_all_links_are_decoded(name: str) -> None:
    files = [encode(name, speech(48_000, clip=clip), 48_000) for clip in (0, 1, 0)]
    found = samples(b"".join(files))
    expected = np.concatenate([samples(file) for file in files], axis=1)
    assert found.shape == expected.shape
    # A single Vorbis file is decoded with libsndfile, and a chain with FFmpeg.
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize("name", CHAINS)
def test_the_same_file_twice(name: str) -> None:
    """Both links have the same serial number, and the last page declares the length of one."""
    file = encode(name, speech(48_000), 48_000)
    assert samples(file * 2).shape[1] == 2 * samples(file).shape[1]


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("order", [(0, 1, 0), (1, 0, 1)])
def test_rate_and_channels_may_change_between_links(name: str, order: tuple[int, ...]) -> None:
    rate = 24_000 if name == "ogg-opus" else 16_000
    kinds = [encode(name, speech(48_000), 48_000), encode(name, speech(rate, 2), rate)]
    waveform = decode(b"".join(kinds[kind] for kind in order), max_duration=60)
    first = decode(kinds[order[0]], max_duration=60)
    assert (waveform.sampling_rate, waveform.channels) == (first.sampling_rate, first.channels)
    lengths = [decode(kinds[kind], max_duration=60).duration for kind in order]
    assert waveform.duration == pytest.approx(sum(lengths), abs=1e-3)


def test_links_of_different_codecs() -> None:
    names = ("ogg-vorbis", "ogg-opus", "ogg-flac")
    files = [encode(name, speech(16_000), 16_000) for name in names]
    waveform = decode(b"".join(files), max_duration=60)
    assert waveform.sampling_rate == 16_000
    assert waveform.duration == pytest.approx(3 * speech().shape[1] / 16_000, abs=1e-3)


def test_sample_format_and_many_channels_change() -> None:
    def flac(channels: int, subtype: str) -> bytes:
        file = io.BytesIO()
        soundfile.write(file, np.tile(speech().T, (1, channels)), 16_000, format="FLAC", subtype=subtype)
        return file.getvalue()

    found = samples(flac(8, "PCM_16") + flac(1, "PCM_24") + flac(8, "PCM_16"))
    assert np.abs(found - np.tile(speech(), (8, 3))).max() < 2**-14


def test_bytes_between_links_are_skipped() -> None:
    file = encode("ogg-vorbis", speech(), 16_000)
    assert samples(file + b"x" * 100 + file).shape[1] == 2 * speech().shape[1]


@pytest.mark.parametrize("name", ["ogg-vorbis", "ogg-opus", "ogg-flac"])
def test_a_chain_may_end_in_the_headers_of_a_link(name: str) -> None:
    file = encode(name, speech(48_000), 48_000)
    expected = samples(file).shape[1]
    headers = list(ogg_pages(file))[:2]
    assert samples(file + headers[0]).shape[1] == expected
    assert samples(file + headers[0] + headers[1]).shape[1] == expected


def test_a_link_that_cannot_be_decoded_is_not_left_out() -> None:
    file = encode("ogg-vorbis", speech(), 16_000)
    unknown = with_ogg_gap(file.replace(b"\x01vorbis", b"unknown"), 0, 0)  # with the right checksum
    with pytest.raises(NotDecodable):
        samples(file + unknown + file)


@pytest.mark.parametrize("name", [name for name in FORMATS if name.startswith(("ogg", "flac"))])
def test_single_files_are_plain(name: str) -> None:
    rate = 16_000
    pause = np.zeros((1, 10 * rate), np.float32)
    source = ByteSource(encode(name, np.concatenate([speech(rate), pause, speech(rate)], axis=1), rate))
    assert is_plain(source)
    assert find_links(source) == [(0, source.size)]


def test_links_lie_behind_one_another() -> None:
    files = [encode(name, speech(), 16_000) for name in ("ogg-opus", "ogg-vorbis", "ogg-opus")]
    source = ByteSource(b"".join(files))
    begins = [0, len(files[0]), len(files[0]) + len(files[1]), source.size]
    assert find_links(source) == list(pairwise(begins))
    assert not is_plain(source)


def test_number_of_links_is_limited() -> None:
    first, second = list(ogg_pages(encode("ogg-opus", speech(), 16_000)))[:2]
    with pytest.raises(NotDecodable, match="more than 1000"):
        decode(bytes(first + second) * (links.MOST_LINKS + 1), max_duration=60)


def test_a_file_of_too_many_pages_is_not_known_to_be_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    file = encode("ogg-vorbis", speech(), 16_000)
    monkeypatch.setattr(links, "_MOST_PAGES", 3)
    assert not is_plain(ByteSource(file))
    assert np.abs(samples(file) - soundfile.read(io.BytesIO(file), dtype="float32")[0]).max() < 1e-4


@pytest.mark.parametrize("name", ["ogg-vorbis", "ogg-opus", "ogg-flac"])
def test_gap_between_pages(name: str) -> None:
    file = encode(name, np.concatenate([speech(48_000)] * 3, axis=1), 48_000)
    found = samples(with_ogg_gap(file, 4, 5 * 48_000))
    without = samples(file)
    assert found.shape[1] == without.shape[1] + 5 * 48_000
    silent = np.flatnonzero(np.abs(found[0]) > 0)
    assert np.diff(silent).max() >= 5 * 48_000


@pytest.mark.parametrize("name", ["ogg-vorbis", "ogg-opus", "ogg-flac"])
def test_a_recording_that_begins_late_on_its_clock(name: str) -> None:
    """Somebody joined a live stream."""
    file = encode(name, speech(48_000), 48_000)
    assert np.array_equal(samples(with_ogg_gap(file, 0, 500 * 48_000)), samples(file))
