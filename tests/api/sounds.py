"""Small sound files, made here."""

from __future__ import annotations

import io

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 16_000


def wav(seconds: float = 0.5, *, channels: int = 1, rate: int = RATE, seed: int = 0, level: float = 0.3) -> bytes:
    """Noise as a float WAV; every channel is another noise, silence where `level` is 0."""
    noise = np.random.default_rng(seed).uniform(-level, level, (round(seconds * rate), channels))
    return as_wav(noise, rate)


def as_wav(samples: NDArray[np.floating], rate: int = RATE) -> bytes:
    """Samples of shape (time, channel) as a float WAV."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.astype(np.float32), rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()
