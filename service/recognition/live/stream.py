"""Answers the clips of one stream in their order: taking turns with other streams, into messages for its client."""

from __future__ import annotations

import asyncio
from typing import cast

from service.api.request_context import Services, StreamNotes
from service.api.schemas import Segment
from service.api.stream.messages import ResultEvent, Start, UtteranceEvent, WindowEvent
from service.api.stream.outbox import Outbox
from service.errors import QueueFull
from service.recognition.answers import DIGITS, overall_of, segment_of
from service.recognition.concurrency import within
from service.recognition.json_encoding import encode
from service.recognition.live.schedule import Agenda, Job
from service.recognition.scores import WeightedMean, recognition, resolve_labels
from service.results import ClipOutput, ModelInfo, Recognition

_QUEUE_PAUSE = 0.25
"""Seconds until a clip that must not be left out tries again to get into a full queue."""


class Answers:
    """Scores what is due on `agenda` until it has ended.

    Args:
        parts: the parts of the application.
        model: the model that answers.
        start: what the client wants.
        agenda: what is due.
        outbox: where messages go.
        notes: what the log and the metrics tell of the stream.

    Raises:
        InvalidOptions: if a label is not one of the model's.
    """

    def __init__(
        self, parts: Services, model: ModelInfo, start: Start, agenda: Agenda, outbox: Outbox, notes: StreamNotes
    ) -> None:
        self._parts = parts
        self._model = model
        self._start = start
        self._options = start.options()
        self._labels = None if start.labels is None else resolve_labels(start.labels, model)
        self._agenda = agenda
        self._outbox = outbox
        self._notes = notes
        self._means = [WeightedMean() for _ in range(start.kept_channels)]
        self._news = asyncio.Event()
        self._done = asyncio.Event()

    def tell(self) -> None:
        """Say that there may be something new on the agenda."""
        self._news.set()

    async def caught_up(self) -> None:
        """Wait until more audio may come."""
        while self._agenda.behind:
            self._done.clear()
            await self._done.wait()

    async def run(self) -> None:
        """Answer all, and then the whole stream.

        Raises:
            ServiceError: if a clip cannot be answered.
            SlowConsumer: if nobody reads the answers.
        """
        while not (self._agenda.ended and not self._agenda.any_due):
            if self._agenda.any_due:
                await self._answer_next()
                self._done.set()
            else:
                self._news.clear()
                await self._news.wait()
        await self._send(self._result())

    async def _answer_next(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._parts.settings.timeout
        turns = self._parts.streams.turns
        async with within(deadline):
            await turns.acquire()
        try:
            # Not before its turn: what is due by then is the latest.
            job = self._agenda.take()
            output = await self._recognize(job, deadline)
        finally:
            turns.release()
        self._count_skipped()
        if output is None:
            return
        answer = self._score(output)
        if job.kind == "utterance":
            self._means[job.channel].add(answer, job.end - job.start)
            self._parts.metrics.predictions.labels(answer.labels[answer.best].en).inc()
            self._notes.utterances += 1
            await self._send(UtteranceEvent(type="utterance", **self._segment(job, answer)))
        else:
            self._notes.windows += 1
            await self._send(WindowEvent(type="window", **self._segment(job, answer), skipped=job.skipped))
            if self._start.late == "skip":
                self._parts.metrics.stream_delay.observe(loop.time() - job.due)

    async def _recognize(self, job: Job, deadline: float) -> ClipOutput | None:
        """What the model finds in a clip; None for a window that has no place and is left out."""
        while True:
            try:
                return (await self._parts.recognizer.recognize(job.clip, deadline=deadline))[0]
            except QueueFull:
                if job.kind == "window" and self._start.late == "skip":
                    self._agenda.leave_out(job)
                    return None
            async with within(deadline):
                await asyncio.sleep(_QUEUE_PAUSE)

    def _score(self, output: ClipOutput) -> Recognition:
        options = self._options
        return recognition(
            output, self._model, granularity=options.granularity, embedding=options.embedding, labels=self._labels
        )

    def _segment(self, job: Job, answer: Recognition) -> Segment:
        channel = job.channel if self._start.select == "split" else None
        return segment_of(answer, self._options, start=job.start, end=job.end, channel=channel)

    def _result(self) -> ResultEvent:
        event: dict[str, object] = {"type": "result", "duration": round(self._agenda.seconds, DIGITS)}
        channels = [self._overall(mean) for mean in self._means]
        if self._start.select == "split":
            event["channels"] = [{"channel": channel, **overall} for channel, overall in enumerate(channels)]
        else:
            event |= channels[0]
        return cast(ResultEvent, event)

    def _overall(self, mean: WeightedMean) -> dict[str, object]:
        return {"speech_seconds": round(mean.seconds, DIGITS), **overall_of(mean, self._options)}

    def _count_skipped(self) -> None:
        more = self._agenda.skipped - self._notes.skipped_windows
        self._parts.metrics.stream_skipped_windows.inc(more)
        self._notes.skipped_windows += more

    async def _send(self, event: WindowEvent | UtteranceEvent | ResultEvent) -> None:
        self._parts.metrics.stream_events.labels(event["type"]).inc()
        await self._outbox.put(b"".join(encode(event)), wait=self._start.late == "wait" or event["type"] == "result")
