"""The order in which windows and utterances of a stream are scored."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from service.preprocess.clips import make_clips
from service.preprocess.segmentation.mix_utterances import MixCutter
from service.preprocess.segmentation.utterances import UtteranceCutter
from service.recognition.live.options import StreamOptions
from service.recognition.live.samples import SampleBuffer, decode_samples
from service.recognition.live.windows import WindowCounter
from service.results import ChannelUtterance, Clip, Floats, Utterance, Waveform

MOST_WAITING = 60.0
"""Seconds of utterances that may be due; above, reading pauses, since utterances are not skipped."""

_WINDOWS_UNTIL = 30.0
"""Seconds of utterances that may be due while they alternate with windows. Above, utterances come first, since they are
not skipped."""


@dataclass(frozen=True, slots=True)
class DueClip:
    """One clip to score: `start` to `end` in seconds of the stream, without the context around an utterance.

    `due` is when its last sample was received, on the loop's clock; `skipped` windows were skipped before it.
    `taken_channel` is the channel that was taken because the mean of all channels cancels out.
    """

    kind: Literal["window", "utterance"]
    channel: int
    start: float
    end: float
    clip: Clip
    due: float
    skipped: int = 0
    taken_channel: int | None = None


class StreamDecoder:
    """Decodes bytes into samples and utterances. Not thread-safe.

    Args:
        options: of the stream.
    """

    def __init__(self, options: StreamOptions) -> None:
        self._options = options
        self._mix = MixCutter(options.sampling_rate, options.channels) if options.select == "mix" else None
        self._cutters = [UtteranceCutter(options.sampling_rate) for _ in range(options.kept_channels)]

    def decode(self, data: bytes) -> tuple[Floats, list[ChannelUtterance]]:
        """The samples (channel, time) of a binary message, and the utterances that it completes.

        Raises:
            InvalidMessage, AudioNotFinite: as `decode_samples` does.
        """
        samples = decode_samples(data, self._options)
        if self._mix:
            return samples, _of_mix(self._mix.push(samples), self._mix.taken_channel)
        return samples, _by_end(cutter.push(each) for cutter, each in zip(self._cutters, samples, strict=True))

    def finish(self) -> list[ChannelUtterance]:
        """The utterances that end with the stream."""
        if self._mix:
            return _of_mix(self._mix.finish(), self._mix.taken_channel)
        return _by_end(cutter.finish() for cutter in self._cutters)


class StreamSchedule:
    """The clips that are due: all utterances, and windows, of which late ones are skipped with `late=skip`.

    Args:
        options: of the stream.

    Attributes:
        skipped: windows skipped so far.
        ended: whether the stream has ended.
    """

    def __init__(self, options: StreamOptions) -> None:
        self._options = options
        self._windows = WindowCounter(
            options.window_samples,
            options.hop_samples,
            shortest=options.shortest_samples,
            skip=options.late == "skip",
        )
        self._buffer = SampleBuffer(options.kept_channels)
        self._utterances: deque[DueClip] = deque()
        self._utterance_seconds = 0.0  # over all of these
        self._windows_next = False
        self._channels: deque[DueClip] = deque()  # the other channels of a window
        self._due = 0.0
        self._unreported = 0  # skipped windows that no returned clip has in `skipped`
        self.skipped = 0
        self.ended = False

    @property
    def seconds(self) -> float:
        """Seconds of audio received so far."""
        return self._buffer.total / self._options.sampling_rate

    @property
    def any_due(self) -> bool:
        """Whether a clip is due."""
        return bool(self._channels or self._utterances or self._windows.due)

    @property
    def behind(self) -> bool:
        """Whether reading should pause until more clips are scored."""
        if self._options.late == "wait":
            return self.any_due
        return self._utterance_seconds > MOST_WAITING

    def add(self, samples: Floats, utterances: Sequence[ChannelUtterance], now: float) -> None:
        """Add samples and utterances of a message that was received at `now`, a time of the loop's clock."""
        self._buffer.append(samples)
        if self._windows.extend(self._buffer.total):
            self._due = now
        self._buffer.drop(self._windows.needed)
        self._add_utterances(utterances, now)

    def end(self, utterances: Sequence[ChannelUtterance], now: float) -> None:
        """End the stream with its last utterances."""
        self._windows.end()
        self._due = now
        self._add_utterances(utterances, now)
        self.ended = True

    def take(self) -> DueClip:
        """Remove and return the next clip; one must be due."""
        if self._channels:
            return self._channels.popleft()
        windows_next = self._windows_next and self._utterance_seconds <= _WINDOWS_UNTIL
        self._windows_next = not (self._windows.due and (windows_next or not self._utterances))
        if self._windows_next:
            due = self._utterances.popleft()
            self._utterance_seconds = self._utterance_seconds - due.clip.duration if self._utterances else 0.0
            return due
        window = self._windows.take()
        rate = self._options.sampling_rate
        samples = self._buffer.cut(window.first, window.last)
        self._buffer.drop(self._windows.needed)
        self.skipped += window.skipped
        skipped, self._unreported = window.skipped + self._unreported, 0
        # A window is scored like a file, so it decides by itself whether the mean cancels out.
        clips, taken = make_clips(
            Waveform(samples, rate),
            channels="mix" if self._options.select == "mix" else "split",
            start=None,
            end=None,
            trim=self._options.trim,
            frame_embeddings=False,
        )
        self._channels.extend(
            DueClip(
                kind="window",
                channel=channel,
                start=window.first / rate,
                end=window.last / rate,
                clip=clip,
                due=self._due,
                skipped=skipped,
                taken_channel=taken,
            )
            for channel, clip in enumerate(clips)
        )
        return self._channels.popleft()

    def leave_out(self, window: DueClip) -> None:
        """Skip a window that was taken, and its channels that were not taken yet."""
        self._channels.clear()
        self.skipped += 1
        self._unreported = 1 if window.channel else window.skipped + 1  # its first channel has reported the others

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
                taken_channel=each.taken_channel,
            )
            for each in utterances
        )
        self._utterance_seconds += sum(each.utterance.samples.size / rate for each in utterances)


def _by_end(channels: Iterable[Iterable[Utterance]]) -> list[ChannelUtterance]:
    """The utterances of all channels in the order of their ends."""
    found = [ChannelUtterance(channel, each) for channel, utterances in enumerate(channels) for each in utterances]
    return sorted(found, key=lambda each: (each.utterance.end, each.channel))


def _of_mix(utterances: Iterable[Utterance], taken: int | None) -> list[ChannelUtterance]:
    return [ChannelUtterance(0, each, taken) for each in utterances]
