"""Find speech in one channel by its energy, as the samples come in.

    samples ─levels of frames─▶ floor and loudness of the line ─thresholds─▶ marks of frames ─▶ regions

All of it is arithmetic on numpy arrays for each frame of 10 ms, and some Python for each block of 100 ms. A threshold
that fits one line would fit no other, so they follow the line:

- The *floor* is the lowest level of the last ten seconds, since people who speak pause for moments all the time. Where
  the level stands out and has hardly moved for a whole second, that was no speech but louder noise: what came before is
  forgotten. Digital silence says nothing about the noise that will come after it.
- How far the *noise* reaches above the floor is seen where nothing is near that could be speech.
- The *loudness* is that of the loudest tenth of a second; it fades by 2 dB a second.

A frame is loud when it stands out from noise and loudness, and speech when it is loud or joins loud frames without
falling to the noise in between. Energy cannot tell speech from music, laughter or a dog; a steady tone or hum it can.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.results import Floats

FRAMES_PER_SECOND = 100
"""Frames do not overlap."""

BLOCK = 10
"""Frames for which the thresholds stay the same (100 ms)."""

LOOK_AHEAD = 0.11
"""Seconds of audio, at most, that must follow a frame until it is decided: the rest of its block, and one frame more.
The first second is decided at its end, because before that nothing is known about the line."""

ON_ABOVE_FLOOR = 6.0
"""Decibels above the floor from which on a frame is loud, where the noise is even. The floor is a minimum: such noise
lies 2 or 3 dB above it."""

ON_ABOVE_NOISE = 3.0
"""Decibels above uneven noise from which on a frame is loud: above nine tenths of the blocks that must be noise."""

_NOISE_SHARE = 0.9
_NOISE_RANGE = 12.0
"""Noise lies within so many decibels above the floor."""

_NOISE_AFTER = 4
"""Blocks after speech that are not taken for noise (0.4 s), however soft they are."""

OFF_BELOW_ON = 2.0
"""Decibels below which a frame is quiet that follows or precedes a loud one."""

ON_BELOW_LOUDNESS = 35.0
OFF_BELOW_LOUDNESS = 40.0
"""Decibels below the loudness: the other party's voice that leaks into this channel, breath and clothes stay below.
The model's own trimming takes the same 40 dB (`service.preprocess.resample_trim.QUIET`)."""

LOWEST = -70.0
"""Level of full scale (dBFS) below which nothing is speech, as in `service.preprocess.resample_trim.SILENCE`."""

_FADING = 0.2
"""Decibels by which the loudness falls in each block."""

_MEMORY = 100
"""Blocks that the floor looks back (10 s)."""

_STEADY_BLOCKS = 10
_STEADY_RANGE = 3.0
"""So many blocks (1 s) whose mean levels lie within so many decibels are no speech."""

_SUPPOSED_FLOOR = -50.0
"""Level (dBFS) that the floor is supposed to have before the first block, so that a file may begin in a word."""

_DIGITAL_SILENCE = 1e-9
"""Power (-90 dBFS) up to which a frame says nothing about the line."""

_NOTHING = 1e-12

_LAP = 30
"""Frames by which quieter frames may prolong loud ones to each side (0.3 s)."""

_SYLLABLES = 20
"""Frames of quiet between loud ones that separate nothing yet (0.2 s): plosives, and pauses between syllables."""

_CLICK = 10
"""A region with fewer loud frames (0.1 s) is a click, no speech."""


@dataclass(frozen=True, slots=True)
class Frames:
    """Decided frames: `levels` in dBFS, float64 (frame,), and `marks`, int8 (frame,): 0 quiet, 1 between, 2 loud."""

    levels: NDArray[np.float64]
    marks: NDArray[np.int8]


class SpeechDetector:
    """Marks the frames of one channel. What comes out does not depend on how the samples were split.

    Args:
        sampling_rate: in Hz, at least 1000. Frame i covers the samples from `i * sampling_rate // 100` on.
    """

    def __init__(self, sampling_rate: int) -> None:
        self._rate = sampling_rate
        self._rest: Floats = np.empty(0, np.float32)
        self._measured = 0
        self._powers: NDArray[np.float64] = np.empty(0)  # measured and not yet decided
        self._power_before: float | None = None
        self._line = _Line()

    @property
    def due(self) -> int:
        """How many samples there must have been, from the first one on, for the next frames to be decided."""
        decided = self._measured - self._powers.size
        ready = decided + BLOCK if self._line.known else _STEADY_BLOCKS * BLOCK
        return sample_of(ready + 1, self._rate)

    def push(self, samples: Floats) -> Frames:
        """Take float32 samples of shape (time,), which must be finite; return the frames that are now decided."""
        self._measure(np.concatenate([self._rest, samples]))
        ready = (self._powers.size - 1) // BLOCK * BLOCK
        return self._decide(ready if self._line.known or ready >= _STEADY_BLOCKS * BLOCK else 0)

    def finish(self) -> Frames:
        """Return the frames that are left; samples that make no whole frame are left out."""
        return self._decide(self._powers.size)

    def _measure(self, samples: Floats) -> None:
        """Append the power of all whole frames: their variance, so that an offset is no sound."""
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

    def _decide(self, count: int) -> Frames:
        """Decide the next `count` frames: compare the power of each and its two neighbours with the thresholds."""
        if count <= 0:
            return Frames(np.empty(0), np.empty(0, np.int8))
        before = self._powers[0] if self._power_before is None else self._power_before
        after = self._powers[min(count, self._powers.size - 1)]
        padded = np.concatenate([[before], self._powers[:count], [after]])
        three = np.stack([padded[:-2], padded[1:-1], padded[2:]])
        self._power_before = float(self._powers[count - 1])
        self._powers = self._powers[count:]
        levels = 10 * np.log10(np.maximum(three.mean(axis=0), _NOTHING))
        on, off = self._line.thresholds(levels, telling=three.min(axis=0) > _DIGITAL_SILENCE)
        return Frames(levels, (levels > off).astype(np.int8) + (levels > on))


