"""Which track of a file is decoded, and changes of rate and channels within it. Formats are in `test_decode`."""

from __future__ import annotations

import numpy as np
import pytest

from service.errors import NotDecodable
from service.preprocess.decode import decode
from service.preprocess.ffmpeg import sandbox
from service.preprocess.reader import open_reader
from service.results import Floats
from tests.audio_samples import encode, speech
from tests.preprocess.containers import Track, mux

SILENCE: Floats = np.zeros((1, 16_000), np.float32)


def speaks(file: bytes) -> bool:
    return bool(np.abs(decode(file, max_duration=60).samples).max() > 0.1)


@pytest.mark.parametrize("container", ["matroska", "mp4", "mov"])
def test_the_default_track_is_decoded(container: str) -> None:
    silent = Track(SILENCE, 16_000, "aac")
    assert speaks(mux(container, silent, Track(speech(), 16_000, "aac", default=True)))  # in MP4, the first is disabled
    assert not speaks(mux(container, Track(SILENCE, 16_000, "aac", default=True), Track(speech(), 16_000, "aac")))


@pytest.mark.parametrize("container", ["matroska", "mpegts"])
def test_without_a_default_track_the_first_one_is_decoded(container: str) -> None:
    assert speaks(mux(container, Track(speech(), 16_000, "aac"), Track(SILENCE, 16_000, "aac")))


@pytest.mark.parametrize("default", [False, True])
def test_tracks_of_unknown_codecs_are_skipped(default: bool) -> None:
    unknown = Track(SILENCE, 16_000, "wavpack", default=default)
    assert speaks(mux("matroska", unknown, Track(speech(), 16_000, "aac")))
    with pytest.raises(NotDecodable, match="codec"):
        speaks(mux("matroska", unknown))


@pytest.mark.parametrize("name", ["mp3", "aac", "mpegts"])
@pytest.mark.parametrize("order", [(0, 1, 0), (1, 0), (2, 1), (0, 3, 3, 0)])
def test_rate_and_channels_may_change(name: str, order: tuple[int, ...]) -> None:
    kinds = [(44_100, 1), (48_000, 1), (48_000, 2), (16_000, 2)]
    files = [encode(name, speech(*kind), kind[0]) for kind in kinds]
    waveform = decode(b"".join(files[kind] for kind in order), max_duration=60)
    assert (waveform.sampling_rate, waveform.channels) == kinds[order[0]]
    durations = [decode(files[kind], max_duration=60).duration for kind in order]
    # The padding between MP3 files is not removed.
    assert waveform.duration == pytest.approx(sum(durations), abs=0.3 if name == "mp3" else 0.001)
    # The last part has the pitch of a file of its own.
    alone = decode(files[order[-1]], max_duration=60)
    if alone.channels == waveform.channels:
        end = np.abs(np.fft.rfft(waveform.samples[0][-waveform.sampling_rate :]))[:4000]
        expected = np.abs(np.fft.rfft(alone.samples[0][-alone.sampling_rate :]))[:4000]
        assert np.corrcoef(end, expected)[0, 1] > 0.9


def test_a_file_that_changes_comes_in_the_same_blocks() -> None:
    parts = [encode("aac", np.tile(speech(rate), (1, 8)), rate) for rate in (16_000, 24_000, 16_000)]
    whole = decode(b"".join(parts), max_duration=600)
    with open_reader(b"".join(parts), max_duration=600) as reader:
        blocks = list(reader.blocks())
    assert np.array_equal(np.concatenate(blocks, axis=1), whole.samples)
    assert min(block.shape[1] for block in blocks) > 0
    assert max(block.shape[1] for block in blocks) <= 160_000


def test_changes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_MOST_CHANGES", 2)
    parts = [encode("aac", speech(rate), rate) for rate in (48_000, 16_000, 48_000)]
    decode(b"".join(parts), max_duration=600)
    with pytest.raises(NotDecodable, match="too often"):
        decode(b"".join([*parts, parts[1]]), max_duration=600)
