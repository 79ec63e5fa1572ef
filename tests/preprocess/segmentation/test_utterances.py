"""Cutting speech into utterances: where they begin and end, and when they are returned."""

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
from service.preprocess.segmentation import utterances
from service.preprocess.segmentation.speech import LOOK_AHEAD
from service.preprocess.segmentation.utterances import CONTEXT, LONGEST, PAUSE, SHORTEST, UtteranceCutter
from service.results import SAMPLING_RATE, Floats, Utterance
from tests.audio_samples import CLIPS, speech
from tests.preprocess.segmentation.synthetic_speech import RATE, bounds, cut, near, noise, offset_of, recording, talk


def test_pauses_separate() -> None:
    samples = recording(1.0, talk(3), 1.0, talk(4), 2.0, talk(2.5), 0.5)
    assert bounds(cut(samples)) == near((1.0, 4.0), (5.0, 9.0), (11.0, 13.5))


def test_short_pauses_do_not_separate() -> None:
    assert bounds(cut(recording(1.0, talk(3), 0.3, talk(3), 1.0))) == near((1.0, 7.3))


def test_short_utterances_join_across_longer_pauses() -> None:
    assert bounds(cut(recording(1.0, talk(1), 0.5, talk(3), 1.0))) == near((1.0, 5.5))
    assert bounds(cut(recording(1.0, talk(3), 0.58, talk(1), 1.0))) == near((1.0, 4.0), (4.6, 5.6))


def test_isolated_short_utterances_stay_short() -> None:
    assert bounds(cut(recording(2.0, talk(0.6), 2.0, talk(3), 1.0))) == near((2.0, 2.6), (4.6, 7.6))


def test_clicks_are_not_speech() -> None:
    click = np.full(80, 0.9, np.float32) * np.where(np.arange(80) % 2, 1, -1).astype(np.float32)
    assert cut(recording(1.0, click, 1.0, click, 1.0)) == []
    assert bounds(cut(recording(2.0, talk(2), 0.3, click, 0.3, talk(2), 1.0))) == near((2.0, 4.0), (4.6, 6.6))


@pytest.mark.parametrize("seconds", [0.01, 0.032, 0.05])
@pytest.mark.parametrize("times", [(1.35,), (0.5, 2.0, 4.7), (0.99, 1.1, 1.2, 1.3)])
def test_clicks_do_not_hide_soft_speech(seconds: float, times: tuple[float, ...]) -> None:
    soft = recording(1.0, talk(3), 1.5, talk(3), 1.0, level=-90) * np.float32(10**-2.2)
    clicked = soft.copy()
    for time in times:
        begin, size = round(time * RATE), round(seconds * RATE)
        clicked[begin : begin + size] += np.where(np.arange(size) % 2, 1, -1).astype(np.float32)
    found = bounds(cut(clicked))
    assert found[0, 0] <= bounds(cut(soft))[0, 0]
    assert found[:, 1] == pytest.approx(bounds(cut(soft))[:, 1])
    assert np.array_equal(bounds(cut(clicked, sizes=[80] * 600)), found)


@pytest.mark.parametrize("level", [-75.0, -60.0, -45.0, -30.0])
def test_noise_is_not_speech(level: float) -> None:
    assert cut(noise(8.0, level)) == []


def test_noise_that_becomes_louder_is_not_speech() -> None:
    samples = np.concatenate([noise(4.0, -70), noise(8.0, -45), recording(talk(3), 1.0, level=-45)])
    assert bounds(cut(samples)) == near((12.0, 15.0))


@pytest.mark.parametrize("frequency", [50, 425, 1000])
def test_a_tone_is_not_speech(frequency: int) -> None:
    tone = 0.2 * np.sin(2 * np.pi * frequency * np.arange(3 * RATE) / RATE).astype(np.float32)
    assert cut(recording(1.0, tone, 1.0, tone, 1.0)) == []


