"""Detect speech in one channel by its energy while the samples arrive.

    samples ─levels of frames─▶ noise floor and loudness ─thresholds─▶ marks of frames ─▶ regions

Everything is numpy arithmetic for each frame of 10 ms, and some Python for each block of 100 ms. No fixed threshold
fits every recording, so thresholds adapt to the channel:

- The *floor* is the lowest level of the last ten seconds, since speakers pause for moments all the time. If the level
  is above the threshold but has hardly changed for a whole second, that was louder noise and not speech, and what came
  before is forgotten. Digital silence is ignored, since it does not predict the noise after it.
- How far the *noise* reaches above the floor is measured where nothing nearby may be speech.
- The *loudness* is that of the loudest block; it decays by 2 dB a second. A block that is louder than any level held
  around it contains a click, and counts for itself only.

A frame is loud if it exceeds noise and loudness by their thresholds. It is speech if it is loud, or if it is connected
to loud frames without falling to the noise in between. Energy cannot tell speech from music, laughter or a barking dog,
but it can from a steady tone or hum.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from service.results import Floats

FRAMES_PER_SECOND = 100
"""Frames do not overlap."""

BLOCK = 10
"""Frames that share their thresholds (100 ms)."""

LOOK_AHEAD = 0.11
"""Most seconds of audio that must follow a frame before it is decided: the rest of its block, and one more frame. The
first second is decided at its end, because the thresholds are unknown before."""

ON_ABOVE_FLOOR = 6.0
"""Decibels above the floor from which a frame is loud in even noise, which is 2 or 3 dB above the floor."""

ON_ABOVE_NOISE = 3.0
"""Decibels above uneven noise from which a frame is loud: above nine tenths of the blocks that must be noise."""

_NOISE_SHARE = 0.9
_NOISE_RANGE = 12.0
"""Noise is at most so many decibels above the floor."""

_NOISE_AFTER = 4
"""Blocks after speech that are not used as noise (0.4 s), however soft they are."""

OFF_BELOW_ON = 2.0
"""Decibels below the threshold of loud frames at which a neighbouring frame becomes quiet."""

ON_BELOW_LOUDNESS = 35.0
OFF_BELOW_LOUDNESS = 40.0
"""Decibels below the loudness at which frames are loud, and quiet: crosstalk from the other party, breath and rustling
clothes are softer. The model's own trimming uses the same 40 dB (`service.preprocess.resample_trim.QUIET`)."""

LOWEST = -70.0
"""Level in dBFS below which nothing is speech, as in `service.preprocess.resample_trim.SILENCE`."""

_CLICK = 20.0
"""A block whose mean level exceeds the highest level held around it by so many decibels contains a click. In speech it
does so by less, since syllables last longer than a block."""

_DECAY = 0.2
"""Decibels by which the loudness decays in each block."""

_MEMORY = 100
"""Blocks over which the floor is the minimum (10 s)."""

_STEADY_BLOCKS = 10
_STEADY_RANGE = 3.0
"""So many blocks (1 s) whose mean levels lie within so many decibels are not speech."""

_INITIAL_FLOOR = -50.0
"""Floor (dBFS) that is assumed before the first block, so that a file may begin within a word."""

_DIGITAL_SILENCE = 1e-9
"""Power (-90 dBFS) up to which a frame is ignored by the floor."""

_LEAST_POWER = 1e-12
"""Replaces a power of zero, whose level would be infinite."""

_MOST_EXTENSION = 30
"""Most frames between quiet and loud that extend a region before and after its loud frames (0.3 s)."""

_GAP = 20
"""Frames without speech that separate two regions (0.2 s): plosives and pauses between syllables are shorter."""

_LEAST_LOUD = 10
"""A region with fewer loud frames (0.1 s) is a click, not speech."""


@dataclass(frozen=True, slots=True)
class DetectedFrames:
    """Decided frames: `levels` in dBFS, float64 (frame,), and `marks`, int8 (frame,): 0 quiet, 1 between, 2 loud."""

    levels: NDArray[np.float64]
    marks: NDArray[np.int8]


