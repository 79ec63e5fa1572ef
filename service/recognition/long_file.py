"""Recognise a long recording utterance by utterance: read a part, queue its utterances, emit results in order.

    threads  read a part of the file ▶ the utterances that are complete now
    loop     two at a time: recognizer ▶ scores ▶ emit, in the order of their ends

The file is read no further than these two utterances need, and not while `emit` waits. So memory does not depend on the
length of the recording, clips of other requests are queued in between, and a thread is used for one part at a time.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, cast

from service.errors import QueueFull
from service.recognition.answers import DIGITS, overall_of, segment_of
from service.recognition.concurrency import all_of, within
from service.recognition.core import ClipRecognition, Core, Progress
from service.recognition.options import Options
from service.recognition.recording import Recording, RecordingReader
from service.recognition.scores import WeightedMean
from service.results import ChannelUtterance, Recognition, Timings

if TYPE_CHECKING:
    from service.recognition.result_types import Segment, SegmentedAudio, SegmentedResult

_PARALLEL = 2
"""Utterances of a recording that are recognised at a time: one is run while the next one is read."""

_ONLY = 0
"""The channel of all segments if channels are not split."""

Emit: TypeAlias = "Callable[[Segment], Awaitable[None]]"


class LongFileRecognition:
    """Recognises the utterances of one file. Call `open`, then `run`, and `close` in any case.

    Args:
        core: resources and limits.
        file: the audio file, which is closed.
        options: of the request.
        deadline: on the loop's clock.
        progress: of the request.

    Attributes:
        model: the loaded model.

    Raises:
        ModelLoading: if there is no model yet.
        InvalidOptions: if a label is not one of the model's.
    """

    def __init__(self, core: Core, file: BinaryIO, options: Options, deadline: float, progress: Progress) -> None:
        self._clips = ClipRecognition(core, options, progress)
        self.model = self._clips.model
        self._core = core
        self._options = options
        self._deadline = deadline
        self._progress = progress
        self._reader = RecordingReader(core.threads, file, options, core.max_duration)
        self._ready: deque[ChannelUtterance] = deque()
        self._ended = False
        self._taking = asyncio.Lock()
        self._emitted = asyncio.Event()  # set when the utterance that was taken last is emitted
        self._emitted.set()
        self._spent = Timings()
        progress.segments = 0

    @property
    def recording(self) -> Recording:
        """The open file; only after `open`."""
        return self._reader.recording

    def close(self) -> None:
        """Close the file and its decoder, in a thread; returns at once."""
        self._reader.close()

    async def open(self) -> None:
        """Open the file and read its first part, so that its errors are raised before an answer begins.

        Raises:
            ServiceError: any that concerns this file, or DeadlineExceeded.
        """
        observer = self._core.observer
        try:
            with observer.span("decode"):
                async with within(self._deadline):
                    await self._read()
        except asyncio.CancelledError:
            # The engine reports callers that are cancelled later, while a clip is queued or running.
            observer.request_cancelled()
            raise
        except QueueFull as error:  # raised by the decoders, which have no observer
            observer.request_refused(error.code)
            raise

    async def run(self, emit: Emit) -> tuple[SegmentTotals, Timings]:
        """Recognise all utterances.

        Args:
            emit: called with each segment, in order; recognition pauses until it returns.

        Returns:
            The totals over all segments, and the sum of each stage; the stages overlap in time.

        Raises:
            ServiceError: any that concerns the file or one of its utterances, or DeadlineExceeded. Segments that were
                not emitted by then are lost.
        """
        totals = SegmentTotals(self.recording, self._options)
        try:
            async with within(self._deadline):
                await all_of(self._run_utterances(totals, emit) for _ in range(_PARALLEL))
        finally:
            timings = replace(self._spent, decode=self._reader.seconds)
            self._progress.audio_seconds = self.recording.duration
            self._progress.timings.append(timings)
        self._core.observer.file_decoded(timings.decode)
        return totals, timings

    async def _run_utterances(self, totals: SegmentTotals, emit: Emit) -> None:
        """Recognise and emit utterances one after the other, until there are none."""
        while True:
            async with self._taking:
                piece = await self._next()
                if piece is None:
                    return
                before, emitted = self._emitted, asyncio.Event()
                self._emitted = emitted
            # It waits for room in a full queue, since failing would lose the segments so far.
            output, timings = await self._clips.run(self.recording.clip(piece), self._deadline, wait=True)
            self._spent += timings
            answer = self._clips.score(output)
            await before.wait()
            segment = totals.add(piece, answer)
            self._core.observer.label_predicted(answer.label.en)
            self._core.observer.segment_answered()
            self._progress.segments = (self._progress.segments or 0) + 1
            self._progress.segments_until = segment["end"]
            await emit(segment)
            emitted.set()

    async def _next(self) -> ChannelUtterance | None:
        while not self._ready and not self._ended:
            await self._read()
        return self._ready.popleft() if self._ready else None

    async def _read(self) -> None:
        found = await self._reader.step()
        self._ended = found is None
        self._ready.extend(found or ())


class SegmentTotals:
    """The mean over the segments of one recording, weighted by their durations; by channel if channels are split.

    Args:
        recording: the file.
        options: of the request.
    """

    def __init__(self, recording: Recording, options: Options) -> None:
        self._recording = recording
        self._options = options
        self._split = options.channels == "split"
        channels = range(recording.channels) if self._split else (_ONLY,)
        self._means = {channel: WeightedMean() for channel in channels}

    def add(self, piece: ChannelUtterance, recognition: Recognition) -> Segment:
        """Add an utterance to the mean, and return its result."""
        start, end = piece.utterance.start, piece.utterance.end
        self._means[piece.channel if self._split else _ONLY].add(recognition, end - start)
        channel = piece.channel if self._split else None
        return segment_of(recognition, self._options, start=start, end=end, channel=channel)

    def result(self, segments: SegmentLists | None = None) -> SegmentedResult:
        """The result for the recording, which has been read to its end; with `segments` if they were collected."""
        audio: SegmentedAudio = {
            "duration": round(self._recording.duration, DIGITS),
            "sampling_rate": self._recording.sampling_rate,
            "channels": self._recording.channels,
            "narrow_band": self._recording.narrow_band,
            "truncated": self._recording.truncated,
        }
        if self._recording.unread_bytes:
            audio["unread_bytes"] = self._recording.unread_bytes
        if self._recording.taken_channel is not None:
            audio["taken_channel"] = self._recording.taken_channel
        if self._split:
            channels = [
                {"channel": channel, "speech_seconds": self._seconds(channel), **self._overall(channel, segments)}
                for channel in self._means
            ]
            return cast("SegmentedResult", {"audio": audio, "channels": channels})
        audio["speech_seconds"] = self._seconds(_ONLY)
        return cast("SegmentedResult", {"audio": audio, **self._overall(_ONLY, segments)})

    def _seconds(self, channel: int) -> float:
        return round(self._means[channel].seconds, DIGITS)

    def _overall(self, channel: int, segments: SegmentLists | None) -> dict[str, object]:
        overall = overall_of(self._means[channel], self._options)
        return {**overall, **({} if segments is None else {"segments": segments.of(channel)})}


class SegmentLists:
    """Segments in their order, by channel if channels are split."""

    def __init__(self) -> None:
        self._lists: defaultdict[int, list[object]] = defaultdict(list)

    def add(self, segment: Segment, form: object) -> None:
        """Append a segment as `form`: itself, or its JSON, which takes a fraction of the memory."""
        self._lists[segment.get("channel", _ONLY)].append(form)

    def of(self, channel: int) -> list[object]:
        """The forms of the segments of a channel."""
        return self._lists[channel]
