"""A recording's way through the house: read a piece, queue its utterances, hand out their answers in order.

    pool     read a piece of the file ▶ the utterances that are complete now
    loop     two at a time: to the recognizer ▶ scores ▶ out, in the order of their ends

Reading goes no further ahead than these two, and stops where nobody takes the answers. So memory does not depend on how
long the recording is, others get their turn before the model, and no thread is held for longer than one piece takes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from time import time_ns
from typing import BinaryIO

from service.api.request_context import Notes, Services
from service.api.schemas import Segment
from service.errors import QueueFull
from service.observability.spans import add_stages, span
from service.recognition.concurrency import all_of, within
from service.recognition.file import loaded_model
from service.recognition.options import Options
from service.recognition.pooled_recording import PooledRecording
from service.recognition.progress import RequestProgress
from service.recognition.recording import Recording, Tally
from service.recognition.scores import resolve_labels
from service.recognition.steps import score_outputs
from service.results import ChannelUtterance, Clip, ClipOutput, Recognition, Timings

_PARALLEL = 2
"""Utterances of one recording that may be before the model: one runs, the next is read, others come between."""

_LONGEST_PAUSE = 1.0
"""Seconds after which an utterance that has found the queue full tries again, at the latest."""

Emit = Callable[[Segment], Awaitable[None]]


class SegmentPipeline:
    """Recognises the utterances of one file. First `open` it, then `run`; `close` in any case.

    Args:
        services: the parts of the application.
        file: the upload, closed in the end.
        options: what the client asked for.
        deadline: on the loop's clock.
        notes: where to put down what the log should tell.
        progress: where to note what is being done.

    Raises:
        ModelLoading: if there is no model yet.
        InvalidOptions: if a label is not one of the model's.
    """

    def __init__(
        self,
        services: Services,
        file: BinaryIO,
        options: Options,
        deadline: float,
        notes: Notes,
        progress: RequestProgress,
    ) -> None:
        self.model = loaded_model(services)
        self._labels = None if options.labels is None else resolve_labels(options.labels, self.model)
        self._services = services
        self._options = options
        self._deadline = deadline
        self._notes = notes
        self._progress = progress
        max_duration = services.settings.max_duration
        self._pooled = PooledRecording(services.pool, file, lambda file: Recording(file, options, max_duration))
        self._ready: deque[ChannelUtterance] = deque()
        self._ended = False
        self._pulling = asyncio.Lock()
        self._handed_out = asyncio.Event()  # that of the last utterance which was pulled
        self._handed_out.set()
        self._spent = Timings()
        notes.segments = 0
        progress.segments = 0

    @property
    def recording(self) -> Recording:
        """What is being cut; not before it is open."""
        return self._pooled.recording

    def close(self) -> None:
        """Free the file and what reads it; returns at once."""
        self._pooled.close()

    async def open(self) -> None:
        """Open the file and read its first piece, so that what is wrong there is found before an answer begins.

        Raises:
            ServiceError: any that concerns this file, or DeadlineExceeded.
        """
        try:
            with span(self._services.tracer, "decode"):
                async with within(self._deadline):
                    await self._read()
        except asyncio.CancelledError:
            # From the queue on, the engine counts callers that give up.
            self._services.metrics.requests_cancelled.inc()
            raise
        except QueueFull as error:  # of the decoders, which count nothing
            self._services.metrics.requests_rejected.labels(error.code).inc()
            raise

    async def run(self, emit: Emit) -> tuple[Tally, Timings]:
        """Recognise all utterances.

        Args:
            emit: takes each segment, in order; nothing goes on while it does not return.

        Returns:
            The answers, and what the stages took over all utterances, which go on at the same time.

        Raises:
            ServiceError: any that concerns the file or one of its utterances; or DeadlineExceeded. Segments that were
                not emitted by then are lost.
        """
        tally = Tally(self.recording, self._options)
        try:
            async with within(self._deadline):
                await all_of(self._work(tally, emit) for _ in range(_PARALLEL))
        finally:
            timings = self._timings()
            self._notes.audio_seconds = self.recording.duration
            self._notes.timings.append(timings)
        self._services.metrics.stage_duration.labels("decode").observe(timings.decode)
        return tally, timings

    async def _work(self, tally: Tally, emit: Emit) -> None:
        """Take utterances, one after the other, until there is none left."""
        while True:
            async with self._pulling:
                piece = await self._next()
                if piece is None:
                    return
                before, done = self._handed_out, asyncio.Event()
                self._handed_out = done
            recognition = await self._recognize(piece)
            await before.wait()
            segment = tally.add(piece, recognition)
            self._count(segment, recognition)
            await emit(segment)
            done.set()

    async def _next(self) -> ChannelUtterance | None:
        while not self._ready and not self._ended:
            await self._read()
        return self._ready.popleft() if self._ready else None

    async def _read(self) -> None:
        found = await self._pooled.step()
        self._ended = found is None
        self._ready.extend(found or ())

    async def _recognize(self, piece: ChannelUtterance) -> Recognition:
        clip = self.recording.clip(piece)
        with span(self._services.tracer, "recognize"), self._progress.at_the_recognizer(clip):
            queued = time_ns()
            output, timings = await self._ask(clip)
            add_stages(self._services.tracer, queued, timings)
        self._spent = Timings(
            queue=self._spent.queue + timings.queue,
            preprocess=self._spent.preprocess + timings.preprocess,
            inference=self._spent.inference + timings.inference,
        )
        return score_outputs([output], self.model, self._options, self._labels)[0]

    async def _ask(self, clip: Clip) -> tuple[ClipOutput, Timings]:
        while True:
            try:
                return await self._services.recognizer.recognize(clip, deadline=self._deadline)
            except QueueFull as full:  # that others have come in between is no reason to lose what is done already
                await asyncio.sleep(min(full.retry_after, _LONGEST_PAUSE))

    def _count(self, segment: Segment, recognition: Recognition) -> None:
        self._services.metrics.segments.inc()
        self._services.metrics.predictions.labels(recognition.labels[recognition.best].en).inc()
        self._notes.segments = (self._notes.segments or 0) + 1
        self._progress.segments = self._notes.segments
        self._progress.until = segment["end"]

    def _timings(self) -> Timings:
        spent = self._spent
        return Timings(self._pooled.seconds, spent.queue, spent.preprocess, spent.inference)
