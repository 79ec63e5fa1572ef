"""Speech on which precisions and compiled programs are checked before they serve requests."""

from __future__ import annotations

from functools import cache

import numpy as np
import soundfile

from service.data import EXAMPLES
from service.model.synthetic_speech import speech_like
from service.preprocess.resample_trim import resample
from service.results import SAMPLING_RATE, Floats

_SYNTHETIC = 4


@cache
def short_clips() -> tuple[Floats, ...]:
    """The bundled recordings and four synthetic voices: float32 (time,) at 16 kHz, some seconds each."""
    real = []
    for path in sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".flac", ".wav")):
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        real.append(resample(samples.mean(axis=1), rate))
    return (*real, *(speech_like(4.0, seed) for seed in range(_SYNTHETIC)))


def long_clip(seconds: float, seed: int = 0) -> Floats:
    """The short clips one after another, repeated up to a length in seconds; `seed` shifts where they start."""
    speech = np.concatenate(short_clips())
    return np.resize(np.roll(speech, -seed * SAMPLING_RATE), round(seconds * SAMPLING_RATE))