class SpeechDetector:
    """Marks the frames of one channel. The result does not depend on how the samples are split into pushes.

    Args:
        sampling_rate: in Hz, at least 1000. Frame i begins at sample `i * sampling_rate // 100`.
    """

    def __init__(self, sampling_rate: int) -> None:
        self._rate = sampling_rate
        self._rest: Floats = np.empty(0, np.float32)
        self._measured = 0
        self._powers: NDArray[np.float64] = np.empty(0)  # measured and not yet decided
        self._power_before: float | None = None
        self._thresholds = _AdaptiveThresholds()

    @property
    def due(self) -> int:
        """Number of samples, from the first one on, at which the next frames are decided."""
        decided = self._measured - self._powers.size
        ready = decided + BLOCK if self._thresholds.known else _STEADY_BLOCKS * BLOCK
        return sample_of(ready + 1, self._rate)

    def push(self, samples: Floats) -> DetectedFrames:
        """Take float32 samples of shape (time,), which must be finite; return the frames that are now decided."""
        self._measure(np.concatenate([self._rest, samples]))
        ready = (self._powers.size - 1) // BLOCK * BLOCK
        return self._decide(ready if self._thresholds.known or ready >= _STEADY_BLOCKS * BLOCK else 0)

    def finish(self) -> DetectedFrames:
        """Return the remaining frames; samples that do not fill a frame are ignored."""
        return self._decide(self._powers.size)

    def _measure(self, samples: Floats) -> None:
        """Append the power of all complete frames. It is their variance, so that a constant offset does not count."""
        begin = self._measured * self._rate // FRAMES_PER_SECOND
        count = ((begin + samples.size + 1) * FRAMES_PER_SECOND - 1) // self._rate - self._measured
        edges = np.arange(self._measured, self._measured + count + 1) * self._rate // FRAMES_PER_SECOND - begin
        self._rest = samples[edges[-1] :].copy()
        if count:
            values = samples[: edges[-1]].astype(np.float64)
            sizes = np.diff(edges)
            means = np.add.reduceat(values, edges[:-1]) / sizes
            values *= values
            powers = np.add.reduceat(values, edges[:-1]) / sizes - means * means
            self._powers = np.concatenate([self._powers, powers])
            self._measured += count

    def _decide(self, count: int) -> DetectedFrames:
        """Decide the next `count` frames by the mean power of each frame and its two neighbours."""
        if count <= 0:
            return DetectedFrames(np.empty(0), np.empty(0, np.int8))
        before = self._powers[0] if self._power_before is None else self._power_before
        after = self._powers[min(count, self._powers.size - 1)]
        padded = np.concatenate([[before], self._powers[:count], [after]])
        neighbours = np.stack([padded[:-2], padded[1:-1], padded[2:]])
        self._power_before = float(self._powers[count - 1])
        self._powers = self._powers[count:]
        levels = 10 * np.log10(np.maximum(neighbours.mean(axis=0), _LEAST_POWER))
        on, off = self._thresholds.update(levels, silent=neighbours.min(axis=0) <= _DIGITAL_SILENCE)
        return DetectedFrames(levels, (levels > off).astype(np.int8) + (levels > on))


