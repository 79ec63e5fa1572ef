"""Cut speech into utterances, one channel at a time, as the samples come in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from math import isinf
from typing import Protocol

import numpy as np

from service.preprocess.bandwidth import is_narrow
from service.preprocess.clips import ChannelChoice, check_length, check_options, choose
from service.preprocess.resample_trim import MARGIN
from service.preprocess.segmentation.history import Sound, Trail
from service.preprocess.segmentation.speech import (
    FRAMES_PER_SECOND,
    Frames,
    Region,
    RegionFinder,
    SpeechDetector,
    sample_of,
)
from service.results import SAMPLING_RATE, ChannelUtterance, Floats, Utterance

SHORTEST = 2.0
LONGEST = 15.0

PAUSE = 0.5
"""Seconds without speech that end an utterance."""

PAUSE_WHEN_SHORT = 0.6
"""The same for utterances below `shortest`, which rather join what follows."""

PAUSE_WHEN_LONG = 0.3
"""The same for utterances beyond two thirds of `longest`, which would have to be cut in a word soon."""

CONTEXT = 0.2
"""Seconds of samples around the frames with speech. The model's own trimming needs some 70 ms of them to find the same
bounds as in the whole file, and the detector may miss a soft beginning."""

_SOFT = MARGIN / SAMPLING_RATE
"""Seconds around the frames with speech that count as speech, as in the model's own trimming."""

_STEADY = 5.0
"""Decibels between the 10th and the 90th percentile of an utterance's levels, below which it is a tone or noise. Speech
has over 10 as soon as it is twice as loud as the noise."""

_LEAST = 2.0
_NONE: Floats = np.empty(0, np.float32)


