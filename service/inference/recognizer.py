"""The interface of an inference engine, which may run in this process, in another one, or be a test double."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from service.results import Clip, ClipOutput, ModelInfo, Timings

State = Literal["loading", "ready", "draining", "dead"]


@dataclass(frozen=True, slots=True)
class Health:
    """The state of a recognizer, for probes.

    Attributes:
        state: requests are accepted only in the state `ready`.
        worker_alive: whether the worker thread runs and is not stuck.
    """

    state: State
    worker_alive: bool


@dataclass(frozen=True, slots=True)
class Ahead:
    """What waits before a clip, in order of arrival: of these, a short clip may overtake the long ones.

    Attributes:
        clips: how many clips.
        seconds: their audio seconds.
        wait: seconds until they are done at the recent speed, None before there is one. The present run is not counted.
    """

    clips: int
    seconds: float
    wait: float | None


class Recognizer(Protocol):
    """Answers clips. All methods belong to the event loop that started it."""

    @property
    def model(self) -> ModelInfo | None:
        """The loaded model, None until it is ready."""

    def health(self) -> Health:
        """The present state; does not block."""

    def admit_request(self, caller: str) -> AbstractContextManager[None]:
        """Take a permit for one request, before its body is read; it is given back on exit.

        Args:
            caller: a name for who asks.

        Raises:
            QueueFull: if all permits are taken or the queue is full.
            CallerLimit: if the caller holds as many as it may.
            ModelLoading, Draining, WorkerDead: if no request is accepted now.
        """

    def admit_recording(self, caller: str) -> AbstractContextManager[None]:
        """Take a second permit, beside that of the request, for a request that takes as long as its recording.

        It leaves permits and memory for short requests.

        Raises:
            QueueFull: if all permits of this kind are taken.
            CallerLimit: as above.
        """

    def admit_stream(self, caller: str) -> AbstractContextManager[asyncio.Event]:
        """Take a permit for one stream, instead of that for a request; it is given back on exit.

        The event is set when draining begins. The stream must then end; until it has, its clips are still answered.

        Raises:
            TooManyStreams: if all permits of streams are taken.
            CallerLimit: as above.
            ModelLoading, Draining, WorkerDead: if no stream is accepted now.
        """

    async def recognize(self, clip: Clip, *, deadline: float) -> tuple[ClipOutput, Timings]:
        """Queue one clip and wait for its answer; `deadline` is a time of the running loop's clock.

        Cancelling the caller drops the clip, which is not run if it still waits.

        Raises:
            QueueFull: if the queue has no room for the clip.
            ModelLoading, Draining, WorkerDead: if no answer can be given now, or the worker died meanwhile.
            DeadlineExceeded: if the answer would come too late.
            InferenceFailed: if the model fails on this clip.
        """

    def ahead_of(self, clip: Clip) -> Ahead | None:
        """What waits before `clip` (compared by identity); None if `clip` does not wait in the queue."""

    async def start(self) -> None:
        """Begin to load the model in the background and return at once."""

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - clips are finished, not cancelled
        """Accept nothing new, finish what was accepted for up to `timeout` seconds, then stop the worker.

        Clips that are not answered by then fail with `Draining`.
        """
