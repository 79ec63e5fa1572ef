"""What a stream has to do next: the windows and utterances that are due, each as a clip."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from service.api.stream.messages import Start
from service.preprocess.segmentation.utterances import UtteranceCutter
from service.recognition.live.samples import SampleBuffer, decode_samples
from service.recognition.live.windows import Windows
from service.results import ChannelUtterance, Clip, Floats

MOST_WAITING = 60.0
"""Seconds of utterances that may be due before no more audio is read, since none of them is ever left out."""

_PATIENT = 30.0
"""Seconds of utterances that may be due while windows still get every other turn. Windows are of use only when they are
new, and utterances also later."""


@dataclass(frozen=True, slots=True)
class Job:
    """One clip to score: `start` to `end` in seconds of the stream, without what is around an utterance.

    `due` is when its last sample came, on the loop's clock; `skipped` windows were left out before it.
    """

    kind: Literal["window", "utterance"]
    channel: int
    start: float
    end: float
    clip: Clip
    due: float
    skipped: int = 0


class Ears:
    """Bytes to samples and utterances. It may work in any thread, in one at a time.

    Args:
        start: what the samples are, and which channels count.
    """

    def __init__(self, start: Start) -> None:
        self._start = start
        self._cutters = [UtteranceCutter(start.sampling_rate) for _ in range(start.kept_channels)]

    def hear(self, data: bytes) -> tuple[Floats, list[ChannelUtterance]]:
        """The samples (channel, time) of a binary message, and the utterances that are complete with it.

        Raises:
            InvalidMessage, AudioNotFinite: if they are not as the start message says.
        """
        samples = decode_samples(data, self._start)
        found = [
            ChannelUtterance(channel, utterance)
            for channel, cutter in enumerate(self._cutters)
            for utterance in cutter.push(samples[channel])
        ]
        return samples, _in_order(found)

    def finish(self) -> list[ChannelUtterance]:
        """The utterances that are complete because nothing more comes."""
        found = [
            ChannelUtterance(channel, utterance)
            for channel, cutter in enumerate(self._cutters)
            for utterance in cutter.finish()
        ]
        return _in_order(found)


class Agenda:
    """What is due: utterances, each of which is wanted in the end, and windows, which are wanted at once.

    Args:
        start: how long windows are, how often, and whether late ones are left out.

    Attributes:
        skipped: windows left out so far.
        ended: whether nothing more comes.
    """

    def __init__(self, start: Start) -> None:
        self._start = start
        self._windows = Windows(
            start.window_samples, start.hop_samples, shortest=start.shortest_samples, skip=start.late == "skip"
        )
        self._buffer = SampleBuffer(start.kept_channels)
        self._utterances: deque[Job] = deque()
        self._waiting = 0.0  # seconds of these
        self._turn_of_windows = False
        self._channels: deque[Job] = deque()  # the window that was begun, where it has several channels
        self._due = 0.0
        self._left_out = 0
        self.skipped = 0
        self.ended = False

    @property
    def seconds(self) -> float:
        """How much audio has come."""
        return self._buffer.total / self._start.sampling_rate

    @property
    def any_due(self) -> bool:
        """Whether there is something to do."""
        return bool(self._channels or self._utterances or self._windows.due)

    @property
    def behind(self) -> bool:
        """Whether no more audio should come before more is done."""
        if self._start.late == "wait":
            return self.any_due
        return self._waiting > MOST_WAITING

    def add(self, samples: Floats, utterances: Sequence[ChannelUtterance], now: float) -> None:
        """Take what was heard by `now` on the loop's clock."""
        self._buffer.append(samples)
        if self._windows.extend(self._buffer.total):
            self._due = now
        self._buffer.forget(self._windows.needed)
        self._add_utterances(utterances, now)

    def end(self, utterances: Sequence[ChannelUtterance], now: float) -> None:
        """Take what is complete because nothing more comes."""
        self._windows.end()
        self._due = now
        self._add_utterances(utterances, now)
        self.ended = True

    def take(self) -> Job:
        """The next clip, of which there must be one."""
        if self._channels:
            return self._channels.popleft()
        turn = self._turn_of_windows and self._waiting <= _PATIENT
        self._turn_of_windows = not (self._windows.due and (turn or not self._utterances))
        if self._turn_of_windows:
            job = self._utterances.popleft()
            self._waiting = self._waiting - job.clip.duration if self._utterances else 0.0
            return job
        window = self._windows.take()
        rate = self._start.sampling_rate
        samples = self._buffer.cut(window.first, window.last)
        self._buffer.forget(self._windows.needed)
        self.skipped += window.skipped
        skipped, self._left_out = window.skipped + self._left_out, 0
        self._channels.extend(
            Job(
                kind="window",
                channel=channel,
                start=window.first / rate,
                end=window.last / rate,
                clip=Clip(each.copy() if len(samples) > 1 else each, rate, self._start.trim),
                due=self._due,
                skipped=skipped,
            )
            for channel, each in enumerate(samples)
        )
        return self._channels.popleft()

    def leave_out(self, job: Job) -> None:
        """Do without a window that was taken, and without the channels of it that are left."""
        self._channels.clear()
        self.skipped += 1
        self._left_out = 1 if job.channel else job.skipped + 1  # the first channel has told of those before

    def _add_utterances(self, utterances: Sequence[ChannelUtterance], now: float) -> None:
        rate = self._start.sampling_rate
        self._utterances.extend(
            Job(
                kind="utterance",
                channel=each.channel,
                start=each.utterance.start,
                end=each.utterance.end,
                clip=Clip(each.utterance.samples, rate, self._start.trim),
                due=now,
            )
            for each in utterances
        )
        self._waiting += sum(each.utterance.samples.size / rate for each in utterances)


def _in_order(found: list[ChannelUtterance]) -> list[ChannelUtterance]:
    return sorted(found, key=lambda each: (each.utterance.end, each.channel))
