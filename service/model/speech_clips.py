"""The bundled recordings, on which precisions are compared and INT8 graphs are calibrated."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import soundfile

from service.results import SAMPLING_RATE, Floats


@cache
def speech_clips(directory: Path) -> tuple[Floats, ...]:
    """The recordings in a directory of `service.data`, by name: float32 (time,) at 16 kHz."""
    clips = []
    for path in sorted(directory.iterdir()):
        if path.suffix in (".flac", ".opus", ".wav"):
            samples, rate = soundfile.read(path, dtype="float32")
            if rate != SAMPLING_RATE or samples.ndim != 1:
                raise ValueError(f"{path} is not mono at {SAMPLING_RATE} Hz")
            clips.append(samples)
    return tuple(clips)
