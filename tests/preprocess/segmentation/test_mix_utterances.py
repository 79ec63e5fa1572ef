"""Cutting the mean of several channels, and the loudest channel where the mean cancels out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from service.errors import AudioNotFinite
from service.preprocess.segmentation.mix_utterances import MixCutter
from service.results import Floats, Utterance
from tests.preprocess.segmentation.synthetic_speech import RATE, bounds, cut, noise, recording, talk

SPEECH = recording(6.0, talk(3), 1.0, talk(2.5), 2.0)


def cut_mix(samples: Floats, sizes: Sequence[int] = (), rate: int = RATE) -> tuple[list[Utterance], int | None]:
    cutter = MixCutter(rate, len(samples))
    found = []
    for size in sizes:
        found += cutter.push(samples[:, :size])
        samples = samples[:, size:]
    found += cutter.push(samples) + cutter.finish()
    return found, cutter.taken_channel


def same(found: Sequence[Utterance], expected: Sequence[Utterance]) -> bool:
    return len(found) == len(expected) and all(
        (one.start, one.end) == (other.start, other.end) and np.array_equal(one.samples, other.samples)
        for one, other in zip(found, expected, strict=True)
    )


SIZES = [[], [1] * 50 + [160] * 300, [RATE // 10] * 60, [12_345, 0, 7, 40_000]]


@pytest.mark.parametrize("sizes", SIZES)
def test_the_mean_is_cut_as_by_itself(sizes: list[int]) -> None:
    samples = np.stack([SPEECH, noise(SPEECH.size / RATE, -50, seed=1)])
    found, taken = cut_mix(samples, sizes)
    assert taken is None
    assert same(found, cut((samples[0] + samples[1]) / np.float32(2)))


@pytest.mark.parametrize("sizes", SIZES)
def test_the_loudest_channel_is_cut_from_the_beginning(sizes: list[int]) -> None:
    samples = np.stack([np.float32(-0.8) * SPEECH, SPEECH, np.zeros_like(SPEECH)])
    found, taken = cut_mix(samples, sizes)
    assert taken == 1
    assert same(found, cut(SPEECH))


def test_noise_and_offset_before_speech_do_not_decide() -> None:
    one, other = (noise(SPEECH.size / RATE, -50, seed=seed) for seed in (1, 2))
    found, taken = cut_mix(np.stack([SPEECH + one, -SPEECH + other + np.float32(0.3)]))
    assert taken is not None
    assert np.array_equal(bounds(found), bounds(cut(SPEECH + one)))


def test_the_first_utterance_decides_for_all() -> None:
    inverted = np.concatenate([SPEECH, -SPEECH])
    assert cut_mix(np.stack([np.tile(SPEECH, 2), inverted]))[1] is None
    assert cut_mix(np.stack([np.tile(SPEECH, 2), -inverted]))[1] == 0


@pytest.mark.parametrize("seconds", [0.05, 0.5, 1.3])
def test_a_short_recording(seconds: float) -> None:
    samples = talk(seconds)
    found, taken = cut_mix(np.stack([samples, -samples]))
    assert same(found, cut(samples))
    assert taken == (0 if found else None)


def test_one_channel_and_silence() -> None:
    found, taken = cut_mix(SPEECH[None])
    assert taken is None
    assert same(found, cut(SPEECH))
    assert cut_mix(np.zeros((2, 5 * RATE), np.float32)) == ([], None)
    assert MixCutter(RATE, 2).finish() == []


def test_samples_that_are_not_finite() -> None:
    samples = np.stack([SPEECH, SPEECH])
    samples[1, 500] = np.inf
    with pytest.raises(AudioNotFinite):
        cut_mix(samples)
