"""What a stream has to score next: the windows and utterances that are due, each as a clip."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from service.preprocess.segmentation.utterances import UtteranceCutter
from service.recognition.live.options import StreamOptions
from service.recognition.live.samples import SampleBuffer, decode_samples
from service.recognition.live.windows import WindowCounter
from service.results import ChannelUtterance, Clip, Floats

MOST_WAITING = 60.0
"""Seconds of utterances that may be due before no more audio is read, since utterances are never left out."""

_WINDOWS_UNTIL = 30.0
"""Seconds of utterances that may be due while windows still take turns with them. Beyond that utterances come first:
late windows are of no use, late utterances are."""


@dataclass(frozen=True, slots=True)
class DueClip:
    """One clip to score: `start` to `end` in seconds of the stream, without the context around an utterance.

    `due` is when its last sample came, on the loop's clock; `skipped` windows were left out before it.
    """

    kind: Literal["window", "utterance"]
    channel: int
    start: float
    end: float
    clip: Clip
    due: float
    skipped: int = 0


class StreamDecoder:
    """Turns bytes into samples and utterances. Not thread-safe: one call at a time, from any thread.

    Args:
        options: what the samples are, and which channels count.
    """

    def __init__(self, options: StreamOptions) -> None:
        self._options = options
        self._cutters = [UtteranceCutter(options.sampling_rate) for _ in range(options.scored_channels)]

    def decode(self, data: bytes) -> tuple[Floats, list[ChannelUtterance]]:
        """The samples (channel, time) of a binary message, and the utterances that are complete with it.

        Raises:
            InvalidMessage, AudioNotFinite: if they are not as the options say.
        """
        samples = decode_samples(data, self._options)
        found = [
            ChannelUtterance(channel, utterance)
            for channel, cutter in enumerate(self._cutters)
            for utterance in cutter.push(samples[channel])
        ]
        return samples, _by_end(found)

    def finish(self) -> list[ChannelUtterance]:
        """The utterances that end because nothing more comes."""
        found = [
            ChannelUtterance(channel, utterance)
            for channel, cutter in enumerate(self._cutters)
            for utterance in cutter.finish()
        ]
        return _by_end(found)


class StreamSchedule:
    """The clips that are due: utterances, each of which is scored in the end, and windows, which are wanted at once.

    Args:
        options: how long windows are, how often, and whether late ones are left out.

    Attributes:
        skipped: windows left out so far.
        ended: whether nothing more comes.
    """

    def __init__(self, options: StreamOptions) -> None:
        self._options = options
        self._windows = WindowCounter(
            options.window_samples,
            options.hop_samples,
            shortest=options.shortest_samples,
            skip=options.late == "skip",
        )
        self._buffer = SampleBuffer(options.scored_channels)
        self._utterances: deque[DueClip] = deque()
        self._waiting = 0.0  # seconds of these
        self._windows_next = False
        self._channels: deque[DueClip] = deque()  # the rest of a window that has several channels
        self._due = 0.0
        self._left_out = 0
        self.skipped = 0
        self.ended = False

    @property
    def seconds(self) -> float:
        """How much audio has come."""
        return self._buffer.total / self._options.sampling_rate

    @property
    def any_due(self) -> bool:
        """Whether a clip is due."""
        return bool(self._channels or self._utterances or self._windows.due)

    @property
    def behind(self) -> bool:
        """Whether no more audio should be read before more is scored."""
        if self._options.late == "wait":
            return self.any_due
        return self._waiting > MOST_WAITING

    def add(self, samples: Floats, utterances: Sequence[ChannelUtterance], now: float) -> None:
        """Take what a message brought at `now` on the loop's clock."""
        self._buffer.append(samples)
        if self._windows.extend(self._buffer.total):
            self._due = now
        self._buffer.forget(self._windows.needed)
        self._add_utterances(utterances, now)

    def end(self, utterances: Sequence[ChannelUtterance], now: float) -> None:
        """Take the last utterances; nothing more comes."""
        self._windows.end()
        self._due = now
        self._add_utterances(utterances, now)
        self.ended = True

    def take(self) -> DueClip:
        """The next clip, of which there must be one."""
        if self._channels:
            return self._channels.popleft()
        windows_next = self._windows_next and self._waiting <= _WINDOWS_UNTIL
        self._windows_next = not (self._windows.due and (windows_next or not self._utterances))
        if self._windows_next:
            due = self._utterances.popleft()
            self._waiting = self._waiting - due.clip.duration if self._utterances else 0.0
            return due
        window = self._windows.take()
        rate = self._options.sampling_rate
        samples = self._buffer.cut(window.first, window.last)
        self._buffer.forget(self._windows.needed)
        self.skipped += window.skipped
        skipped, self._left_out = window.skipped + self._left_out, 0
        self._channels.extend(
            DueClip(
                kind="window",
                channel=channel,
                start=window.first / rate,
                end=window.last / rate,
                clip=Clip(each.copy() if len(samples) > 1 else each, rate, self._options.trim),
                due=self._due,
                skipped=skipped,
            )
            for channel, each in enumerate(samples)
        )
        return self._channels.popleft()

    def leave_out(self, window: DueClip) -> None:
        """Skip a window that was taken, and those of its channels that were not taken yet."""
        self._channels.clear()
        self.skipped += 1
        self._left_out = 1 if window.channel else window.skipped + 1  # the first channel reported those before

    def _add_utterances(self, utterances: Sequence[ChannelUtterance], now: float) -> None:
        rate = self._options.sampling_rate
        self._utterances.extend(
            DueClip(
                kind="utterance",
                channel=each.channel,
                start=each.utterance.start,
                end=each.utterance.end,
                clip=Clip(each.utterance.samples, rate, self._options.trim),
                due=now,
            )
            for each in utterances
        )
        self._waiting += sum(each.utterance.samples.size / rate for each in utterances)


def _by_end(found: list[ChannelUtterance]) -> list[ChannelUtterance]:
    return sorted(found, key=lambda each: (each.utterance.end, each.channel))
