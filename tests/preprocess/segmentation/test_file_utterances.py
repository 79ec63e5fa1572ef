"""Cutting files: channels, stretches and order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import AudioNotFinite, AudioTooShort, InvalidOptions
from service.preprocess.byte_source import ByteSource
from service.preprocess.clips import ChannelChoice
from service.preprocess.declared_length import Header
from service.preprocess.reader import AudioReader, open_reader
from service.preprocess.segmentation.file_utterances import FileCut
from service.results import SAMPLING_RATE, ChannelUtterance, Floats
from tests.audio_samples import encode, speech
from tests.preprocess.containers import Track, mux
from tests.preprocess.segmentation.synthetic_speech import RATE, bounds, cut, near, noise, offset_of, recording, talk


class FakeAudioFile:
    """A file that is decoded already: samples (channel, time), read in blocks of so many seconds."""

    def __init__(self, samples: Floats, sampling_rate: int, block: float) -> None:
        self.sampling_rate = sampling_rate
        self.channels = len(samples)
        self.ended_early = False
        self._samples = samples
        self._block = round(block * sampling_rate)
        self._position = 0

    def read(self) -> Floats | None:
        block = self.read_all()[:, : self._block]
        self._position += block.shape[1]
        return block if block.size else None

    def read_all(self) -> Floats:
        return self._samples[:, self._position :]

    def close(self) -> None:
        pass


def reader_of(samples: Floats, sampling_rate: int = RATE, block: float = 1.0) -> AudioReader:
    return AudioReader(ByteSource(b""), FakeAudioFile(samples, sampling_rate, block), Header("wav"))


def utterances_of(file: FileCut) -> list[ChannelUtterance]:
    return [utterance for step in file.steps() for utterance in step]


STEREO = np.stack(
    [recording(1.0, talk(3), 5.0, talk(3), 3.0, talk(1), 1.0), recording(4.5, talk(4), 4.0, talk(2.5), 2.0)]
)
"""17 s; speech is from 1 to 4, 9 to 12 and 15 to 16 s in one channel, from 4.5 to 8.5 and 12.5 to 15 s in the other."""


def cut_stereo(
    channels: ChannelChoice, start: float | None = None, end: float | None = None, block: float = 1.0
) -> list[ChannelUtterance]:
    file = FileCut(reader_of(STEREO, block=block), channels=channels, start=start, end=end)
    utterances = utterances_of(file)
    assert file.duration == 17.0
    return utterances


@pytest.mark.parametrize("block", [0.01, 1.0, 10.0])
def test_channels_of_a_file(block: float) -> None:
    split = cut_stereo("split", block=block)
    assert [each.channel for each in split] == [0, 1, 0, 1, 0]
    expected = [(1.0, 4.0), (4.5, 8.5), (9.0, 12.0), (12.5, 15.0), (15.0, 16.0)]
    assert bounds([each.utterance for each in split]) == near(*expected)
    alone = cut_stereo(1, block=block)
    assert [each.channel for each in alone] == [1, 1]
    assert bounds([each.utterance for each in alone]) == near(expected[1], expected[3])
    mix = cut_stereo("mix", block=block)
    assert {each.channel for each in mix} == {0}
    assert bounds([each.utterance for each in mix]) == near((1.0, 4.0), (4.5, 8.5), (9.0, 12.0), (12.5, 16.0))


def test_a_stretch_of_a_file() -> None:
    found = [each.utterance for each in cut_stereo(0, start=2.0, end=11.0)]
    assert bounds(found) == near((2.0, 4.0), (9.0, 11.0))
    for utterance in found:
        # Times are those of the file: the context before the speech is within the stretch.
        begin = offset_of(utterance, STEREO[0])
        assert 2 * RATE <= begin <= round(utterance.start * RATE)
        assert round(utterance.end * RATE) <= begin + utterance.samples.size <= 11 * RATE
    assert bounds([each.utterance for each in cut_stereo(0, start=14.0, end=1e9)]) == near((15.0, 16.0))


def test_a_real_file() -> None:
    samples = np.stack([channel[: 16 * RATE] for channel in STEREO])
    with open_reader(encode("wav-ulaw", samples, RATE), max_duration=20) as reader:
        file = FileCut(reader, channels="split", start=None, end=None)
        found = [each.utterance for each in utterances_of(file)]
        assert bounds(found) == near((1, 4), (4.5, 8.5), (9, 12), (12.5, 15), (15, 16))
        assert file.duration == 16.0
        assert file.narrow_band


@given(seed=st.integers(0, 1000), block=st.sampled_from([0.5, 1.0, 7.0]))
@settings(max_examples=10, deadline=None)
def test_utterances_come_in_the_order_of_their_ends(seed: int, block: float) -> None:
    random = np.random.default_rng(seed)

    def speaker() -> Floats:
        parts = [talk(random.uniform(0.4, 20), 1000) if number % 2 else random.uniform(0.3, 3) for number in range(8)]
        return np.resize(recording(*parts, rate=1000), 60_000)

    samples = np.stack([speaker() for _ in range(3)])
    file = FileCut(reader_of(samples, 1000, block), channels="split", start=None, end=None)
    found = utterances_of(file)
    ends = [each.utterance.end for each in found]
    assert ends == sorted(ends)
    for index in range(3):
        alone = cut(samples[index], 1000)
        assert [each.utterance.end for each in found if each.channel == index] == [each.end for each in alone]


def test_utterances_are_returned_before_the_file_is_read_to_its_end() -> None:
    file = FileCut(reader_of(STEREO), channels="split", start=None, end=None)
    next(utterances for utterances in file.steps() if utterances)
    assert file.duration == 5.0


def test_there_is_a_step_for_each_block_and_a_last_one() -> None:
    file = FileCut(reader_of(STEREO), channels="split", start=5.0, end=6.0)
    durations = [file.duration for _ in file.steps()]
    assert durations == [*range(1, 18), 17]


def test_the_band_is_that_of_the_whole_file() -> None:
    hiss = np.zeros((2, 4 * SAMPLING_RATE), np.float32)
    hiss[1, -SAMPLING_RATE:] = noise(1.0, -30, SAMPLING_RATE)
    for samples, narrow in ((hiss, False), (hiss[:1], True)):
        file = FileCut(reader_of(samples, SAMPLING_RATE), channels=0, start=1.0, end=2.0)
        assert utterances_of(file) == []
        assert file.narrow_band == narrow


def test_a_channel_that_does_not_exist_is_rejected_at_once() -> None:
    with pytest.raises(InvalidOptions) as caught:
        FileCut(reader_of(STEREO), channels=2, start=99.0, end=None)
    assert [error.field for error in caught.value.errors] == ["channels"]


def test_a_start_after_the_end_of_the_file() -> None:
    with pytest.raises(InvalidOptions) as caught:
        cut_stereo("mix", start=17.0)
    assert caught.value.errors[0].message == "must lie within the audio, which lasts 17.000 s"


@pytest.mark.parametrize(("start", "end"), [(16.98, None), (3.0, 3.02)])
def test_too_little_to_score(start: float, end: float | None) -> None:
    with pytest.raises(AudioTooShort):
        cut_stereo("mix", start, end)


def test_samples_that_are_not_finite() -> None:
    samples = STEREO.copy()
    samples[1, 9 * RATE] = np.nan
    choices: list[ChannelChoice] = ["mix", "split", 1]
    for channels in choices:
        with pytest.raises(AudioNotFinite):
            utterances_of(FileCut(reader_of(samples), channels=channels, start=None, end=None))
    assert utterances_of(FileCut(reader_of(samples), channels=0, start=None, end=None))
    assert utterances_of(FileCut(reader_of(samples), channels=1, start=None, end=8.9))


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (mux("webm", Track(np.tile(speech(48_000), (1, 2)), 48_000, "libopus", ((1.44, 5.0),))), [0.0, 6.44]),
        (mux("mp4", Track(speech(48_000), 48_000, "aac", ((0, 4.0),)), video_at=0), [4.0]),
    ],
    ids=["a gap", "a late start"],
)
def test_times_are_those_of_the_container(file: bytes, expected: list[float]) -> None:
    with open_reader(file, max_duration=60) as reader:
        utterances = utterances_of(FileCut(reader, channels="mix", start=None, end=None))
        assert [found.utterance.start for found in utterances] == pytest.approx(expected, abs=0.15)
    with open_reader(file, max_duration=60) as reader:
        (part,) = utterances_of(FileCut(reader, channels="mix", start=expected[-1] + 0.2, end=expected[-1] + 1))
        assert part.utterance.start == pytest.approx(expected[-1] + 0.2)
