"""Normalises waveforms for the encoder."""

from __future__ import annotations

import numpy as np

from service.results import Floats

_EPS = 1e-5


def normalized(waveform: Floats) -> Floats:
    """Normalise float32 (time,) to zero mean and unit variance; 1e-5 is added to the variance."""
    # Mean and variance in float64: over a long clip, float32 sums would lose precision.
    centred = waveform.astype(np.float64)
    mean = centred.mean()
    centred -= mean
    # Not `dot`: OpenBLAS threads spin after it, on cores that the model needs next.
    variance = np.einsum("i,i->", centred, centred) / centred.size
    samples: Floats = waveform - np.float32(mean)
    samples *= np.float32(1.0 / np.sqrt(variance + _EPS))
    return samples
