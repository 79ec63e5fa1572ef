"""Telephone audio is detected at any sampling rate, and other audio is not taken for it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soxr

from service.preprocess.bandwidth import EDGE, is_narrow
from service.preprocess.decode import decode
from service.results import Floats
from tests.audio_samples import AMR, AMR_WB, CLIPS, encode, encode_soundfile, speech

CODECS = {
    "8 kHz": ("WAV", "PCM_16"),
    "a-law": ("WAV", "ALAW"),
    "mu-law": ("AU", "ULAW"),
    "gsm": ("WAV", "GSM610"),
}


def through(codec: str, samples: Floats) -> Floats:
    """Encode samples (channel, time) at 8 kHz as a telephone does, and decode them."""
    return decode(encode_soundfile(samples, 8_000, *CODECS[codec]), max_duration=60).samples


def resampled(samples: Floats, old: int, new: int) -> Floats:
    """Resample samples (channel, time), rounded to 16 bits."""
    changed = soxr.resample(samples.T, old, new).T
    rounded: Floats = (np.round(changed * 32767) / 32768).astype(np.float32)
    return rounded


@pytest.mark.parametrize("clip", range(len(CLIPS)))
@pytest.mark.parametrize("level", [1, 0.1, 0.01])
def test_studio_recordings_are_wide(clip: int, level: float) -> None:
    assert not is_narrow(speech(clip=clip) * level, 16_000)
    assert not is_narrow(speech(44_100, clip=clip) * level, 44_100)


@pytest.mark.parametrize("clip", range(len(CLIPS)))
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 48_000])
def test_telephone_audio_is_narrow(clip: int, codec: str, rate: int) -> None:
    samples = through(codec, speech(8_000, clip=clip))
    assert is_narrow(resampled(samples, 8_000, rate) if rate != 8_000 else samples, rate)


@pytest.mark.parametrize("level", [2, 0.1, 0.01])
def test_quiet_and_loud_telephone_audio_is_narrow(level: float) -> None:
    assert is_narrow(resampled(np.clip(through("mu-law", speech(8_000)) * level, -1, 1), 8_000, 16_000), 16_000)


def test_amr_is_narrow_and_amr_wb_is_not() -> None:
    narrow, wide = (decode(file.read_bytes(), max_duration=10) for file in (AMR, AMR_WB))
    assert is_narrow(narrow.samples, narrow.sampling_rate)
    assert is_narrow(resampled(narrow.samples, 8_000, 16_000), 16_000)
    assert not is_narrow(wide.samples, wide.sampling_rate)


@pytest.mark.parametrize("name", ["mp3", "m4a", "ogg-vorbis", "webm", "ogg-opus"])
def test_lossy_formats_stay_wide(name: str) -> None:
    waveform = decode(encode(name, speech(48_000), 48_000), max_duration=10)
    assert not is_narrow(waveform.samples, waveform.sampling_rate)


def test_one_wide_channel_makes_it_wide() -> None:
    wide = speech()
    narrow = resampled(through("a-law", speech(8_000, clip=1)), 8_000, 16_000)
    length = min(wide.shape[1], narrow.shape[1])
    wide, narrow = wide[:, :length], narrow[:, :length]
    assert is_narrow(np.concatenate([narrow, narrow]), 16_000)
    assert not is_narrow(np.concatenate([narrow, 0.1 * wide]), 16_000)
    assert not is_narrow(np.concatenate([wide, narrow]), 16_000)


@pytest.mark.parametrize("length", [1, 200, 16_000])
def test_silence_and_rounding_noise_are_narrow(length: int) -> None:
    assert is_narrow(np.zeros((2, length), np.float32), 16_000)
    # The error of rounding to 16 bits.
    noise = np.random.default_rng(0).uniform(-(2**-16), 2**-16, (2, length)).astype(np.float32)
    assert is_narrow(noise, 44_100)


def test_long_and_short_noise_is_wide() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 16_000)).astype(np.float32)
    assert not is_narrow(noise, 16_000)
    assert not is_narrow(noise[:, :100], 16_000)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_samples_that_are_not_finite_are_no_error(value: float) -> None:
    samples = np.full((1, 16_000), value, np.float32)
    assert is_narrow(samples, 16_000) in (True, False)


def test_any_rate_and_number_of_channels() -> None:
    for rate in (1_000, 8_001, 8_601, 9_999, 192_000, 768_000):
        for channels in (1, 32):
            assert is_narrow(np.zeros((channels, rate // 10), np.float32), rate)


@pytest.mark.parametrize(("frequency", "narrow"), [(4_300, True), (4_700, False)])
def test_the_edge(frequency: int, narrow: bool) -> None:
    times = np.arange(16_000) / 16_000  # in frames of 16 ms a tone is about 125 Hz wide to each side
    tones = np.sin(2 * np.pi * 1_000 * times) + np.sin(2 * np.pi * frequency * times)
    samples: Floats = (tones[None] / 4).astype(np.float32)
    assert is_narrow(samples, 16_000) == narrow


TEXTS = {
    "service/page/i18n/en.js": r"nothing above (\S+) kHz",
    "service/page/i18n/zh.js": r"([0-9.]+) kHz 以上没有内容",
    "service/results.py": r"nothing is above (\S+) kHz",
    "docs/api.md": r"nothing is above (\S+) kHz",
    "tests/api/openapi.json": r"Nothing is above (\S+) kHz",
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_name_the_same_edge(name: str) -> None:
    text = (Path(__file__).parents[2] / name).read_text(encoding="utf-8")
    assert set(re.findall(TEXTS[name], text)) == {f"{EDGE / 1000}"}
