"""Recognise a long recording utterance by utterance: read a piece, queue its utterances, give out answers in order.

    threads  read a piece of the file ▶ the utterances that are complete now
    loop     two at a time: to the recognizer ▶ scores ▶ out, in the order of their ends

Nothing is read further ahead than these two, and reading stops while nobody takes the answers. So memory does not
depend on the length of the recording, other requests get their turn at the model, and no thread is held for longer than
one piece takes.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import BinaryIO, cast

from service.errors import QueueFull
from service.recognition.answers import DIGITS, overall_of, segment_of
from service.recognition.concurrency import all_of, within
from service.recognition.core import ClipRecognition, Core, Progress
from service.recognition.options import Options
from service.recognition.recording import Recording, RecordingReader
from service.recognition.result_types import Segment, SegmentedAudio, SegmentedResult
from service.recognition.scores import WeightedMean
from service.results import ChannelUtterance, Recognition, Timings

_PARALLEL = 2
"""Utterances of one recording that may be at the recognizer: one runs while the next is read, others come between."""

_ONLY = 0
"""The channel of all segments where channels are not told apart."""

Emit = Callable[[Segment], Awaitable[None]]


class LongFileRecognition:
    """Recognises the utterances of one file. First `open` it, then `run`; `close` in any case.

    Args:
        core: what it uses.
        file: the upload, closed in the end.
        options: what was asked for.
        deadline: on the loop's clock.
        progress: of the request.

    Attributes:
        model: the model that answers.

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
        self._emitted = asyncio.Event()  # that of the utterance which was taken last
        self._emitted.set()
        self._spent = Timings()
        progress.segments = 0

    @property
    def recording(self) -> Recording:
        """The file that is being cut; not before it is open."""
        return self._reader.recording

    def close(self) -> None:
        """Free the file and what reads it; returns at once."""
        self._reader.close()

    async def open(self) -> None:
        """Open the file and read its first piece, so that what is wrong there is found before an answer begins.

        Raises:
            ServiceError: any that concerns this file, or DeadlineExceeded.
        """
        observer = self._core.observer
        try:
            with observer.span("decode"):
                async with within(self._deadline):
                    await self._read()
        except asyncio.CancelledError:
            # From the queue on, the engine counts callers that give up.
            observer.request_cancelled()
            raise
        except QueueFull as error:  # of the decoders, which report nothing
            observer.request_refused(error.code)
            raise

    async def run(self, emit: Emit) -> tuple[SegmentTotals, Timings]:
        """Recognise all utterances.

        Args:
            emit: takes each segment, in order; nothing goes on while it does not return.

        Returns:
            The totals over all segments, and the sums of what the stages took, which overlap in time.

        Raises:
            ServiceError: any that concerns the file or one of its utterances; or DeadlineExceeded. Segments that were
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
        """Take utterances, one after the other, until there is none left."""
        while True:
            async with self._taking:
                piece = await self._next()
                if piece is None:
                    return
                before, emitted = self._emitted, asyncio.Event()
                self._emitted = emitted
            # A full queue is waited out: that others have come in between is no reason to lose what is done already.
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
    """The mean over the segments of one recording, weighted by their lengths; for each channel where they are split.

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

    def result(self, segments: SegmentLists | None = None) -> SegmentedResult:
        """The result for the recording, which has been read to its end; with its segments, where they were kept."""
        audio: SegmentedAudio = {
            "duration": round(self._recording.duration, DIGITS),
            "sampling_rate": self._recording.sampling_rate,
            "channels": self._recording.channels,
            "narrow_band": self._recording.narrow_band,
        }
        if self._split:
            channels = [
                {"channel": channel, "speech_seconds": self._seconds(channel), **self._overall(channel, segments)}
                for channel in self._means
            ]
            return cast(SegmentedResult, {"audio": audio, "channels": channels})
        audio["speech_seconds"] = self._seconds(_ONLY)
        return cast(SegmentedResult, {"audio": audio, **self._overall(_ONLY, segments)})

    def _seconds(self, channel: int) -> float:
        return round(self._means[channel].seconds, DIGITS)

    def _overall(self, channel: int, segments: SegmentLists | None) -> dict[str, object]:
        overall = overall_of(self._means[channel], self._options)
        return {**overall, **({} if segments is None else {"segments": segments.of(channel)})}


class SegmentLists:
    """Segments in their order, by channel where they have one."""

    def __init__(self) -> None:
        self._lists: defaultdict[int, list[object]] = defaultdict(list)

    def add(self, segment: Segment, form: object) -> None:
        """Keep a segment, as `form`: itself, or its JSON, which takes a fraction of the memory."""
        self._lists[segment.get("channel", _ONLY)].append(form)

    def of(self, channel: int) -> list[object]:
        """What was kept of a channel."""
        return self._lists[channel]
