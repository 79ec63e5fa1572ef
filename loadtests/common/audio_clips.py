"""Audio of the load tests: synthetic speech of any length, and recorded clips."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from loadtests.common.paths import EMODB
from service.data import EXAMPLES
from service.model.synthetic_speech import speech_like
from service.preprocess.resample_trim import resample
from service.results import SAMPLING_RATE, Floats

_SUFFIXES = {".flac", ".wav", ".ogg", ".mp3"}
_SEED = 7
_SYNTHESIZED_SECONDS = 10.0


def speech(seconds: float) -> Floats:
    """Synthetic speech, float32 (time,) at 16 kHz; always the same for a length.

    Clips of more than 10 s repeat one of 10 s: synthesis of a long clip would need more memory than some models do, and
    so would hide their peak memory.
    """
    return np.resize(speech_like(min(seconds, _SYNTHESIZED_SECONDS), _SEED), round(seconds * SAMPLING_RATE))


def stereo_with_silence(seconds: float, sampling_rate: int) -> Floats:
    """Two voices, one per channel, with half a second of near silence before and after: float32 (2, time)."""
    begin = round(0.5 * sampling_rate)
    voices = [soxr.resample(speech_like(seconds - 1, seed), SAMPLING_RATE, sampling_rate) for seed in (_SEED, 11)]
    samples = np.random.default_rng(_SEED).normal(0, 1e-4, (2, round(seconds * sampling_rate))).astype(np.float32)
    samples[:, begin : begin + voices[0].size] += np.stack(voices)
    return samples


def wav(samples: Floats, sampling_rate: int = SAMPLING_RATE) -> bytes:
    """A WAV file with 16-bit samples."""
    file = io.BytesIO()
    soundfile.write(file, samples.T, sampling_rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def read_clip(path: Path) -> Floats:
    """An audio file, mixed to mono and resampled to 16 kHz: float32 (time,)."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return resample(samples.mean(axis=1), rate)


def recorded_clips(more: Path | None = None) -> Iterator[tuple[str, Floats]]:
    """Name and samples, mono at 16 kHz, of the bundled clips and of those below the directory `more`."""
    for directory in (EXAMPLES, EMODB) if more is None else (EXAMPLES, EMODB, more):
        for path in sorted(path for path in directory.rglob("*") if path.suffix in _SUFFIXES):
            yield path.stem, read_clip(path)