def test_a_constant_offset_does_not_count() -> None:
    samples = recording(1.0, talk(3), 1.0, talk(3), 1.0)
    assert bounds(cut(samples + np.float32(0.2))) == near((1.0, 4.0), (5.0, 8.0))
    assert np.array_equal(bounds(cut(samples + np.float32(0.2))), bounds(cut(samples)))


def test_digital_silence() -> None:
    silence = np.zeros(12 * RATE, np.float32)
    assert cut(silence) == []
    # A channel that is muted between words, including its noise.
    words = recording(0.2, talk(3), 0.2, level=-50)
    assert bounds(cut(np.concatenate([silence, words, silence, words]))) == near((12.2, 15.2), (27.6, 30.6))


def test_a_recording_that_begins_and_ends_within_speech() -> None:
    samples = talk(3.05)[400:]
    (found,) = cut(samples)
    assert found.start < 0.1
    assert found.end > 2.9
    assert np.array_equal(found.samples, samples)


def test_long_speech_is_split_at_its_quietest_point() -> None:
    samples = recording(1.0, talk(11), 0.25, talk(9), 1.0)
    found = cut(samples)
    assert bounds(found) == near((1.0, 12.0), (12.2, 21.2))
    # Neither context reaches beyond the split, which is in the pause between 12.0 and 12.25 s.
    split = offset_of(found[0], samples) + found[0].samples.size
    assert 12.0 * RATE <= split <= 12.25 * RATE
    assert split == offset_of(found[1], samples)


def test_a_shorter_pause_ends_a_long_utterance() -> None:
    assert bounds(cut(recording(1.0, talk(11), 0.4, talk(3), 1.0))) == near((1.0, 12.0), (12.4, 15.4))


@pytest.mark.parametrize("seconds", [15.5, 40.0, 100.0])
def test_speech_without_pauses(seconds: float) -> None:
    found = cut(recording(1.0, talk(seconds), 1.0))
    assert len(found) >= seconds / 15
    assert all(SHORTEST <= utterance.end - utterance.start <= LONGEST for utterance in found)
    for one, other in pairwise(found):
        assert other.start - one.end < 0.3
    assert found[-1].end == pytest.approx(1 + seconds, abs=0.1)


def test_an_utterance_has_context_around_its_speech() -> None:
    samples = recording(1.0, talk(3), 1.0)
    (found,) = cut(samples)
    begin = offset_of(found, samples) / RATE
    end = begin + found.samples.size / RATE
    # Each difference is one of two distances that are rounded to whole samples.
    assert found.start - begin == pytest.approx(CONTEXT - 0.05, abs=1 / RATE)
    assert end - found.end == pytest.approx(CONTEXT - 0.05, abs=1 / RATE)
    assert found.samples.base is None
    assert found.samples.dtype == np.float32
    assert found.samples.flags.c_contiguous


def test_the_model_finds_the_same_bounds_as_in_the_whole_file() -> None:
    for path in CLIPS:
        clip = soundfile.read(path, dtype="float32")[0]
        samples = recording(1.0, clip, 1.0, level=-75, rate=SAMPLING_RATE)
        (found,) = cut(samples, SAMPLING_RATE)
        begin = offset_of(found, samples)
        expected = resample_trim.speech_bounds(samples[None], np.array([samples.size]))[0]
        trimmed = resample_trim.speech_bounds(found.samples[None], np.array([found.samples.size]))[0] + begin
        # The energy frames lie elsewhere, by less than a hop, so each bound may be that of the next frame.
        assert np.abs(trimmed - expected).max() <= 2 * resample_trim.HOP, path.name


@pytest.mark.parametrize("rate", [1000, 8000, 11_025, 22_050, 48_000, 768_000])
def test_any_rate(rate: int) -> None:
    samples = soxr.resample(recording(1.0, talk(2), 1.0, talk(2), 1.0), RATE, rate)
    assert bounds(cut(samples, rate)) == near((1.0, 3.0), (4.0, 6.0))


