"""Cutting speech into utterances: what is one, and when it comes out."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from service.preprocess import resample_trim
from service.preprocess.segmentation.utterances import CONTEXT, UtteranceCutter
from service.results import SAMPLING_RATE, Floats, Utterance
from tests.audio_samples import CLIPS, speech
from tests.preprocess.segmentation.voices import RATE, bounds, cut, line, near, noise, talk


def test_pauses_separate() -> None:
    samples = line(1.0, talk(3), 1.0, talk(4), 2.0, talk(2.5), 0.5)
    assert bounds(cut(samples)) == near((1.0, 4.0), (5.0, 9.0), (11.0, 13.5))


def test_short_pauses_do_not_separate() -> None:
    assert bounds(cut(line(1.0, talk(3), 0.3, talk(3), 1.0))) == near((1.0, 7.3))


def test_short_utterances_join_across_longer_pauses() -> None:
    assert bounds(cut(line(1.0, talk(1), 0.5, talk(3), 1.0))) == near((1.0, 5.5))
    assert bounds(cut(line(1.0, talk(3), 0.58, talk(1), 1.0))) == near((1.0, 4.0), (4.6, 5.6))


def test_short_ones_alone_stay_short() -> None:
    assert bounds(cut(line(2.0, talk(0.6), 2.0, talk(3), 1.0))) == near((2.0, 2.6), (4.6, 7.6))


def test_clicks_are_no_speech() -> None:
    click = np.full(80, 0.9, np.float32) * np.where(np.arange(80) % 2, 1, -1).astype(np.float32)
    assert cut(line(1.0, click, 1.0, click, 1.0)) == []
    assert bounds(cut(line(2.0, talk(2), 0.3, click, 0.3, talk(2), 1.0))) == near((2.0, 4.0), (4.6, 6.6))


@pytest.mark.parametrize("level", [-75.0, -60.0, -45.0, -30.0])
def test_noise_is_no_speech(level: float) -> None:
    assert cut(noise(8.0, level)) == []


def test_louder_noise_is_no_speech_either() -> None:
    samples = np.concatenate([noise(4.0, -70), noise(8.0, -45), line(talk(3), 1.0, level=-45)])
    assert bounds(cut(samples)) == near((12.0, 15.0))


@pytest.mark.parametrize("frequency", [50, 425, 1000])
def test_a_tone_is_no_speech(frequency: int) -> None:
    tone = 0.2 * np.sin(2 * np.pi * frequency * np.arange(3 * RATE) / RATE).astype(np.float32)
    assert cut(line(1.0, tone, 1.0, tone, 1.0)) == []


def test_an_offset_is_no_sound() -> None:
    samples = line(1.0, talk(3), 1.0, talk(3), 1.0)
    assert bounds(cut(samples + np.float32(0.2))) == near((1.0, 4.0), (5.0, 8.0))
    assert np.array_equal(bounds(cut(samples + np.float32(0.2))), bounds(cut(samples)))


def test_digital_silence() -> None:
    silence = np.zeros(12 * RATE, np.float32)
    assert cut(silence) == []
    # A line that is switched off between words, its noise with it.
    words = line(0.2, talk(3), 0.2, level=-50)
    assert bounds(cut(np.concatenate([silence, words, silence, words]))) == near((12.2, 15.2), (27.6, 30.6))


def test_what_begins_and_ends_in_speech() -> None:
    samples = talk(3.05)[400:]
    (found,) = cut(samples)
    assert found.start < 0.1
    assert found.end > 2.9
    assert found.offset == 0
    assert np.array_equal(found.samples, samples)


def test_long_speech_is_cut_where_it_is_quietest() -> None:
    samples = line(1.0, talk(11), 0.25, talk(9), 1.0)
    found = cut(samples)
    assert bounds(found) == near((1.0, 12.0), (12.2, 21.2))
    # The context ends in the pause, without the neighbour's speech.
    assert found[0].offset + found[0].samples.size / RATE == pytest.approx(12.125, abs=0.1)
    assert found[0].offset + found[0].samples.size / RATE == pytest.approx(found[1].offset)


def test_the_longer_the_shorter_is_the_pause_that_ends_it() -> None:
    assert bounds(cut(line(1.0, talk(11), 0.4, talk(3), 1.0))) == near((1.0, 12.0), (12.4, 15.4))


@pytest.mark.parametrize("seconds", [15.5, 40.0, 100.0])
def test_speech_without_pauses(seconds: float) -> None:
    found = cut(line(1.0, talk(seconds), 1.0))
    assert len(found) >= seconds / 15
    assert all(2.0 <= utterance.seconds <= 15.0 for utterance in found)
    for one, other in pairwise(found):
        assert other.start - one.end < 0.3
    assert found[-1].end == pytest.approx(1 + seconds, abs=0.1)


def test_other_lengths() -> None:
    found = cut(line(1.0, talk(20), 1.0), shortest=1.0, longest=4.0)
    assert all(1.0 <= utterance.seconds <= 4.0 for utterance in found)
    assert all(each.seconds <= 2.0 for each in cut(line(1.0, talk(20), 1.0), shortest=0.5, longest=2.0))
    for shortest, longest in ((2.0, 7.0), (0.0, 15.0), (0.1, 1.9)):
        with pytest.raises(ValueError, match="quarter"):
            UtteranceCutter(RATE, shortest=shortest, longest=longest)


def test_samples_are_those_around_the_speech() -> None:
    samples = line(1.0, talk(3), 1.0)
    (found,) = cut(samples)
    first = round(found.offset * RATE)
    assert np.array_equal(found.samples, samples[first : first + found.samples.size])
    assert found.start - found.offset == pytest.approx(CONTEXT - 0.05, abs=0.001)
    assert found.offset + found.samples.size / RATE - found.end == pytest.approx(CONTEXT - 0.05, abs=0.001)
    assert found.samples.base is None
    assert found.samples.dtype == np.float32
    assert found.samples.flags.c_contiguous


def test_the_model_finds_the_same_bounds_as_in_the_clip_alone() -> None:
    for path in CLIPS:
        clip = soundfile.read(path, dtype="float32")[0]
        padded = np.concatenate([np.zeros(SAMPLING_RATE, np.float32), clip, np.zeros(SAMPLING_RATE, np.float32)])
        (found,) = cut(padded + noise(padded.size / SAMPLING_RATE, -75, SAMPLING_RATE), SAMPLING_RATE)
        expected = resample_trim.speech_bounds(padded[None], np.array([padded.size]))[0] / SAMPLING_RATE
        trimmed = resample_trim.speech_bounds(found.samples[None], np.array([found.samples.size]))[0] / SAMPLING_RATE
        assert trimmed + found.offset == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("rate", [1000, 8000, 11_025, 22_050, 48_000, 768_000])
def test_any_rate(rate: int) -> None:
    samples = soxr.resample(line(1.0, talk(2), 1.0, talk(2), 1.0), RATE, rate)
    assert bounds(cut(samples, rate)) == near((1.0, 3.0), (4.0, 6.0))


@pytest.mark.parametrize("level", [-55.0, -45.0])
@pytest.mark.parametrize("pushed", [0.02, 0.1, 0.25])
def test_an_utterance_comes_out_soon_after_it_ends(level: float, pushed: float) -> None:
    samples = line(1.0, talk(3), 3.0, level=level)
    cutter = UtteranceCutter(RATE)
    size = round(pushed * RATE)
    for begin in range(0, samples.size, size):
        if found := cutter.push(samples[begin : begin + size]):
            break
        assert not cutter.speaking or 1.0 <= begin / RATE <= 4.4 + pushed
    assert begin / RATE + pushed - found[0].end <= 0.57 + pushed


def test_speaking() -> None:
    cutter = UtteranceCutter(RATE)
    found = []
    for part in (noise(1.0), line(talk(0.5)), line(talk(0.5)), noise(0.5), line(talk(0.5))):
        cutter.push(part)
        found.append(cutter.speaking)
    assert found == [False, True, True, False, True]
    cutter.finish()
    assert not cutter.speaking


def call(seconds: float = 8.0) -> Floats:
    """Clips of real speech with pauses between them, over noise."""
    clips = [speech(RATE, clip=index)[0][: 3 * RATE] for index in range(2)]
    return line(0.4, clips[0], 0.7, clips[1], 0.3, clips[0], 2.0)[: round(seconds * RATE)]


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.one_of(st.integers(0, 200), st.integers(0, 9000)), max_size=40),
    rate=st.sampled_from([8000, 7999]),
)
def test_the_result_does_not_depend_on_how_samples_are_split(sizes: list[int], rate: int) -> None:
    samples = call()
    together, split = cut(samples, rate), cut(samples, rate, sizes)
    assert len(together) >= 2
    for one, other in zip(together, split, strict=True):
        assert (one.start, one.end, one.offset) == (other.start, other.end, other.offset)
        assert np.array_equal(one.samples, other.samples)


@settings(max_examples=15, deadline=None)
@given(
    parts=st.lists(st.tuples(st.floats(-90, 0), st.floats(0.01, 9), st.booleans()), min_size=1, max_size=12),
    sizes=st.lists(st.integers(0, 5000), max_size=40),
)
def test_whatever_is_heard(parts: list[tuple[float, float, bool]], sizes: list[int]) -> None:
    rate = 1000
    sounds = [noise(seconds, level, rate, seed) for seed, (level, seconds, _) in enumerate(parts)]
    for sound, (_, _, even) in zip(sounds, parts, strict=True):
        if not even:  # a syllable each eighth of a second
            sound *= np.abs(np.sin(np.arange(sound.size) / 40)) ** 3
    samples = np.concatenate(sounds)
    cutter = UtteranceCutter(rate)
    found: list[Utterance] = []
    rest, settled = samples, 0.0
    for size in [*sizes, rest.size]:
        new = cutter.push(rest[:size])
        rest = rest[size:]
        assert all(utterance.end >= settled for utterance in new)
        assert cutter.settled >= settled
        settled = cutter.settled
        found += new
    last = cutter.finish()
    assert all(utterance.end >= settled for utterance in last)
    found += last
    assert np.array_equal(bounds(found), bounds(cut(samples, rate)))
    for utterance in found:
        assert 0 <= utterance.offset <= utterance.start < utterance.end <= samples.size / rate
        assert utterance.seconds <= 15.0
        first = round(utterance.offset * rate)
        assert np.array_equal(utterance.samples, samples[first : first + utterance.samples.size])
    assert all(one.end <= other.start for one, other in pairwise(found))


def test_samples_one_by_one() -> None:
    samples = call(3.5)
    together, split = cut(samples), cut(samples, sizes=[1] * samples.size)
    assert [one.start for one in together] == [one.start for one in split]
    assert [one.end for one in together] == [one.end for one in split]


def test_what_is_pushed_may_be_overwritten() -> None:
    samples = line(1.0, talk(3), 1.0)
    cutter, buffer = UtteranceCutter(RATE), np.empty(400, np.float32)
    found = []
    for begin in range(0, samples.size, 400):
        buffer[:] = samples[begin : begin + 400]
        found += cutter.push(buffer)
    assert np.array_equal((found + cutter.finish())[0].samples, cut(samples)[0].samples)


def peak(seconds: int, part: Callable[[int], Floats], rate: int) -> int:
    """Most bytes that a cutter has needed for so many pieces."""
    cutter = UtteranceCutter(rate)
    tracemalloc.start()
    try:
        for index in range(seconds):
            cutter.push(part(index))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def words(_: int) -> Floats:
    """A second with a pause too short to end anything."""
    return line(talk(0.8), 0.2)


def endless(_: int) -> Floats:
    """A second without any pause."""
    return np.sin(np.arange(RATE) ** 1.5 / RATE).astype(np.float32) * np.linspace(0.05, 0.8, RATE, dtype=np.float32)


def restless(index: int) -> Floats:
    """Noise that wanders about the thresholds."""
    return noise(1.0, -60 + 8 * np.sin(index) + 3 * np.sin(index / 7), seed=index)


@pytest.mark.parametrize("part", [words, endless, restless])
def test_memory_does_not_depend_on_the_length(part: Callable[[int], Floats]) -> None:
    assert peak(120, part, RATE) < 1.2 * peak(40, part, RATE)


def test_nothing_at_all() -> None:
    assert cut(np.empty(0, np.float32)) == []
    assert cut(np.empty(0, np.float32), sizes=[0, 0]) == []
    assert cut(np.zeros(3, np.float32)) == []
