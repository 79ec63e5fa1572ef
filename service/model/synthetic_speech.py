"""Deterministic speech-like waveforms, on which two implementations of the same model are compared."""

from __future__ import annotations

import numpy as np

from service.results import SAMPLING_RATE, Floats


def speech_like(seconds: float, seed: int = 0) -> Floats:
    """Voiced syllables of varying pitch between noisy consonants and short pauses.

    Args:
        seconds: length.
        seed: selects pitch, formants and rhythm.

    Returns:
        float32 (time,) at 16 kHz, the peak at 0.5.
    """
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    pitch = rng.uniform(90, 250) * 2 ** (0.3 * np.sin(2 * np.pi * rng.uniform(0.2, 0.9) * time + rng.uniform(0, 6)))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLING_RATE
    formants = rng.uniform((300, 900, 2200), (800, 1800, 3200))
    voiced = np.zeros_like(time)
    for harmonic in range(1, 25):
        distance = (harmonic * pitch.mean() - formants) / (60, 90, 150)
        voiced += (0.02 + (1 / (1 + distance**2)).sum()) * np.sin(harmonic * phase)
    syllables = np.clip(np.sin(2 * np.pi * rng.uniform(2, 5) * time + rng.uniform(0, 6)) + 0.3, 0, None)
    hiss = rng.standard_normal(time.size) * np.clip(0.3 - syllables, 0, None)
    waveform = voiced / np.abs(voiced).max() * syllables + hiss + 0.002 * rng.standard_normal(time.size)
    samples: Floats = (0.5 * waveform / np.abs(waveform).max()).astype(np.float32)
    return samples
