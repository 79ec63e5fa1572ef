"""The last seconds of samples and of frames. What is not needed any more is dropped."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from service.preprocess.segmentation.speech import DetectedFrames
from service.results import Floats

_QUIET_WINDOW = 20
"""Frames over which power is summed to find the quietest point (0.2 s): longer than the closure of a plosive."""


class SampleHistory:
    """The latest samples of one channel. Indices count from the first sample ever appended.

    Attributes:
        end: number of samples appended so far.
    """

    def __init__(self) -> None:
        self.end = 0
        self._begin = 0
        self._pieces: deque[Floats] = deque()

    def append(self, samples: Floats) -> None:
        """Append the next samples, without copying them."""
        self._pieces.append(samples)
        self.end += samples.size

    def forget(self, before: int) -> None:
        """Drop the pieces that end at or before a sample."""
        while self._pieces and self._begin + self._pieces[0].size <= before:
            self._begin += self._pieces.popleft().size

    def between(self, begin: int, end: int) -> Floats:
        """Return a copy of samples, which must not have been dropped."""
        position, chosen = self._begin, []
        for piece in self._pieces:
            chosen.append(piece[max(begin - position, 0) : max(end - position, 0)])
            position += piece.size
        return np.concatenate(chosen)


class FrameHistory:
    """The latest frames of one channel. Indices count from the first frame ever appended."""

    def __init__(self) -> None:
        self._begin = 0
        self._levels: NDArray[np.float64] = np.empty(0)
        self._marks: NDArray[np.int8] = np.empty(0, np.int8)

    def append(self, frames: DetectedFrames) -> None:
        """Append the next frames."""
        self._levels = np.concatenate([self._levels, frames.levels])
        self._marks = np.concatenate([self._marks, frames.marks])

    def forget(self, before: int) -> None:
        """Drop the frames before a frame."""
        count = max(before - self._begin, 0)
        self._levels, self._marks = self._levels[count:], self._marks[count:]
        self._begin += count

    def level_range(self, start: int, end: int) -> float:
        """Return the decibels between the 10th and the 90th percentile of the levels."""
        soft, loud = np.percentile(self._levels[start - self._begin : end - self._begin], [10, 90])
        return float(loud - soft)

    def quietest(self, start: int, end: int) -> int:
        """Return the frame in the middle of the quietest 0.2 s between two frames."""
        powers = 10 ** (self._levels[start - self._begin : end - self._begin] / 10)
        sums = np.convolve(powers, np.ones(_QUIET_WINDOW), "valid")
        return start + int(sums.argmin()) + _QUIET_WINDOW // 2

    def speech_around(self, frame: int) -> tuple[int, int]:
        """Return the end of the last frame with speech before a frame, and the first one with speech from it on.

        Both must exist.
        """
        speech = np.flatnonzero(self._marks) + self._begin
        index = int(np.searchsorted(speech, frame))
        return int(speech[index - 1]) + 1, int(speech[index])
