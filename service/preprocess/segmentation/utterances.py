"""Cut the speech of one channel into utterances while the samples arrive."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from service.preprocess.resample_trim import MARGIN
from service.preprocess.segmentation.history import FrameHistory, SampleHistory
from service.preprocess.segmentation.speech import (
    FRAMES_PER_SECOND,
    DetectedFrames,
    Region,
    RegionFinder,
    SpeechDetector,
    sample_of,
)
from service.results import SAMPLING_RATE, Floats, Utterance

SHORTEST = 2.0
"""Seconds. A shorter utterance is merged with speech that follows soon; at most a quarter of `LONGEST`."""

LONGEST = 15.0
"""Seconds. Longer speech is split."""

PAUSE = 0.5
"""Seconds without speech that end an utterance."""

PAUSE_WHEN_SHORT = 0.6
"""The same for utterances below `SHORTEST`, so that they are merged with the next one more often."""

PAUSE_WHEN_LONG = 0.3
"""The same for utterances beyond two thirds of `LONGEST`, which would otherwise soon be split within a word."""

CONTEXT = 0.2
"""Seconds of samples before and after the frames with speech. The model's own trimming needs some 70 ms of them to find
the same bounds as in the whole file, and the detector may miss a soft onset."""

_MARGIN = MARGIN / SAMPLING_RATE
"""Seconds before and after the frames with speech that count as speech, as in the model's own trimming."""

_MIN_LEVEL_RANGE = 5.0
"""Decibels between the 10th and the 90th percentile of an utterance's levels, below which it is a tone or noise. The
range of speech is over 10 dB as soon as it is twice as loud as the noise."""

_SHORTEST_FRAMES = round(SHORTEST * FRAMES_PER_SECOND)
_LONGEST_FRAMES = round((LONGEST - 2 * _MARGIN) * FRAMES_PER_SECOND)
_EMPTY: Floats = np.empty(0, np.float32)


