"""Cutting, selecting and mixing channels, and audio that is rejected."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import AudioNotFinite, AudioTooShort, InvalidOptions
from service.preprocess import resample_trim
from service.preprocess.clips import make_clips
from service.results import MIN_SAMPLES, Clip, Floats, Waveform
from tests.rounding import UNIT_ROUNDOFF

RATE = 1000
STEREO = np.stack([np.arange(2000), -np.arange(2000) / 2]).astype(np.float32)


def clips(
    samples: Floats = STEREO,
    rate: int = RATE,
    *,
    channels: Literal["mix", "split"] | int = "mix",
    start: float | None = None,
    end: float | None = None,
) -> list[Clip]:
    return make_clips(
        Waveform(samples, rate), channels=channels, start=start, end=end, trim=True, frame_embeddings=False
    )[0]


@pytest.mark.parametrize("order", ["C", "F"])
def test_channels(order: Literal["C", "F"]) -> None:
    samples = np.asarray(STEREO, order=order)
    (mix,) = clips(samples)
    assert np.array_equal(mix.samples, (STEREO[0] + STEREO[1]) / 2)
    one, two = clips(samples, channels="split")
    assert np.array_equal(one.samples, STEREO[0])
    assert np.array_equal(two.samples, STEREO[1])
    (chosen,) = clips(samples, channels=1)
    assert np.array_equal(chosen.samples, STEREO[1])
    for clip in (mix, one, two, chosen):
        assert clip.samples.dtype == np.float32
        assert clip.samples.flags.c_contiguous
        assert clip.sampling_rate == RATE


def test_mix_of_many_channels_is_their_mean() -> None:
    samples = np.random.default_rng(0).normal(size=(7, 500)).astype(np.float32)
    # Six additions and a division, each rounded: see Higham, "Accuracy and Stability of Numerical Algorithms", 4.2.
    tolerance = 7 * UNIT_ROUNDOFF / (1 - 7 * UNIT_ROUNDOFF) * np.abs(samples).mean(axis=0, dtype=np.float64)
    assert np.all(np.abs(clips(samples)[0].samples - samples.mean(axis=0, dtype=np.float64)) <= tolerance)


def test_mono_is_not_copied() -> None:
    samples = STEREO[:1].copy()
    for (clip,) in (clips(samples, channels="mix"), clips(samples, channels="split"), clips(samples, channels=0)):
        assert np.shares_memory(clip.samples, samples)


def test_a_clip_keeps_no_larger_array_in_memory() -> None:
    samples = STEREO.copy()
    made = clips(samples, channels=1) + clips(samples, channels="split") + clips(samples[:1], start=0.5, end=0.6)
    for clip in made:
        assert clip.samples.base is None
        assert not np.shares_memory(clip.samples, samples)


def test_options_are_passed_on() -> None:
    for trim, frame_embeddings in ((True, False), (False, True)):
        made, _ = make_clips(
            Waveform(STEREO, RATE), channels="split", start=None, end=None, trim=trim, frame_embeddings=frame_embeddings
        )
        assert [(clip.trim, clip.frame_embeddings) for clip in made] == [(trim, frame_embeddings)] * 2


@pytest.mark.parametrize(
    ("start", "end", "first", "last"),
    [
        (None, None, 0, 2000),
        (0.5, None, 500, 2000),
        (None, 0.5, 0, 500),
        (0.25, 0.75, 250, 750),
        (1.9, 7, 1900, 2000),
        (0, 1e9, 0, 2000),
        (0.1234, 0.5678, 123, 568),
    ],
)
def test_cut(start: float | None, end: float | None, first: int, last: int) -> None:
    (clip,) = clips(channels=0, start=start, end=end)
    assert np.array_equal(clip.samples, STEREO[0, first:last])


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"channels": 2}, ["channels"]),
        ({"start": 2.0}, ["start"]),
        ({"channels": 5, "start": 9.0, "end": 10.0}, ["channels", "start"]),
    ],
)
def test_options_that_do_not_fit(options: dict[str, float], fields: list[str]) -> None:
    with pytest.raises(InvalidOptions) as caught:
        clips(**options)  # type: ignore[arg-type] # one dictionary for options of several types
    assert [error.field for error in caught.value.errors] == fields


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e13, -1e30])
@pytest.mark.parametrize("channels", ["mix", "split", 1])
def test_samples_that_are_not_finite(value: float, channels: Literal["mix", "split"] | int) -> None:
    samples = STEREO.copy()
    samples[1, 700] = value
    with pytest.raises(AudioNotFinite):
        clips(samples, channels=channels)


def test_samples_that_are_not_scored_need_not_be_finite() -> None:
    samples = STEREO.copy()
    samples[1, 700] = np.nan
    assert len(clips(samples, channels=0)) == 1
    assert len(clips(samples, start=0.8)) == 1


def test_a_mix_beyond_float32() -> None:
    with pytest.raises(AudioNotFinite):
        clips(np.full((2, 1000), 3e38, np.float32))


@pytest.mark.parametrize(("start", "end"), [(None, 0.024), (1.976, None), (0.5, 0.5001)])
def test_too_short(start: float | None, end: float | None) -> None:
    with pytest.raises(AudioTooShort, match=r"at least 0\.025 s"):
        clips(start=start, end=end)


@given(rate=st.integers(1000, 768_000))
def test_the_shortest_clip_is_long_enough_for_the_model(rate: int) -> None:
    shortest = -(-rate // 40)  # 25 ms, rounded up
    (clip,) = clips(np.zeros((1, shortest), np.float32), rate)
    assert len(clip.samples) * 16_000 // rate >= MIN_SAMPLES
    with pytest.raises(AudioTooShort):
        clips(np.zeros((1, shortest - 1), np.float32), rate)


@pytest.mark.parametrize("rate", [1000, 8000, 11_025, 16_000, 22_050, 44_100, 44_101, 48_000, 768_000])
def test_the_shortest_clip_resampled(rate: int) -> None:
    (clip,) = clips(np.ones((1, -(-rate // 40)), np.float32), rate)
    assert len(resample_trim.resample(clip.samples, rate)) >= MIN_SAMPLES


def test_a_mix_that_cancels_out_is_the_loudest_channel() -> None:
    one = np.random.default_rng(0).normal(size=2000).astype(np.float32)
    samples = np.stack([one, -np.float32(1.01) * one, 0 * one])
    made, taken = make_clips(
        Waveform(samples, RATE), channels="mix", start=0.5, end=1.5, trim=True, frame_embeddings=False
    )
    assert taken == 1
    assert np.array_equal(made[0].samples, samples[1, 500:1500])
    assert made[0].samples.base is None
    each: list[Literal["split"] | int] = ["split", 0]
    for one_or_each in each:
        assert (
            make_clips(
                Waveform(samples, RATE), channels=one_or_each, start=None, end=None, trim=True, frame_embeddings=False
            )[1]
            is None
        )


def test_only_the_interval_decides_whether_a_mix_cancels_out() -> None:
    one = np.random.default_rng(0).normal(size=2000).astype(np.float32)
    samples = np.stack([one, np.concatenate([one[:1000], -one[1000:]])])
    for start, end, expected in ((None, None, None), (0, 1, None), (1, 2, 0)):
        taken = make_clips(
            Waveform(samples, RATE), channels="mix", start=start, end=end, trim=True, frame_embeddings=False
        )[1]
        assert taken == expected