class _Line:
    """What is known about noise and loudness of a line."""

    def __init__(self) -> None:
        self.known = False
        self._blocks = 0
        self._lows: deque[tuple[int, float]] = deque([(-1, _SUPPOSED_FLOOR)])  # ascending: the first one is the floor
        self._threshold = _SUPPOSED_FLOOR + ON_ABOVE_FLOOR
        self._noise: deque[float] = deque(maxlen=_MEMORY)  # levels of blocks that must be noise
        self._calm = 0
        self._recent: deque[float] = deque(maxlen=_STEADY_BLOCKS)
        self._loudness = LOWEST

    def thresholds(
        self, levels: NDArray[np.float64], telling: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Learn from whole blocks of levels, the last one perhaps shorter; return the two thresholds of each frame.

        `telling` are frames without digital silence.
        """
        starts = np.arange(0, levels.size, BLOCK)
        sizes = np.diff(starts, append=levels.size)
        lows = np.minimum.reduceat(np.where(telling, levels, np.inf), starts)
        means = np.add.reduceat(levels, starts) / sizes
        learnt = np.array([self._learn(low, mean) for low, mean in zip(lows.tolist(), means.tolist(), strict=True)])
        if not self.known:
            self.known = True
            learnt[:_STEADY_BLOCKS] = learnt[:_STEADY_BLOCKS][-1]
        noise, loudness = np.repeat(learnt, sizes, axis=0).T
        on = np.maximum(np.maximum(noise, loudness - ON_BELOW_LOUDNESS), LOWEST)
        off = np.maximum(np.maximum(noise - OFF_BELOW_ON, loudness - OFF_BELOW_LOUDNESS), LOWEST)
        return on, off

    def _learn(self, low: float, mean: float) -> tuple[float, float]:
        """Take the lowest and the mean level of a block; return the level that noise does not reach, and loudness."""
        number = self._blocks
        self._blocks += 1
        self._loudness = max(mean, self._loudness - _FADING)
        if low == float("inf"):  # digital silence
            return self._threshold, self._loudness
        lows, recent = self._lows, self._recent
        while lows and lows[-1][1] >= low:
            lows.pop()
        lows.append((number, low))
        recent.append(mean)
        softest = min(recent)
        risen = len(recent) == _STEADY_BLOCKS and self._threshold < softest > max(recent) - _STEADY_RANGE
        oldest = number - (_STEADY_BLOCKS if risen else _MEMORY)
        while lows[0][0] <= oldest:
            lows.popleft()
        floor = lows[0][1]
        if risen:
            self._noise.clear()
        self._calm = self._calm + 1 if mean < floor + _NOISE_RANGE else 0
        if self._calm > _NOISE_AFTER:
            self._noise.append(mean)
        uneven = sorted(self._noise)[int(_NOISE_SHARE * len(self._noise))] + ON_ABOVE_NOISE if self._noise else floor
        self._threshold = min(max(uneven, floor + ON_ABOVE_FLOOR), floor + _NOISE_RANGE)
        return self._threshold, self._loudness


@dataclass(slots=True)
class Region:
    """Frames from `start` up to `end` that hold speech."""

    start: int
    end: int


class RegionFinder:
    """Makes regions of marks: loud frames, what joins them, and short gaps.

    Attributes:
        open: the last region, where it is known to be speech and may still go on.
        clear: frame from which on there may be speech that is in no region yet.
    """

    def __init__(self) -> None:
        self.open: Region | None = None
        self.clear = 0
        self._now = 0
        self._after_quiet = 0  # the frame behind the last quiet one
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
        self._prolong(quiet)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], marks == 2, [False]])))
        for first, last in edges.reshape(-1, 2).tolist():
            start = max(int(after_quiet[first]), begin + first - _LAP)
            self._end_before(start, ended)
            if self._region is None:
                self._region, self._loud = Region(start, start), 0
            self._loud += last - first
            self._loud_end = begin + last
            self._prolong(quiet)
        if marks.size:
            self._after_quiet = int(after_quiet[-1])
        next_start = max(self._after_quiet, self._now - _LAP)
        self._end_before(next_start, ended)
        self._look(next_start)
        return ended

    def finish(self) -> list[Region]:
        """Return the last region, if there is one."""
        ended: list[Region] = []
        self._end_before(self._now + _SYLLABLES, ended)
        self._look(self._now)
        return ended

    def _prolong(self, quiet: NDArray[np.int64]) -> None:
        """Let the region go on from its last loud frame to the next quiet one."""
        if self._region and self._after_quiet <= self._loud_end:  # no quiet frame has come yet
            following = quiet[np.searchsorted(quiet, self._loud_end) :]
            stop = int(following[0]) if following.size else self._now
            self._region.end = min(stop, self._loud_end + _LAP)

    def _end_before(self, start: int, ended: list[Region]) -> None:
        """End the region where the next one, from `start` on, is too far away to join it."""
        if self._region and start - self._region.end >= _SYLLABLES:
            if self._loud >= _CLICK:
                ended.append(self._region)
            self._region = None

    def _look(self, next_start: int) -> None:
        known = self._region is not None and self._loud >= _CLICK
        self.open = self._region if known else None
        self.clear = next_start if self._region is None else self._region.start


def sample_of(frame: int, sampling_rate: int) -> int:
    """The first sample of a frame."""
    return frame * sampling_rate // FRAMES_PER_SECOND
