"""What a cutter keeps of the last seconds: samples, and the frames made of them. What is needed no more is dropped."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from service.preprocess.segmentation.speech import Frames
from service.results import Floats

_QUIET_WINDOW = 20
"""Frames over which the quietest point is looked for (0.2 s): a pause between words rather than a closed mouth."""


class Sound:
    """The samples since a moment.

    Attributes:
        end: how many there have been.
    """

    def __init__(self) -> None:
        self.end = 0
        self._begin = 0
        self._pieces: deque[Floats] = deque()

    def append(self, samples: Floats) -> None:
        """Take the next samples; they are not copied."""
        self._pieces.append(samples)
        self.end += samples.size

    def forget(self, before: int) -> None:
        """Drop whole pieces that end before a sample."""
        while self._pieces and self._begin + self._pieces[0].size <= before:
            self._begin += self._pieces.popleft().size

    def between(self, begin: int, end: int) -> Floats:
        """Copy samples that are there."""
        position, chosen = self._begin, []
        for piece in self._pieces:
            chosen.append(piece[max(begin - position, 0) : max(end - position, 0)])
            position += piece.size
        return np.concatenate(chosen)


class Trail:
    """The frames since a moment."""

    def __init__(self) -> None:
        self._begin = 0
        self._levels: NDArray[np.float64] = np.empty(0)
        self._marks: NDArray[np.int8] = np.empty(0, np.int8)

    def append(self, frames: Frames) -> None:
        """Take the next frames."""
        self._levels = np.concatenate([self._levels, frames.levels])
        self._marks = np.concatenate([self._marks, frames.marks])

    def forget(self, before: int) -> None:
        """Drop frames before one."""
        count = max(before - self._begin, 0)
        self._levels, self._marks = self._levels[count:], self._marks[count:]
        self._begin += count

    def spread(self, start: int, end: int) -> float:
        """Decibels between soft and loud frames."""
        soft, loud = np.percentile(self._levels[start - self._begin : end - self._begin], [10, 90])
        return float(loud - soft)

    def quietest(self, start: int, end: int) -> int:
        """The frame in the middle of the quietest fifth of a second that lies between two frames."""
        powers = 10 ** (self._levels[start - self._begin : end - self._begin] / 10)
        sums = np.convolve(powers, np.ones(_QUIET_WINDOW), "valid")
        return start + int(sums.argmin()) + _QUIET_WINDOW // 2

    def around(self, frame: int) -> tuple[int, int]:
        """The end of the sound before a frame, and the beginning of that from it on, which are there."""
        sounding = np.flatnonzero(self._marks) + self._begin
        place = int(np.searchsorted(sounding, frame))
        return int(sounding[place - 1]) + 1, int(sounding[place])