class UtteranceCutter:
    """Cuts what is said in one channel into utterances of `shortest` to `longest` seconds.

    - A pause of `PAUSE` ends an utterance. A shorter utterance than `shortest` waits for `PAUSE_WHEN_SHORT`, so that
      short ones join their neighbour; isolated ones stay short.
    - Speech that goes on beyond `longest` is cut at its quietest point from `longest / 2` on, so that at least
      `shortest` is left.
    - Clicks and steady sounds are no utterances.

    An utterance comes out at the latest 0.11 s (`speech.LOOK_AHEAD`) after the pause that ends it: 0.61 s after speech
    ends, 0.71 s where it is short. What comes out does not depend on how the samples were split into pushes. Memory is
    that of some `longest` + 10 seconds of samples, beside what one push brings.

    Args:
        sampling_rate: in Hz, at least 1000.
        shortest: seconds; at most a quarter of `longest`.
        longest: seconds, at least 2.

    Attributes:
        speaking: whether there is speech at the end of what was pushed, or was 0.2 s before.
    """

    def __init__(self, sampling_rate: int, *, shortest: float = SHORTEST, longest: float = LONGEST) -> None:
        if not (0 < shortest <= longest / 4 and longest >= _LEAST):
            raise ValueError("`shortest` must be above 0, and at most a quarter of `longest`, which takes 2 s or more")
        self.speaking = False
        self._rate = sampling_rate
        self._shortest = round(shortest * FRAMES_PER_SECOND)
        self._longest = round((longest - 2 * _SOFT) * FRAMES_PER_SECOND)
        self._waiting: list[Floats] = []
        self._waiting_size = 0
        self._detector = SpeechDetector(sampling_rate)
        self._regions = RegionFinder()
        self._sound = Sound()
        self._trail = Trail()
        self._current: Region | None = None
        self._cut = 0  # the frame where the last one was cut off in the midst of speech

    @property
    def settled(self) -> float:
        """Seconds: no utterance that is still to come ends before."""
        # Of the current one it is known that it will not be cut off before.
        half = self._longest // 2 - round(PAUSE_WHEN_SHORT * FRAMES_PER_SECOND)
        return self._seconds(min(self._moments(lambda current: min(current.end, current.start + half))))

    def push(self, samples: Floats) -> list[Utterance]:
        """Take the next samples and return the utterances that are now complete, in order.

        Args:
            samples: float32 of shape (time,), any number of them; finite.
        """
        self._waiting.append(samples.copy())
        self._waiting_size += samples.size
        if self._sound.end + self._waiting_size < self._detector.due:  # so that small pushes cost little
            return []
        return self._mark(self._detector.push(self._take_waiting()))

    def finish(self) -> list[Utterance]:
        """Return what is left. Nothing can be pushed afterwards."""
        utterances = self._mark(self._detector.push(self._take_waiting())) + self._mark(self._detector.finish())
        for region in self._regions.finish():
            utterances += self._join(region)
        if self._current:
            utterances += self._end(self._current)
        self.speaking = False
        return utterances

    def _take_waiting(self) -> Floats:
        samples = self._waiting[0] if len(self._waiting) == 1 else np.concatenate([_NONE, *self._waiting])
        self._waiting, self._waiting_size = [], 0
        self._sound.append(samples)
        return samples

    def _mark(self, frames: Frames) -> list[Utterance]:
        """Take decided frames and return the utterances that are now complete."""
        utterances: list[Utterance] = []
        if not frames.marks.size:
            return utterances
        self._trail.append(frames)
        for region in self._regions.push(frames.marks):
            utterances += self._join(region)
        if self._regions.open:
            utterances += self._join(self._regions.open)
        if self._current and self._parts(self._current, self._regions.clear):
            utterances += self._end(self._current)
        self.speaking = self._regions.open is not None
        needed = min(self._moments(lambda current: current.start))
        self._trail.forget(needed)
        self._sound.forget(self._sample(needed) - round(CONTEXT * self._rate))
        return utterances

    def _moments(self, of_current: Callable[[Region], int]) -> list[int]:
        """A frame of the current utterance, and the first one of what is not known to be one: at least one of both."""
        moments = [of_current(self._current)] if self._current else []
        return moments if self._regions.open else [*moments, self._regions.clear]

    def _join(self, region: Region) -> list[Utterance]:
        """Add a region, which may be one that has grown, to the current utterance or begin one with it."""
        utterances = []
        if self._current and self._parts(self._current, region.start):
            utterances += self._end(self._current)
        if self._current:
            self._current.end = max(self._current.end, region.end)
        else:
            self._current = Region(region.start, region.end)
        while self._current.end - self._current.start > self._longest:
            utterances += self._cut_off(self._current)
        return utterances

    def _parts(self, region: Region, following: int) -> bool:
        """Whether the pause between an utterance and a frame with speech is long enough to end it."""
        length = region.end - region.start
        if length < self._shortest:
            pause = PAUSE_WHEN_SHORT
        else:
            pause = PAUSE if length * 3 <= self._longest * 2 else PAUSE_WHEN_LONG
        return following - region.end >= round(pause * FRAMES_PER_SECOND)

    def _end(self, region: Region) -> list[Utterance]:
        """End the current utterance."""
        self._current = None
        return self._utterance(region, self._cut, None)

    def _cut_off(self, region: Region) -> list[Utterance]:
        """Cut the current utterance at its quietest point; the rest stays the current one."""
        first = region.start + self._longest // 2
        cut = self._trail.quietest(first, region.start + self._longest - self._shortest)
        end, start = self._trail.around(cut)
        utterances = self._utterance(Region(region.start, end), self._cut, cut)
        self._cut, region.start = cut, start
        return utterances

    def _utterance(self, region: Region, cut_before: int, cut_after: int | None) -> list[Utterance]:
        """Make an utterance, or none of a steady sound. It does not reach beyond where its neighbours were cut off."""
        if self._trail.spread(region.start, region.end) < _STEADY:
            return []
        lowest = self._sample(cut_before)
        highest = self._sound.end if cut_after is None else self._sample(cut_after)

        def widened(seconds: float) -> tuple[int, int]:
            by = round(seconds * self._rate)
            return max(self._sample(region.start) - by, lowest), min(self._sample(region.end) + by, highest)

        (start, end), (begin, stop) = widened(_SOFT), widened(CONTEXT)
        samples = self._sound.between(begin, stop)
        return [Utterance(start / self._rate, end / self._rate, samples, begin / self._rate)]

    def _sample(self, frame: int) -> int:
        return sample_of(frame, self._rate)

    def _seconds(self, frame: int) -> float:
        return self._sample(frame) / self._rate


