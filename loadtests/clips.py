"""The audio that is measured with: synthetic speech of any length, and the real clips of the repository."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from service.model.synthetic_speech import speech_like
from service.preprocess.resample_trim import resample
from service.results import SAMPLING_RATE, Floats

_ROOT = Path(__file__).resolve().parent.parent
_BUNDLED = (_ROOT / "service" / "examples", _ROOT / "tests" / "data" / "emodb")
_ENDINGS = {".flac", ".wav", ".ogg", ".mp3"}
_SEED = 7
_LONGEST = 10.0


def speech(seconds: float) -> Floats:
    """Synthetic speech, float32 (time,) at 16 kHz; always the same for a length.

    Long clips repeat a shorter one: making them would need more memory than some of what is measured.
    """
    return np.resize(speech_like(min(seconds, _LONGEST), _SEED), round(seconds * SAMPLING_RATE))


def stereo_with_silence(seconds: float, sampling_rate: int) -> Floats:
    """Two voices, one a channel, between half a second of near silence on both sides: float32 (2, time)."""
    rest = round(0.5 * sampling_rate)
    voices = [soxr.resample(speech_like(seconds - 1, seed), SAMPLING_RATE, sampling_rate) for seed in (_SEED, 11)]
    quiet = np.random.default_rng(_SEED).normal(0, 1e-4, (2, round(seconds * sampling_rate))).astype(np.float32)
    quiet[:, rest : rest + voices[0].size] += np.stack(voices)
    return quiet


def wav(samples: Floats, sampling_rate: int = SAMPLING_RATE) -> bytes:
    """A WAV file with 16-bit samples."""
    file = io.BytesIO()
    soundfile.write(file, samples.T, sampling_rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def real_clips(more: Path | None = None) -> Iterator[tuple[str, Floats]]:
    """Name and samples, mono at 16 kHz, of the bundled clips and of those below the directory `more`."""
    directories = _BUNDLED if more is None else (*_BUNDLED, more)
    for directory in directories:
        for path in sorted(path for path in directory.rglob("*") if path.suffix in _ENDINGS):
            samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
            yield path.stem, resample(samples.mean(axis=1), rate)
