"""Cutting whole files: their channels, stretches and order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import AudioNotFinite, AudioTooShort, InvalidOptions
from service.preprocess.reader import open_reader
from service.preprocess.segmentation.utterances import cut_file
from service.results import SAMPLING_RATE, ChannelUtterance, Floats
from tests.audio_samples import encode
from tests.preprocess.segmentation.voices import RATE, bounds, cut, line, near, noise, talk


@dataclass
class Memory:
    """A reader of what is there."""

    samples: Floats
    sampling_rate: int = RATE
    block: float = 1.0

    @property
    def channels(self) -> int:
        return len(self.samples)

    def blocks(self) -> Iterator[Floats]:
        step = round(self.block * self.sampling_rate)
        for begin in range(0, self.samples.shape[1], step):
            yield self.samples[:, begin : begin + step]


STEREO = np.stack([line(1.0, talk(3), 5.0, talk(3), 3.0, talk(1), 1.0), line(4.5, talk(4), 4.0, talk(2.5), 2.0)])
"""17 s. The first speaks from 1 to 4, 9 to 12 and 15 to 16 s, the second from 4.5 to 8.5 and 12.5 to 15 s."""


def cut_stereo(
    channels: Literal["mix", "split"] | int, start: float | None = None, end: float | None = None, block: float = 1.0
) -> list[ChannelUtterance]:
    found = cut_file(Memory(STEREO, block=block), channels=channels, start=start, end=end)
    utterances = list(found)
    assert found.duration == 17.0
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
        first = round(utterance.offset * RATE)
        assert np.array_equal(utterance.samples, STEREO[0, first : first + utterance.samples.size])
    assert bounds([each.utterance for each in cut_stereo(0, start=14.0, end=float("inf"))]) == near((15.0, 16.0))


def test_a_real_file() -> None:
    samples = np.stack([channel[: 16 * RATE] for channel in STEREO])
    with open_reader(encode("wav-ulaw", samples, RATE), max_duration=20) as reader:
        found = cut_file(reader, channels="split", start=None, end=None)
        assert bounds([each.utterance for each in found]) == near((1, 4), (4.5, 8.5), (9, 12), (12.5, 15), (15, 16))
        assert found.duration == 16.0
        assert found.narrow_band


@given(seed=st.integers(0, 1000), block=st.sampled_from([0.5, 1.0, 7.0]))
@settings(max_examples=10, deadline=None)
def test_utterances_come_in_the_order_of_their_ends(seed: int, block: float) -> None:
    random = np.random.default_rng(seed)

    def someone() -> Floats:
        parts = [talk(random.uniform(0.4, 20), 1000) if number % 2 else random.uniform(0.3, 3) for number in range(8)]
        return np.resize(line(*parts, rate=1000), 60_000)

    samples = np.stack([someone() for _ in range(3)])
    found = list(cut_file(Memory(samples, 1000, block), channels="split", start=None, end=None))
    ends = [each.utterance.end for each in found]
    assert ends == sorted(ends)
    for index in range(3):
        alone = cut(samples[index], 1000)
        assert [each.utterance.end for each in found if each.channel == index] == [each.end for each in alone]


def test_utterances_come_before_the_file_is_read() -> None:
    found = cut_file(Memory(STEREO), channels="split", start=None, end=None)
    next(found)
    assert found.duration == 5.0


def test_the_band_is_that_of_the_whole_file() -> None:
    hiss = np.zeros((2, 4 * SAMPLING_RATE), np.float32)
    hiss[1, -SAMPLING_RATE:] = noise(1.0, -30, SAMPLING_RATE)
    for samples, narrow in ((hiss, False), (hiss[:1], True)):
        found = cut_file(Memory(samples, SAMPLING_RATE), channels=0, start=1.0, end=2.0)
        assert list(found) == []
        assert found.narrow_band == narrow


@pytest.mark.parametrize(
    ("channels", "start", "end", "fields"),
    [(2, None, None, ["channels"]), (-1, -1.0, None, ["channels", "start"]), ("mix", 3.0, 2.0, ["end"])],
)
def test_options_that_fit_no_file(
    channels: Literal["mix"] | int, start: float | None, end: float | None, fields: list[str]
) -> None:
    with pytest.raises(InvalidOptions) as caught:
        cut_file(Memory(STEREO), channels=channels, start=start, end=end)
    assert [error.field for error in caught.value.errors] == fields


def test_a_start_behind_the_end() -> None:
    with pytest.raises(InvalidOptions) as caught:
        cut_stereo("mix", start=17.0)
    assert caught.value.errors[0].message == "must lie within the audio, which lasts 17.000 s"


@pytest.mark.parametrize(("start", "end"), [(16.98, None), (3.0, 3.02)])
def test_too_little_to_score(start: float, end: float | None) -> None:
    with pytest.raises(AudioTooShort):
        cut_stereo("mix", start, end)


def test_samples_that_are_no_numbers() -> None:
    samples = STEREO.copy()
    samples[1, 9 * RATE] = np.nan
    choices: list[Literal["mix", "split"] | int] = ["mix", "split", 1]
    for channels in choices:
        with pytest.raises(AudioNotFinite):
            list(cut_file(Memory(samples), channels=channels, start=None, end=None))
    assert list(cut_file(Memory(samples), channels=0, start=None, end=None))
    assert list(cut_file(Memory(samples), channels=1, start=None, end=8.9))
