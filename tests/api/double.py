"""A recognizer without an engine: answers at once, or waits, refuses or fails as a test sets it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from service.errors import DeadlineExceeded, ServiceError
from service.inference.recognizer import Ahead, Health, State
from service.results import Clip, ClipOutput, Label, ModelInfo, Timings
from tests.inference.fake_backend import LABELS, answer, model_info

MASKED = model_info((*LABELS, Label("unuse_0", "unuse_0", "unuse_0")), frozenset({len(LABELS)}))
"""A model with one label that it never answers, as the smaller published ones have them."""


@dataclass
class RecognizerDouble:
    """Implements `service.inference.recognizer.Recognizer`.

    Attributes:
        model, state, worker_alive: its reported state.
        refusals: raised by the next admissions, first to last.
        faults: raised by the next clips, None for one that is answered.
        gate: while it is clear, clips wait, until their deadline at most.
        clips: the clips received, in order.
        waiting, most_waiting: the number of clips that wait now, and its maximum.
        cancelled: the number of clips cancelled by their callers.
        permits, most_permits: the number of request permits in use, and its maximum.
        recordings: the number of permits of long recordings in use.
        streams: the number of permits of streams in use.
        draining: the event that streams watch.
        started, drained: the number of starts, and the timeouts of drains.
    """

    model: ModelInfo | None = MASKED
    state: State = "ready"
    worker_alive: bool = True
    refusals: list[ServiceError] = field(default_factory=list)
    faults: list[Exception | None] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    clips: list[Clip] = field(default_factory=list)
    most_waiting: int = 0
    waiting: int = 0
    cancelled: int = 0
    permits: int = 0
    most_permits: int = 0
    recordings: int = 0
    streams: int = 0
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    started: int = 0
    drained: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    def health(self) -> Health:
        return Health(self.state, self.worker_alive)

    @contextmanager
    def admit_request(self, caller: str) -> Iterator[None]:
        if self.refusals:
            raise self.refusals.pop(0)
        self.permits += 1
        self.most_permits = max(self.most_permits, self.permits)
        try:
            yield
        finally:
            self.permits -= 1

    @contextmanager
    def admit_recording(self, caller: str) -> Iterator[None]:
        self.recordings += 1
        try:
            yield
        finally:
            self.recordings -= 1

    @contextmanager
    def admit_stream(self, caller: str) -> Iterator[asyncio.Event]:
        if self.refusals:
            raise self.refusals.pop(0)
        self.streams += 1
        try:
            yield self.draining
        finally:
            self.streams -= 1

    async def recognize(self, clip: Clip, *, deadline: float) -> tuple[ClipOutput, Timings]:
        self.clips.append(clip)
        fault = self.faults.pop(0) if self.faults else None
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        try:
            async with asyncio.timeout_at(deadline):
                await self.gate.wait()
        except TimeoutError:
            raise DeadlineExceeded("The answer was not ready within the time allowed.") from None
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
        if fault is not None:
            raise fault
        labels = len(self.model.labels) if self.model else 0
        return answer(clip, labels), Timings(queue=0.001, preprocess=0.002, inference=0.003)

    def ahead_of(self, clip: Clip) -> Ahead | None:
        return None

    async def start(self) -> None:
        self.started += 1

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - as in the protocol
        self.state = "draining"
        self.drained.append(timeout)
