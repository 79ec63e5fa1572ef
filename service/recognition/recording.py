"""What is made of the utterances of a recording; over HTTP and on the command line alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import BinaryIO, cast

from service.api.schemas import Segment, SegmentedAudio, SegmentedResult
from service.preprocess.reader import open_reader
from service.preprocess.segmentation.file_utterances import cut_file
from service.recognition.answers import DIGITS, overall_of, segment_of
from service.recognition.options import Options
from service.recognition.scores import WeightedMean
from service.results import ChannelUtterance, Clip, Recognition

_ONLY = 0
"""The channel of all segments where there is one list of them."""


class Recording:
    """A file that is read and cut into utterances step by step, in memory that does not depend on its length.

    Args:
        file: the upload, which must stay open.
        options: which channels and which stretch of it.
        max_duration: seconds that it may last.

    Attributes:
        sampling_rate: in Hz.
        channels: how many it has.

    Raises:
        AudioError: if the audio is not usable, as far as its beginning tells.
        InvalidOptions: if an option does not fit it.
        QueueFull: if too many files are being decoded.
    """

    def __init__(self, file: BinaryIO, options: Options, max_duration: float) -> None:
        self._reader = open_reader(file, max_duration=max_duration)
        self.sampling_rate = self._reader.sampling_rate
        self.channels = self._reader.channels
        self._trim = options.trim
        try:
            self._cut = cut_file(self._reader, channels=options.channels, start=options.start, end=options.end)
        except BaseException:
            self._reader.close()
            raise
        self._steps = self._cut.steps()

    @property
    def duration(self) -> float:
        """Seconds that have been read by now."""
        return self._cut.duration

    @property
    def narrow_band(self) -> bool:
        """Whether nothing above 4 kHz was in what has been read by now."""
        return self._cut.narrow_band

    def step(self) -> Sequence[ChannelUtterance] | None:
        """Read on for some seconds of the file: the utterances that are complete now, None at its end.

        Raises:
            AudioError: if it turns out not to be usable.
            InvalidOptions: if it ends before it should begin.
        """
        return next(self._steps, None)

    def __iter__(self) -> Iterator[ChannelUtterance]:
        """All utterances, in the order of their ends."""
        while (found := self.step()) is not None:
            yield from found

    def clip(self, piece: ChannelUtterance) -> Clip:
        """What the model is asked about an utterance."""
        return Clip(piece.utterance.samples, self.sampling_rate, self._trim)

    def close(self) -> None:
        """Give up reading; not while a step is running."""
        self._reader.close()


class Tally:
    """The answers for the utterances of one recording, and what they come to.

    Args:
        recording: what is cut up.
        options: as they were asked for.
    """

    def __init__(self, recording: Recording, options: Options) -> None:
        self._recording = recording
        self._options = options
        self._split = options.channels == "split"
        channels = range(recording.channels) if self._split else (_ONLY,)
        self._means = {channel: WeightedMean() for channel in channels}

    def add(self, piece: ChannelUtterance, recognition: Recognition) -> Segment:
        """Count an utterance in, and return its result."""
        start, end = piece.utterance.start, piece.utterance.end
        self._means[piece.channel if self._split else _ONLY].add(recognition, end - start)
        channel = piece.channel if self._split else None
        return segment_of(recognition, self._options, start=start, end=end, channel=channel)

    def result(self, kept: KeptSegments | None = None) -> SegmentedResult:
        """The result for the recording, which has been read to its end; with its segments, where they were kept."""
        audio: SegmentedAudio = {
            "duration": round(self._recording.duration, DIGITS),
            "sampling_rate": self._recording.sampling_rate,
            "channels": self._recording.channels,
            "narrow_band": self._recording.narrow_band,
        }
        if self._split:
            channels = [
                {"channel": channel, "speech_seconds": self._seconds(channel), **self._overall(channel, kept)}
                for channel in self._means
            ]
            return cast(SegmentedResult, {"audio": audio, "channels": channels})
        audio["speech_seconds"] = self._seconds(_ONLY)
        return cast(SegmentedResult, {"audio": audio, **self._overall(_ONLY, kept)})

    def _seconds(self, channel: int) -> float:
        return round(self._means[channel].seconds, DIGITS)

    def _overall(self, channel: int, kept: KeptSegments | None) -> dict[str, object]:
        overall = overall_of(self._means[channel], self._options)
        return {**overall, **({} if kept is None else {"segments": kept.of(channel)})}


class KeptSegments:
    """Segments in their order, by channel where they have one."""

    def __init__(self) -> None:
        self._lists: defaultdict[int, list[object]] = defaultdict(list)

    def put(self, segment: Segment, form: object) -> None:
        """Keep a segment in some form, itself perhaps."""
        self._lists[segment.get("channel", _ONLY)].append(form)

    def of(self, channel: int) -> list[object]:
        """What was kept of a channel."""
        return self._lists[channel]