@pytest.mark.parametrize("level", [-55.0, -45.0])
@pytest.mark.parametrize("pushed", [0.02, 0.1, 0.25])
def test_an_utterance_is_returned_soon_after_it_ends(level: float, pushed: float) -> None:
    samples = recording(1.0, talk(3), 3.0, level=level)
    cutter = UtteranceCutter(RATE)
    size = round(pushed * RATE)
    for begin in range(0, samples.size, size):
        if found := cutter.push(samples[begin : begin + size]):
            break
    # PAUSE + LOOK_AHEAD after the last frame with speech, of which 50 ms belong to the utterance.
    assert begin / RATE + pushed - found[0].end <= PAUSE + LOOK_AHEAD - 0.05 + pushed


def call(seconds: float = 8.0) -> Floats:
    """Clips of real speech with pauses between them, over noise."""
    clips = [speech(RATE, clip=index)[0][: 3 * RATE] for index in range(2)]
    return recording(0.4, clips[0], 0.7, clips[1], 0.3, clips[0], 2.0)[: round(seconds * RATE)]


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
        assert (one.start, one.end) == (other.start, other.end)
        assert np.array_equal(one.samples, other.samples)


@settings(max_examples=15, deadline=None)
@given(
    parts=st.lists(st.tuples(st.floats(-90, 0), st.floats(0.01, 9), st.booleans()), min_size=1, max_size=12),
    sizes=st.lists(st.integers(0, 5000), max_size=40),
)
def test_properties_that_hold_for_any_sound(parts: list[tuple[float, float, bool]], sizes: list[int]) -> None:
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
        begin = offset_of(utterance, samples)
        assert begin <= round(utterance.start * rate) < round(utterance.end * rate) <= begin + utterance.samples.size
        assert utterance.end - utterance.start <= LONGEST
    assert all(one.end <= other.start for one, other in pairwise(found))


def test_samples_one_by_one() -> None:
    samples = call(3.5)
    together, split = cut(samples), cut(samples, sizes=[1] * samples.size)
    assert [one.start for one in together] == [one.start for one in split]
    assert [one.end for one in together] == [one.end for one in split]


def test_pushed_samples_may_be_overwritten() -> None:
    samples = recording(1.0, talk(3), 1.0)
    cutter, buffer = UtteranceCutter(RATE), np.empty(400, np.float32)
    found = []
    for begin in range(0, samples.size, 400):
        buffer[:] = samples[begin : begin + 400]
        found += cutter.push(buffer)
    assert np.array_equal((found + cutter.finish())[0].samples, cut(samples)[0].samples)


def peak(seconds: int, part: Callable[[int], Floats], rate: int) -> int:
    """Peak memory of a cutter in bytes, for so many pieces of a second each."""
    cutter = UtteranceCutter(rate)
    tracemalloc.start()
    try:
        for index in range(seconds):
            cutter.push(part(index))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def words(_: int) -> Floats:
    """A second with a pause too short to end an utterance."""
    return recording(talk(0.8), 0.2)


def pauseless(_: int) -> Floats:
    """A second without any pause."""
    return np.sin(np.arange(RATE) ** 1.5 / RATE).astype(np.float32) * np.linspace(0.05, 0.8, RATE, dtype=np.float32)


def wandering(index: int) -> Floats:
    """Noise whose level wanders around the thresholds."""
    return noise(1.0, -60 + 8 * np.sin(index) + 3 * np.sin(index / 7), seed=index)


@pytest.mark.parametrize("part", [words, pauseless, wandering])
def test_memory_does_not_depend_on_the_length(part: Callable[[int], Floats]) -> None:
    assert peak(120, part, RATE) < 1.2 * peak(40, part, RATE)


def test_no_or_hardly_any_samples() -> None:
    assert cut(np.empty(0, np.float32)) == []
    assert cut(np.empty(0, np.float32), sizes=[0, 0]) == []
    assert cut(np.zeros(3, np.float32)) == []


def test_lengths_and_pauses_are_those_of_the_documents() -> None:
    assert (utterances.SHORTEST, utterances.LONGEST) == (2.0, 15.0)
    assert (utterances.PAUSE, utterances.PAUSE_WHEN_SHORT, utterances.PAUSE_WHEN_LONG) == (0.5, 0.6, 0.3)
