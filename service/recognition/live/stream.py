"""Score the clips of one live stream in their order, in turns with other streams."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, NotRequired, cast

from typing_extensions import TypedDict

from service.errors import QueueFull
from service.observability.observer import Observer
from service.recognition.answers import DIGITS, overall_of, segment_of
from service.recognition.concurrency import within
from service.recognition.core import ClipRecognition, Core, Progress
from service.recognition.live.options import StreamOptions
from service.recognition.live.schedule import DueClip, StreamSchedule
from service.recognition.result_types import LabelScore, Numbers, Overall, Score, Segment, TakenChannel
from service.recognition.scores import WeightedMean
from service.results import ClipOutput, Recognition


class TakenMember(TypedDict):
    """The member of an event that says which channel was taken, if one was."""

    taken_channel: NotRequired[TakenChannel]


class WindowEvent(Segment, TakenMember):
    """The scores of one window; `skipped` windows were skipped before it."""

    type: Literal["window"]
    skipped: int


class UtteranceEvent(Segment, TakenMember):
    """The scores of one utterance."""

    type: Literal["utterance"]


class ChannelOverall(Overall):
    """The mean of the utterances of one channel."""

    channel: int
    speech_seconds: float


class ResultEvent(TakenMember):
    """The mean of all utterances, weighted by their durations; by channel with `select=split`."""

    type: Literal["result"]
    duration: float
    speech_seconds: NotRequired[float]
    label: NotRequired[str | None]
    score: NotRequired[Score | None]
    scores: NotRequired[list[LabelScore]]
    embedding: NotRequired[Numbers]
    channels: NotRequired[list[ChannelOverall]]


StreamEvent = WindowEvent | UtteranceEvent | ResultEvent


@dataclass(frozen=True, slots=True)
class StreamShare:
    """Resources that all streams of a process share.

    Attributes:
        turns: limits the clips of streams that are queued, in order of arrival, so that requests wait for few of them.
        threads: decode large messages. Not the threads for files, which may be busy for seconds.
    """

    turns: asyncio.Semaphore
    threads: ThreadPoolExecutor


@dataclass(slots=True)
class StreamCounts:
    """The numbers of scored windows and utterances of a stream, and of skipped windows."""

    windows: int = 0
    skipped_windows: int = 0
    utterances: int = 0


class StreamRecognition:
    """Scores the clips that are due on `schedule` until the stream ends.

    Args:
        core: resources and limits.
        share: resources of all streams.
        options: of the stream.
        schedule: the clips of the stream.
        timeout: seconds that one clip may take, including its wait for a turn.
        emit: called with each event, in order, and whether it may wait for a slow reader.
        counts: updated with every clip.

    Attributes:
        model: the loaded model.

    Raises:
        ModelLoading: if there is no model yet.
        InvalidOptions: if a label is not one of the model's.
    """

    def __init__(
        self,
        core: Core,
        share: StreamShare,
        options: StreamOptions,
        schedule: StreamSchedule,
        *,
        timeout: float,
        emit: Callable[[StreamEvent, bool], Awaitable[None]],
        counts: StreamCounts,
    ) -> None:
        # Without an observer, since a stream may last for hours, and every window would be a span.
        self._clips = ClipRecognition(replace(core, observer=Observer()), options.clip_options(), Progress())
        self.model = self._clips.model
        self._observer = core.observer
        self._turns = share.turns
        self._options = options
        self._clip_options = options.clip_options()
        self._schedule = schedule
        self._timeout = timeout
        self._emit = emit
        self._counts = counts
        self._means = [WeightedMean() for _ in range(options.scored_channels)]
        self._taken: TakenMember = {}
        self._changed = asyncio.Event()
        self._scored = asyncio.Event()

    def schedule_changed(self) -> None:
        """Notify that clips may be due."""
        self._changed.set()

    async def caught_up(self) -> None:
        """Wait until more audio may be read."""
        while self._schedule.behind:
            self._scored.clear()
            await self._scored.wait()

    async def run(self) -> None:
        """Score all clips, and emit the result of the whole stream at its end.

        Raises:
            ServiceError: if a clip cannot be scored, or as `emit` raises it.
        """
        while not (self._schedule.ended and not self._schedule.any_due):
            if self._schedule.any_due:
                await self._score_next()
                self._scored.set()
            else:
                self._changed.clear()
                await self._changed.wait()
        await self._emit(self._result(), True)

    async def _score_next(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        async with within(deadline):
            await self._turns.acquire()
        try:
            # Taken only now, so that it is the latest window.
            due = self._schedule.take()
            output = await self._run_clip(due, deadline)
        finally:
            self._turns.release()
        skipped = self._schedule.skipped - self._counts.skipped_windows
        self._observer.windows_skipped(skipped)
        self._counts.skipped_windows += skipped
        if output is None:
            return
        answer = self._clips.score(output)
        if due.kind == "utterance":
            self._means[due.channel].add(answer, due.end - due.start)
            self._observer.label_predicted(answer.label.en)
            self._counts.utterances += 1
            self._taken = _taken(due)
            await self._send(UtteranceEvent(type="utterance", **self._taken, **self._segment(due, answer)))
        else:
            self._counts.windows += 1
            await self._send(
                WindowEvent(type="window", **_taken(due), **self._segment(due, answer), skipped=due.skipped)
            )
            if self._options.late == "skip":
                self._observer.window_answered(loop.time() - due.due)

    async def _run_clip(self, due: DueClip, deadline: float) -> ClipOutput | None:
        """The output for a clip; None for a window that is skipped because the queue is full."""
        may_skip = due.kind == "window" and self._options.late == "skip"
        try:
            output, _ = await self._clips.run(due.clip, deadline, wait=not may_skip)
        except QueueFull:
            self._schedule.leave_out(due)
            return None
        return output

    async def _send(self, event: WindowEvent | UtteranceEvent) -> None:
        await self._emit(event, self._options.late == "wait")

    def _segment(self, due: DueClip, answer: Recognition) -> Segment:
        channel = due.channel if self._options.select == "split" else None
        return segment_of(answer, self._clip_options, start=due.start, end=due.end, channel=channel)

    def _result(self) -> ResultEvent:
        event: dict[str, object] = {"type": "result", "duration": round(self._schedule.seconds, DIGITS)}
        channels = [self._overall(mean) for mean in self._means]
        if self._options.select == "split":
            event["channels"] = [{"channel": channel, **overall} for channel, overall in enumerate(channels)]
        else:
            event |= {**self._taken, **channels[0]}
        return cast(ResultEvent, event)

    def _overall(self, mean: WeightedMean) -> dict[str, object]:
        return {"speech_seconds": round(mean.seconds, DIGITS), **overall_of(mean, self._clip_options)}


def _taken(due: DueClip) -> TakenMember:
    return {} if due.taken_channel is None else {"taken_channel": due.taken_channel}
