"""Channels whose mean cancels out."""

from __future__ import annotations

import numpy as np
import pytest

from service.preprocess.channel_mix import frame_energies, loudest_if_cancelled
from service.results import SAMPLING_RATE, Floats
from tests.audio_samples import CLIPS, speech


def taken(*channels: Floats, rate: int = SAMPLING_RATE) -> int | None:
    samples = np.stack(channels).astype(np.float32)
    of_mean = frame_energies(samples.mean(axis=0, keepdims=True), rate)
    return loudest_if_cancelled(frame_energies(samples, rate), float(of_mean[0]))


def voice(clip: int = 0) -> Floats:
    samples: Floats = speech(clip=clip)[0]
    return samples


def noise(size: int, seed: int, level: float = 0.1) -> Floats:
    values: Floats = np.random.default_rng(seed).normal(0, level, size).astype(np.float32)
    return values


def test_an_inverted_channel_is_noticed() -> None:
    one = voice()
    assert taken(one, -one) == 0
    assert taken(0.8 * one, -one) == 1
    assert taken(one, -0.7 * one) == 0
    assert taken(one[1:], -1.05 * one[:-1]) == 1
    assert taken(one, -one + noise(one.size, 0, 0.01 * float(np.abs(one).max()))) is not None


def test_more_than_two_channels() -> None:
    one = voice()
    assert taken(one, -one, 0 * one) == 0
    assert taken(-0.5 * one, one, -0.5 * one) == 1
    assert taken(one, one, -one) is None
    assert taken(*[one, -1.01 * one] * 16) == 1


@pytest.mark.parametrize("clip", range(len(CLIPS)))
@pytest.mark.parametrize("delay", [1, 2, 8, 20, 40, 80, 400])
def test_a_delay_does_not_count(clip: int, delay: int) -> None:
    one = voice(clip)
    assert taken(one[delay:], one[:-delay]) is None


def test_ordinary_channels_do_not_count() -> None:
    one, other = voice(0), voice(1)
    size = min(one.size, other.size)
    assert taken(one, one) is None
    assert taken(one, 0 * one) is None
    assert taken(0 * one, 0 * one) is None
    assert taken(one[:size], other[:size]) is None
    assert taken(noise(size, 0), noise(size, 1)) is None
    assert taken(*[noise(size, seed) for seed in range(32)]) is None


@pytest.mark.parametrize("offset", [0.05, -0.9])
def test_an_offset_does_not_count(offset: float) -> None:
    one = voice()
    assert taken(one, -0.9 * one + offset) == 0
    assert taken(one + offset, -1.1 * one) == 1
    assert taken(one + offset, one - offset) is None


@pytest.mark.parametrize("rate", [1_000, 11_025, 768_000])
def test_energy_of_any_rate(rate: int) -> None:
    samples = np.tile(np.array([0.5, -0.5], np.float32), rate)
    frames = samples.size // (rate // 100) * (rate // 100)
    assert frame_energies(samples[None] + 1, rate) == pytest.approx([0.25 * frames], rel=0.01)