class _AdaptiveThresholds:
    """The thresholds that follow from the noise and the loudness of a channel.

    Attributes:
        known: whether there has been an update.
    """

    def __init__(self) -> None:
        self.known = False
        self._blocks = 0
        self._minima: deque[tuple[int, float]] = deque([(-1, _INITIAL_FLOOR)])  # ascending: the first one is the floor
        self._threshold = _INITIAL_FLOOR + ON_ABOVE_FLOOR
        self._noise: deque[float] = deque(maxlen=_MEMORY)  # levels of blocks that must be noise
        self._blocks_since_speech = 0
        self._recent: deque[float] = deque(maxlen=_STEADY_BLOCKS)
        self._loudness = LOWEST  # without the last block
        self._last_mean = LOWEST
        self._last_levels: NDArray[np.float64] = np.empty(0)  # of the last two blocks

    def update(
        self, levels: NDArray[np.float64], silent: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Update noise and loudness, and return the levels above which each frame is loud, and not quiet.

        Args:
            levels: of the frames of whole blocks; the last block may be shorter.
            silent: which frames contain digital silence.
        """
        starts = np.arange(0, levels.size, BLOCK)
        sizes = np.diff(starts, append=levels.size)
        lows = np.minimum.reduceat(np.where(silent, np.inf, levels), starts)
        means = np.add.reduceat(levels, starts) / sizes
        learnt = np.array(
            [
                self._update_block(low, mean, levels[start : start + BLOCK])
                for low, mean, start in zip(lows.tolist(), means.tolist(), starts.tolist(), strict=True)
            ]
        )
        if not self.known:
            self.known = True
            learnt[:_STEADY_BLOCKS] = learnt[:_STEADY_BLOCKS][-1]
        noise, loudness = np.repeat(learnt, sizes, axis=0).T
        on = np.maximum(np.maximum(noise, loudness - ON_BELOW_LOUDNESS), LOWEST)
        off = np.maximum(np.maximum(noise - OFF_BELOW_ON, loudness - OFF_BELOW_LOUDNESS), LOWEST)
        return on, off

    def _update_block(self, low: float, mean: float, levels: NDArray[np.float64]) -> tuple[float, float]:
        """Take a block: its lowest level, without digital silence, its mean level, and the levels of its frames.

        Returns the level that noise stays below, and the loudness.
        """
        number = self._blocks
        self._blocks += 1
        loudness = self._update_loudness(mean, levels)
        if math.isinf(low):  # only digital silence
            return self._threshold, loudness
        minima, recent = self._minima, self._recent
        while minima and minima[-1][1] >= low:
            minima.pop()
        minima.append((number, low))
        recent.append(mean)
        softest = min(recent)
        noise_rose = len(recent) == _STEADY_BLOCKS and self._threshold < softest > max(recent) - _STEADY_RANGE
        oldest = number - (_STEADY_BLOCKS if noise_rose else _MEMORY)
        while minima[0][0] <= oldest:
            minima.popleft()
        floor = minima[0][1]
        if noise_rose:
            self._noise.clear()
        self._blocks_since_speech = self._blocks_since_speech + 1 if mean < floor + _NOISE_RANGE else 0
        if self._blocks_since_speech > _NOISE_AFTER:
            self._noise.append(mean)
        uneven = sorted(self._noise)[int(_NOISE_SHARE * len(self._noise))] + ON_ABOVE_NOISE if self._noise else floor
        self._threshold = min(max(uneven, floor + ON_ABOVE_FLOOR), floor + _NOISE_RANGE)
        return self._threshold, loudness

    def _update_loudness(self, mean: float, levels: NDArray[np.float64]) -> float:
        """Return the loudness in a block. Whether the block before it was a click is known only now."""
        around = np.concatenate([self._last_levels, levels])
        if around.size >= BLOCK:
            held = float(sliding_window_view(around, BLOCK).min(axis=1).max())
            if self._last_mean <= held + _CLICK:
                self._loudness = max(self._last_mean, self._loudness)
        self._loudness -= _DECAY
        self._last_mean, self._last_levels = mean, around[-2 * BLOCK :]
        return max(mean, self._loudness)


@dataclass(slots=True)
class Region:
    """Frames from `start` up to `end` that contain speech."""

    start: int
    end: int


class RegionFinder:
    """Makes regions of speech from marks: loud frames, the frames that extend them, and short gaps.

    Attributes:
        open: the last region, if it is known to be speech and may still grow.
        clear: no region that is neither returned nor open begins before this frame.
    """

    def __init__(self) -> None:
        self.open: Region | None = None
        self.clear = 0
        self._now = 0
        self._after_quiet = 0  # the frame after the last quiet one
        self._region: Region | None = None
        self._loud = 0
        self._loud_end = 0

    def push(self, marks: NDArray[np.int8]) -> list[Region]:
        """Take the marks of the next frames; return the regions that have ended, in order."""
        ended: list[Region] = []
        begin, self._now = self._now, self._now + marks.size
        frames = np.arange(begin, self._now)
        after_quiet = np.maximum.accumulate(np.where(marks == 0, frames + 1, self._after_quiet))
        quiet = frames[marks == 0]
        self._extend(quiet)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], marks == 2, [False]])))
        for first, last in edges.reshape(-1, 2).tolist():
            start = max(int(after_quiet[first]), begin + first - _MOST_EXTENSION)
            self._end_before(start, ended)
            if self._region is None:
                self._region, self._loud = Region(start, start), 0
            self._loud += last - first
            self._loud_end = begin + last
            self._extend(quiet)
        if marks.size:
            self._after_quiet = int(after_quiet[-1])
        next_start = max(self._after_quiet, self._now - _MOST_EXTENSION)
        self._end_before(next_start, ended)
        self.open = self._region if self._loud >= _LEAST_LOUD else None
        self.clear = next_start if self._region is None else self._region.start
        return ended

    def finish(self) -> list[Region]:
        """Return the last region, if there is one. Nothing can be pushed afterwards."""
        ended: list[Region] = []
        self._end_before(self._now + _GAP, ended)
        return ended

    def _extend(self, quiet: NDArray[np.int64]) -> None:
        """Extend the region from its last loud frame to the next quiet one."""
        if self._region and self._after_quiet <= self._loud_end:  # no quiet frame has come yet
            following = quiet[np.searchsorted(quiet, self._loud_end) :]
            stop = int(following[0]) if following.size else self._now
            self._region.end = min(stop, self._loud_end + _MOST_EXTENSION)

    def _end_before(self, start: int, ended: list[Region]) -> None:
        """End the region if the next one, from `start` on, is too far away to be merged with it."""
        if self._region and start - self._region.end >= _GAP:
            if self._loud >= _LEAST_LOUD:
                ended.append(self._region)
            self._region = None


def sample_of(frame: int, sampling_rate: int) -> int:
    """Return the first sample of a frame."""
    return frame * sampling_rate // FRAMES_PER_SECOND
