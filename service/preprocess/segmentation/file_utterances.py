"""Cut the speech of a file into utterances while the file is read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from service.preprocess.bandwidth import is_narrow
from service.preprocess.clips import ChannelChoice, check_length, check_options, choose
from service.preprocess.reader import AudioReader
from service.preprocess.segmentation.mix_utterances import MixCutter
from service.preprocess.segmentation.utterances import UtteranceCutter
from service.results import ChannelUtterance, Utterance


class FileCut:
    """Cuts the speech of a file into utterances while the file is read.

    Args:
        reader: an open file, at its beginning. It is read to its end, even past `end`, so that the same files are
            rejected whatever the interval.
        channels: as for `service.preprocess.clips.make_clips`; a mix is channel 0. The first utterance decides whether
            the mean cancels out, for the whole file.
        start: seconds at which to begin, 0 or more; None for the beginning.
        end: seconds at which to stop, more than `start`; None for the end, and past the end means the end.

    Attributes:
        duration: seconds of the file that have been read; the whole duration after the last step.
        narrow_band: whether everything read so far, in every channel, is narrow-band like telephone audio.

    Raises:
        InvalidOptions: there is no such channel.
    """

    def __init__(self, reader: AudioReader, *, channels: ChannelChoice, start: float | None, end: float | None) -> None:
        # Whether the file ends before `start` is known only at its end.
        check_options(channels, start, of_channels=reader.channels, duration=math.inf)
        self.duration = 0.0
        self.narrow_band = True
        self._reader = reader
        self._channels = channels
        self._start = start
        self._end = end
        self._mix = MixCutter(reader.sampling_rate, reader.channels) if channels == "mix" else None

    @property
    def taken_channel(self) -> int | None:
        """The channel that is cut because the mean of all cancels out; None if not, or not known yet."""
        return None if self._mix is None else self._mix.taken_channel

    def steps(self) -> Iterator[list[ChannelUtterance]]:
        """Read the file, which is possible once, in short steps: one for each block, and a last one.

        Yields:
            The utterances that a step completes, often none. All together are in the order of their ends, with times in
            seconds of the file.

        Raises:
            InvalidOptions: the file ends before `start`.
            AudioTooShort: less than 25 ms lie between `start` and `end`.
            AudioNotFinite: samples are NaN, infinite or beyond any plausible scale.
            AudioError: as `AudioReader.blocks` raises.
            ServiceError: the upload cannot be read back; not the client's fault.
        """
        rate = self._reader.sampling_rate
        first = round((self._start or 0.0) * rate)
        last = None if self._end is None else round(self._end * rate)
        cutters = {index: self._mix or UtteranceCutter(rate) for index in self._indices()}
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
            pieces = choose(stretch, self._channels) if self._mix is None else [stretch]
            for (index, cutter), samples in zip(cutters.items(), pieces, strict=True):
                waiting += [_placed(utterance, index, first / rate) for utterance in cutter.push(samples)]
            # No utterance that is still to come ends before this.
            settled = first / rate + min(cutter.settled for cutter in cutters.values())
            waiting.sort(key=_end)
            complete = sum(each.utterance.end <= settled for each in waiting)
            yield waiting[:complete]
            del waiting[:complete]
        check_options(self._channels, self._start, of_channels=self._reader.channels, duration=self.duration)
        check_length(taken, rate)
        for index, cutter in cutters.items():
            waiting += [_placed(utterance, index, first / rate) for utterance in cutter.finish()]
        yield sorted(waiting, key=_end)

    def _indices(self) -> Sequence[int]:
        if self._channels == "split":
            return range(self._reader.channels)
        return [0 if self._channels == "mix" else self._channels]


def _placed(utterance: Utterance, channel: int, begin: float) -> ChannelUtterance:
    """Return an utterance of a stretch that begins at `begin` seconds of the file, with times of the file."""
    return ChannelUtterance(channel, Utterance(utterance.start + begin, utterance.end + begin, utterance.samples))


def _end(utterance: ChannelUtterance) -> float:
    return utterance.utterance.end
