"""Gaps and late starts on a container's clock."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from av.audio.frame import AudioFrame

from service.errors import AudioTooLong
from service.preprocess.decode import decode
from service.preprocess.ffmpeg.clock import clock_of
from service.preprocess.reader import open_reader
from service.results import Floats, Waveform
from tests.preprocess.containers import Track, mux

RATE = 48_000
NOISE: Floats = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 2 * RATE)).astype(np.float32)
YEARS = 10 * 365 * 86_400.0
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "200000"}

CLOCKS = [
    ("webm", "libopus", {}),
    ("matroska", "aac", {}),
    ("matroska", "flac", {}),
    ("mp4", "aac", {}),
    ("mp4", "aac", FRAGMENTS),
    ("3gp", "aac", {}),
    ("mpegts", "aac", {}),
    ("mpegts", "mp2", {}),
    ("ogg", "libopus", {}),
    ("ogg", "flac", {}),
]
LIVE = [case for case in CLOCKS if case[0] in ("webm", "matroska", "mpegts") or case[2] == FRAGMENTS]
"""Without Ogg, whose muxer stamps the first page itself (see `test_links`), and MP4, where it is an edit list."""
WITH_VIDEO = [(container, codec) for container, codec, _ in CLOCKS if container not in ("webm", "ogg", "3gp")]


def read(
    container: str,
    codec: str,
    *stamps: tuple[float, float],
    video_at: float | None = None,
    options: dict[str, str] | None = None,
) -> Waveform:
    track = Track(NOISE, RATE, codec, stamps)
    return decode(mux(container, track, video_at=video_at, options=options), max_duration=60)


def silences(waveform: Waveform) -> list[tuple[float, float]]:
    """Begin and end of the stretches of zeros of at least 0.1 s."""
    loud = np.flatnonzero(np.pad(np.abs(waveform.samples[0]), 1, constant_values=1))
    long = np.flatnonzero(np.diff(loud) > 0.1 * waveform.sampling_rate)
    return [(loud[at] / waveform.sampling_rate, loud[at + 1] / waveform.sampling_rate) for at in long]


@pytest.mark.parametrize(("container", "codec", "options"), CLOCKS)
def test_a_gap_is_silence(container: str, codec: str, options: dict[str, str]) -> None:
    without = read(container, codec, options=options)
    waveform = read(container, codec, (1, 5), options=options)
    assert waveform.duration == pytest.approx(without.duration + 5, abs=0.002)
    ((begin, end),) = silences(waveform)
    assert begin == pytest.approx(1, abs=0.16)  # a packet begins there
    assert end - begin == pytest.approx(5, abs=0.002)


@pytest.mark.parametrize(("container", "codec"), WITH_VIDEO)
def test_a_late_start_is_silence(container: str, codec: str) -> None:
    without = read(container, codec, video_at=0)
    waveform = read(container, codec, (0, 4), video_at=0)
    assert waveform.duration == pytest.approx(without.duration + 4, abs=0.06)
    ((begin, end),) = silences(waveform)
    assert (begin, end) == pytest.approx((0, 4), abs=0.06)


@pytest.mark.parametrize(("container", "codec"), WITH_VIDEO)
def test_a_start_that_is_hardly_late_changes_nothing(container: str, codec: str) -> None:
    without = read(container, codec, video_at=0)
    waveform = read(container, codec, (0, 0.1), video_at=0)
    assert not silences(waveform)
    assert waveform.duration == pytest.approx(without.duration, abs=0.03)  # MP4 does not trim a late encoder's priming


@pytest.mark.parametrize(("container", "codec", "options"), LIVE)
@pytest.mark.parametrize("begin", [1000.0, 1.7e9])
def test_a_clock_may_begin_anywhere(container: str, codec: str, options: dict[str, str], begin: float) -> None:
    without = read(container, codec, options=options)
    assert np.array_equal(read(container, codec, (0, begin), options=options).samples, without.samples)


def filled(stamps: list[float | None], container: str = "matroska,webm", start: int | None = 0) -> list[float]:
    """The silence before each of the frames of 20 ms that are stamped so, in seconds."""
    clock = clock_of(container, start)
    assert clock is not None
    return [round(clock.missing(frame(stamp)), 6) for stamp in stamps]


def frame(stamp: float | None) -> AudioFrame:
    result = AudioFrame("flt", "mono", 960)
    result.sample_rate = RATE
    result.time_base = Fraction(1, 1000)
    result.pts = None if stamp is None else round(stamp * 1000)
    return result


@pytest.mark.parametrize(
    "stamps",
    [
        pytest.param([0, 0.02, 0.04, 0.06], id="as they should be"),
        pytest.param([0, 0.02, 0.19, 0.06, 0.25, 0.10], id="jitter"),
        pytest.param([0, 0.02, -1000, -999.98], id="set back"),
        pytest.param([0, 0.01, 0.01, 0.01, 0.01], id="overlapping"),
        pytest.param([0, None, None, 0.06], id="without timestamps"),
        pytest.param([None, 5, 5.02, 5.04], id="beginning without a timestamp"),
        pytest.param([0.19, 0.21, 0.39], id="hardly late"),
        pytest.param([at * 0.0285 for at in range(1000)], id="a clock that runs faster"),
        pytest.param([at * 0.0105 for at in range(1000)], id="a clock that runs slower"),
    ],
)
def test_no_gaps(stamps: list[float | None]) -> None:
    start = None if stamps[0] is None else 0
    assert filled(stamps, start=start) == [0] * len(stamps)


@pytest.mark.parametrize(
    ("stamps", "silence"),
    [
        pytest.param([0, 1.02, 1.04], [0, 1, 0], id="a gap"),
        pytest.param([4, 4.02], [4, 0], id="a late start"),
        pytest.param([0.1, 1.12, 1.14], [0, 1, 0], id="a gap after a start that is hardly late"),
        pytest.param([0, 0.12, 0.24, 0.36], [0, 0, 0, 0.3], id="lost packets"),
        pytest.param([0, None, 1.04], [0, 0, 1], id="after a frame without a timestamp"),
        pytest.param([0, 0.02, -5, -4.98, -1.96, -1.94], [0, 0, 0, 0, 3, 0], id="a gap after the clock was set back"),
        pytest.param([0, 3600 * 24 * 365], [0, 3600 * 24 * 365 - 0.02], id="a year"),
    ],
)
def test_gaps(stamps: list[float | None], silence: list[float]) -> None:
    assert filled(stamps) == pytest.approx(silence, abs=1e-3)


def test_the_first_frame_begins_an_unknown_clock() -> None:
    assert filled([1000, 1000.02, 1001.04], start=None) == pytest.approx([0, 0, 1])


def test_short_gaps_of_asf_and_long_ones_of_mpegts_are_none() -> None:
    assert filled([0, 0.9, 0.92, 2.9], "asf") == pytest.approx([0, 0, 0, 2.84])
    assert filled([0, 10, 20.04, 20.06], "mpegts") == pytest.approx([0, 9.98, 0, 0])


@pytest.mark.parametrize("begin", [95_441.0, 95_442.5])
def test_the_timestamps_of_mpegts_wrap(begin: float) -> None:
    without = read("mpegts", "aac", video_at=0)
    assert np.array_equal(read("mpegts", "aac", (0, begin), video_at=begin).samples, without.samples)


def test_the_clock_of_mpegts_may_be_set_anew() -> None:
    without = read("mpegts", "aac")
    assert np.array_equal(read("mpegts", "aac", (1, 5000)).samples, without.samples)
    file = mux("mpegts", Track(NOISE, RATE, "aac"))
    assert decode(file + file, max_duration=60).samples.shape[1] == 2 * without.samples.shape[1]


@pytest.mark.parametrize(("container", "codec"), [("mp3", "libmp3lame"), ("adts", "aac")])
def test_formats_without_a_clock(container: str, codec: str) -> None:
    assert np.array_equal(read(container, codec, (1, 5)).samples, read(container, codec).samples)


@pytest.mark.parametrize(("container", "codec"), [("webm", "libopus"), ("ogg", "flac"), ("matroska", "aac")])
@pytest.mark.parametrize("stamps", [(1.0, YEARS), (1.0, 70.0)])
def test_silence_counts_against_the_limit(container: str, codec: str, stamps: tuple[float, float]) -> None:
    with pytest.raises(AudioTooLong, match="longer than 60 s"):
        read(container, codec, stamps)


def test_a_start_that_is_years_late_is_too_long() -> None:
    with pytest.raises(AudioTooLong):
        read("matroska", "aac", (0, YEARS), video_at=0)


def test_silence_in_memory_is_limited() -> None:
    file = mux("webm", Track(NOISE, RATE, "libopus", ((1, 86_400.0),)))
    with pytest.raises(AudioTooLong, match=r"at most 1\.4e"):
        decode(file, max_duration=1e6)


def test_a_long_gap_comes_in_blocks() -> None:
    file = mux("webm", Track(NOISE, RATE, "libopus", ((1, 1000.0),)))
    with open_reader(file, max_duration=2000) as reader:
        lengths = [block.shape[1] for block in reader.blocks()]
    assert sum(lengths) == pytest.approx(1002 * RATE, abs=0.01 * RATE)
    assert max(lengths) == 10 * RATE