class UtteranceCutter:
    """Cuts the speech of one channel into utterances of `SHORTEST` to `LONGEST` seconds.

    - A pause of `PAUSE` ends an utterance. An utterance shorter than `SHORTEST` ends only after `PAUSE_WHEN_SHORT`, so
      that short ones are merged with their neighbours; isolated ones stay short.
    - Speech longer than `LONGEST` is split at its quietest point after `LONGEST / 2` that leaves at least `SHORTEST`.
    - Clicks and steady sounds are not utterances.

    An utterance is returned at the latest 0.11 s (`speech.LOOK_AHEAD`) after the pause that ends it: 0.61 s after
    speech ends, 0.71 s if it is short. The result does not depend on how the samples are split into pushes. About
    `LONGEST` + 10 seconds of samples are kept, in addition to those of one push.

    Args:
        sampling_rate: in Hz, at least 1000.
    """

    def __init__(self, sampling_rate: int) -> None:
        self._rate = sampling_rate
        self._waiting: list[Floats] = []
        self._waiting_size = 0
        self._detector = SpeechDetector(sampling_rate)
        self._regions = RegionFinder()
        self._samples = SampleHistory()
        self._frames = FrameHistory()
        self._current: Region | None = None
        self._last_split = 0  # the frame where the last utterance was split off

    @property
    def settled(self) -> float:
        """Seconds; all utterances that end before this have been returned."""
        # A split of the current utterance would not be earlier than this.
        half = _LONGEST_FRAMES // 2 - round(PAUSE_WHEN_SHORT * FRAMES_PER_SECOND)
        return self._sample(self._earliest(lambda current: min(current.end, current.start + half))) / self._rate

    def push(self, samples: Floats) -> list[Utterance]:
        """Take the next samples and return the utterances that are now complete, in order.

        Args:
            samples: float32 of shape (time,), any number of them; finite.
        """
        self._waiting.append(samples.copy())
        self._waiting_size += samples.size
        if self._samples.end + self._waiting_size < self._detector.due:  # small pushes must be cheap
            return []
        return self._advance(self._detector.push(self._take_waiting()))

    def finish(self) -> list[Utterance]:
        """Return the remaining utterances. Nothing can be pushed afterwards."""
        utterances = self._advance(self._detector.push(self._take_waiting())) + self._advance(self._detector.finish())
        for region in self._regions.finish():
            utterances += self._add(region)
        if self._current:
            utterances += self._end(self._current)
        return utterances

    def _take_waiting(self) -> Floats:
        samples = self._waiting[0] if len(self._waiting) == 1 else np.concatenate([_EMPTY, *self._waiting])
        self._waiting, self._waiting_size = [], 0
        self._samples.append(samples)
        return samples

    def _advance(self, frames: DetectedFrames) -> list[Utterance]:
        """Take the next frames and return the utterances that are now complete."""
        utterances: list[Utterance] = []
        if not frames.marks.size:
            return utterances
        self._frames.append(frames)
        for region in self._regions.push(frames.marks):
            utterances += self._add(region)
        if self._regions.open:
            utterances += self._add(self._regions.open)
        if self._current and self._ends_before(self._current, self._regions.clear):
            utterances += self._end(self._current)
        needed = self._earliest(lambda current: current.start)
        self._frames.forget(needed)
        self._samples.forget(self._sample(needed) - round(CONTEXT * self._rate))
        return utterances

    def _earliest(self, of_current: Callable[[Region], int]) -> int:
        """Return `of_current` of the current utterance, or the first frame of a possible next one if earlier."""
        frames = [of_current(self._current)] if self._current else []
        # An open region is part of the current utterance.
        return min(frames if self._regions.open else [*frames, self._regions.clear])

    def _add(self, region: Region) -> list[Utterance]:
        """Add a region, which may be one that has grown, to the current utterance, or begin a new one with it.

        Returns the utterances that this completes.
        """
        utterances = []
        if self._current and self._ends_before(self._current, region.start):
            utterances += self._end(self._current)
        if self._current:
            self._current.end = max(self._current.end, region.end)
        else:
            self._current = Region(region.start, region.end)
        while self._current.end - self._current.start > _LONGEST_FRAMES:
            utterances += self._split(self._current)
        return utterances

    def _ends_before(self, current: Region, following: int) -> bool:
        """Return whether the pause between the current utterance and a frame with speech is long enough to end it."""
        length = current.end - current.start
        if length < _SHORTEST_FRAMES:
            pause = PAUSE_WHEN_SHORT
        else:
            pause = PAUSE if length * 3 <= _LONGEST_FRAMES * 2 else PAUSE_WHEN_LONG
        return following - current.end >= round(pause * FRAMES_PER_SECOND)

    def _end(self, current: Region) -> list[Utterance]:
        """End the current utterance."""
        self._current = None
        return self._utterance(current, self._last_split, None)

    def _split(self, current: Region) -> list[Utterance]:
        """Split the current utterance at its quietest point; what follows that stays the current utterance."""
        first = current.start + _LONGEST_FRAMES // 2
        split = self._frames.quietest(first, current.start + _LONGEST_FRAMES - _SHORTEST_FRAMES)
        end, start = self._frames.speech_around(split)
        utterances = self._utterance(Region(current.start, end), self._last_split, split)
        self._last_split, current.start = split, start
        return utterances

    def _utterance(self, region: Region, split_before: int, split_after: int | None) -> list[Utterance]:
        """Make an utterance, or none of a steady sound. It does not extend beyond the splits around it."""
        if self._frames.level_range(region.start, region.end) < _MIN_LEVEL_RANGE:
            return []
        lowest = self._sample(split_before)
        highest = self._samples.end if split_after is None else self._sample(split_after)

        def widened(seconds: float) -> tuple[int, int]:
            by = round(seconds * self._rate)
            return max(self._sample(region.start) - by, lowest), min(self._sample(region.end) + by, highest)

        start, end = widened(_MARGIN)
        return [Utterance(start / self._rate, end / self._rate, self._samples.between(*widened(CONTEXT)))]

    def _sample(self, frame: int) -> int:
        return sample_of(frame, self._rate)
