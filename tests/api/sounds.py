"""Small generated sound files."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import soundfile
from numpy.typing import NDArray

from service.results import Floats

RATE = 16_000


def wav(seconds: float = 0.5, *, channels: int = 1, rate: int = RATE, seed: int = 0, level: float = 0.3) -> bytes:
    """Noise as a float WAV, different in every channel; silence where `level` is 0."""
    noise = np.random.default_rng(seed).uniform(-level, level, (round(seconds * rate), channels))
    return as_wav(noise, rate)


def talk(seconds: float, *, rate: int = RATE, pitch: float = 220.0, level: float = 0.3) -> Floats:
    """Five different bursts a second with pauses, like syllables, which the detector takes for speech."""
    time = np.arange(round(seconds * rate)) / rate
    loudness = np.sin(np.pi * ((5 * time) % 1)) ** 2 * (0.6 + 0.4 * np.sin(2 * np.pi * 0.7 * time))
    return (level * loudness * np.sin(2 * np.pi * pitch * time)).astype(np.float32)


def call(seconds: float, *channels: Sequence[tuple[float, float]], rate: int = 8000, container: str = "WAV") -> bytes:
    """A file whose channels are silent except for speech in the given intervals (seconds), at various pitches."""
    samples = np.zeros((round(seconds * rate), len(channels)), np.float32)
    number = 0
    for channel, turns in enumerate(channels):
        for begin, end in turns:
            words = talk(end - begin, rate=rate, pitch=200 + 15 * (number % 40))
            samples[round(begin * rate) :, channel][: words.size] = words
            number += 1
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=container, subtype="PCM_16")
    return buffer.getvalue()


def as_wav(samples: NDArray[np.floating], rate: int = RATE) -> bytes:
    """Samples of shape (time, channel) as a float WAV."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.astype(np.float32), rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


CLIP = wav()
AS_WAV = {"content-type": "audio/wav"}
