"""Synthetic speech over noise, and helpers to cut it and to compare the bounds of utterances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.preprocess.segmentation.utterances import UtteranceCutter
from service.results import Floats, Utterance

RATE = 8000


def noise(seconds: float, level: float = -60.0, rate: int = RATE, seed: int = 0) -> Floats:
    """White noise of a level in dBFS."""
    values = np.random.default_rng(seed).normal(0, 10 ** (level / 20), round(seconds * rate))
    return values.astype(np.float32)


def talk(seconds: float, rate: int = RATE, level: float = 0.3) -> Floats:
    """Bursts like syllables, five a second, each of another loudness, with nothing in between."""
    time = np.arange(round(seconds * rate)) / rate
    loudness = np.sin(np.pi * ((5 * time) % 1)) ** 2 * (0.6 + 0.4 * np.sin(2 * np.pi * 0.7 * time))
    return (level * loudness * np.sin(2 * np.pi * 220 * time)).astype(np.float32)


def recording(*parts: float | Floats, level: float = -60.0, rate: int = RATE) -> Floats:
    """Sounds, and seconds of silence between them, over noise."""
    sounds = [part if isinstance(part, np.ndarray) else np.zeros(round(part * rate), np.float32) for part in parts]
    samples = np.concatenate(sounds)
    return samples + noise(samples.size / rate, level, rate)[: samples.size]


def bounds(utterances: Sequence[Utterance]) -> NDArray[np.float64]:
    """Start and end of each utterance in seconds."""
    return np.array([(utterance.start, utterance.end) for utterance in utterances])


def near(*expected: tuple[float, float]) -> Any:
    """Bounds of utterances where speech begins and ends at the seconds given.

    The tolerance is the sum of the margin that belongs to the utterance (50 ms), a frame and its neighbour (20 ms), and
    the time that a syllable of `talk` takes to rise above the threshold (up to 40 ms).
    """
    return pytest.approx(np.array(expected), abs=0.11)


def cut(samples: Floats, rate: int = RATE, sizes: Sequence[int] = ()) -> list[Utterance]:
    """Push pieces of the sizes given, then the rest at once."""
    cutter = UtteranceCutter(rate)
    found = []
    for size in sizes:
        found += cutter.push(samples[:size])
        samples = samples[size:]
    return found + cutter.push(samples) + cutter.finish()


def offset_of(utterance: Utterance, samples: Floats) -> int:
    """Index of the first sample of an utterance in the samples that it was cut from."""
    piece = utterance.samples
    for begin in np.flatnonzero(samples[: samples.size - piece.size + 1] == piece[0]).tolist():
        if np.array_equal(samples[begin : begin + piece.size], piece):
            return int(begin)
    raise AssertionError("the samples of the utterance are not those that were pushed")