class Reader(Protocol):
    """What is needed of `service.preprocess.reader.AudioReader`."""

    @property
    def sampling_rate(self) -> int:
        """In Hz."""

    @property
    def channels(self) -> int:
        """Number of channels."""

    def blocks(self) -> Iterator[Floats]:
        """The samples, piece by piece: float32 (channel, time), none of them empty."""


def cut_file(reader: Reader, *, channels: ChannelChoice, start: float | None, end: float | None) -> FileCut:
    """Cut what is said in a file into utterances, while it is read.

    Args:
        reader: an open file, at its beginning. It is read to its end, also past `end`, so that whether the file is
            usable does not depend on the stretch.
        channels: as for `service.preprocess.clips.make_clips`; a mix is channel 0.
        start: seconds at which to begin; None for the beginning.
        end: seconds at which to stop; None for the end, and past the end means the end.

    Returns:
        An iterator of utterances in the order of their ends, with times in seconds of the file.

    Raises:
        InvalidOptions: there is no such channel, or nothing can lie between `start` and `end`. While iterating: the
            file ends before `start`.
        AudioTooShort: while iterating: less than 25 ms lie between `start` and `end`.
        AudioNotFinite: while iterating: samples are NaN, infinite or absurdly large.
        AudioError: while iterating: what the reader raises.
    """
    check_options(channels, start, end, of_channels=reader.channels, duration=None)
    return FileCut(reader, channels, start, end)


class FileCut:
    """The iterator that `cut_file` returns.

    Attributes:
        duration: seconds of the file that have been read; all of it after the last utterance.
        narrow_band: whether none of it, in any channel, has had sound above the band of telephones.
    """

    def __init__(self, reader: Reader, channels: ChannelChoice, start: float | None, end: float | None) -> None:
        self.duration = 0.0
        self.narrow_band = True
        self._reader = reader
        self._channels = channels
        self._start = start
        self._end = end
        self._steps = self._cut()
        self._utterances = chain.from_iterable(self._steps)

    def steps(self) -> Iterator[list[ChannelUtterance]]:
        """The same block by block of the file: what each completes, often nothing. No step takes long."""
        return self._steps

    def __iter__(self) -> Iterator[ChannelUtterance]:
        return self._utterances

    def __next__(self) -> ChannelUtterance:
        return next(self._utterances)

    def _cut(self) -> Iterator[list[ChannelUtterance]]:
        rate = self._reader.sampling_rate
        first = round((self._start or 0.0) * rate)
        last = None if self._end is None or isinf(self._end) else round(self._end * rate)
        cutters = {index: UtteranceCutter(rate) for index in self._indices()}
        read = taken = 0
        waiting: list[ChannelUtterance] = []
        for block in self._reader.blocks():
            stretch = block[:, max(first - read, 0) : None if last is None else max(last - read, 0)]
            read += block.shape[1]
            self.duration = read / rate
            self.narrow_band = self.narrow_band and is_narrow(block, rate)
            if not stretch.size:
                yield []
                continue
            taken += stretch.shape[1]
            for (index, cutter), samples in zip(cutters.items(), choose(stretch, self._channels), strict=True):
                waiting += [_placed(utterance, index, first / rate) for utterance in cutter.push(samples)]
            # Of what is still to come, nothing ends before this.
            settled = first / rate + min(cutter.settled for cutter in cutters.values())
            waiting.sort(key=_end)
            complete = sum(each.utterance.end <= settled for each in waiting)
            yield waiting[:complete]
            del waiting[:complete]
        check_options(self._channels, self._start, self._end, of_channels=self._reader.channels, duration=self.duration)
        check_length(taken, rate)
        for index, cutter in cutters.items():
            waiting += [_placed(utterance, index, first / rate) for utterance in cutter.finish()]
        yield sorted(waiting, key=_end)

    def _indices(self) -> Iterable[int]:
        if self._channels == "split":
            return range(self._reader.channels)
        return [0 if self._channels == "mix" else self._channels]


def _placed(utterance: Utterance, channel: int, begin: float) -> ChannelUtterance:
    """An utterance of a stretch that begins at some seconds, with times of the file."""
    times = utterance.start + begin, utterance.end + begin, utterance.offset + begin
    return ChannelUtterance(channel, Utterance(times[0], times[1], utterance.samples, times[2]))


def _end(utterance: ChannelUtterance) -> float:
    return utterance.utterance.end
