"""The thread that owns a backend: loads it, warms it up, runs batches, closes it.

    event loop                       worker thread
    RequestQueue.put ───────────────▶ RequestQueue.take ─▶ Backend.run
    WorkerEvents.* ◀── call_soon_threadsafe, once per run ──┘

When the model fails on a single clip, the cause may be the clip, or a backend that fails on every clip, as after a
persistent GPU error. To find out, a clip that is known to be good is run right afterwards: if it fails too, the backend
is broken.

Only the queue is shared. The thread reports by calling `WorkerEvents` on the event loop; `answered`, `memory` and what
`stuck` and `end_unwanted_run` read are plain attributes that are replaced as a whole and may be read at any time.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from service.errors import BackendBroken, SetupError
from service.inference.backend import Backend
from service.inference.request_queue import Entry, RequestQueue
from service.model.synthetic_speech import speech_like
from service.results import SAMPLING_RATE, BatchOutput, Clip, ModelInfo

logger = logging.getLogger(__name__)

THREAD_NAME = "inference-worker"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A backend is loaded and warm, which took `seconds`; `cost` is what `Backend.warm_up` returned."""

    model: ModelInfo
    seconds: float
    cost: float | None


@dataclass(frozen=True, slots=True)
class Run:
    """One successful call of `Backend.run`: `output.clips[i]` answers `entries[i]`.

    Attributes:
        entries: the clips of the batch.
        output: of the backend.
        taken: when the worker took the batch, a time of `time.monotonic`.
        seconds: how long the call took.
    """

    entries: Sequence[Entry]
    output: BatchOutput
    taken: float
    seconds: float


@dataclass(frozen=True, slots=True)
class _Call:
    """The present call of `Backend.run`.

    Attributes:
        entries: whose clips are run; none for the clip that is known to be good.
        began: a time of `time.monotonic`.
        cancellation: cancelled once no caller waits for any of the entries.
    """

    entries: Sequence[Entry] = ()
    began: float = field(default_factory=time.monotonic)
    cancellation: Future[None] = field(default_factory=Future)

    @property
    def seconds(self) -> float:
        """Of audio."""
        return sum(entry.seconds for entry in self.entries)


@dataclass(frozen=True, slots=True)
class WorkerEvents:
    """The reports of the thread, called on the event loop in the order of the events.

    Attributes:
        ready: the backend is loaded and warm.
        finished: a run has succeeded.
        failed: the model failed on this one clip.
        broke: the backend cannot run any more, and the thread is about to end; these entries were not answered.
        died: the thread is about to end unexpectedly; with the `SetupError` if one was raised.
        ended: the backend is closed and the thread ends; the last report of every thread.
    """

    ready: Callable[[Loaded], None]
    finished: Callable[[Run], None]
    failed: Callable[[Entry], None]
    broke: Callable[[Sequence[Entry]], None]
    died: Callable[[SetupError | None], None]
    ended: Callable[[], None]


class Worker:
    """One worker thread; a restart makes a new one.

    Args:
        load: makes the backend; called in the thread.
        queue: where the clips come from; closing it ends the thread.
        loop: the event loop on which `events` are called.
        events: called with each report.

    Attributes:
        answered: whether any run has succeeded.
        memory: bytes of device memory by kind, as of the last run.
    """

    def __init__(
        self,
        load: Callable[[], Backend],
        queue: RequestQueue,
        loop: asyncio.AbstractEventLoop,
        events: WorkerEvents,
    ) -> None:
        self.answered = False
        self.memory: Mapping[str, int] = {}
        self._present: _Call | None = None
        self._load = load
        self._queue = queue
        self._loop = loop
        self._events = events
        # A daemon, so that a thread stuck in native code does not prevent the end of the process.
        self._thread = threading.Thread(target=self._main, name=THREAD_NAME, daemon=True)

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: if the thread cannot be started.
        """
        self._thread.start()

    def stuck(self, time_limit: Callable[[float], float]) -> bool:
        """Whether the present call of `Backend.run` takes as long as `time_limit` allows for its seconds of audio."""
        call = self._present
        return call is not None and time.monotonic() - call.began >= time_limit(call.seconds)

    def end_unwanted_run(self) -> None:
        """End the present run if no caller waits for any of its clips and the backend can end it (any thread)."""
        call = self._present
        if call is not None and call.entries and all(entry.clip is None for entry in call.entries):
            call.cancellation.cancel()

    def join(self) -> None:
        """Wait for the thread; returns at once after `WorkerEvents.ended`."""
        self._thread.join()

    def _main(self) -> None:
        backend: Backend | None = None
        try:
            began = time.monotonic()
            backend = self._load()
            if not self._queue.closed:
                cost = backend.warm_up()
                self.memory = backend.memory()
                self._post(self._events.ready, Loaded(backend.info, time.monotonic() - began, cost))
            self._serve(backend)
        # Not only Exception: callers wait, and must be told whatever ends the thread, including SystemExit.
        except BaseException as error:
            self._report_death(error)
        finally:
            # A death is reported before the backend is closed, so that callers fail at once. A restart waits for the
            # closing, so that two models are never in memory together.
            try:
                if backend is not None:
                    self._close(backend)
            finally:
                self._post(self._events.ended)

    def _serve(self, backend: Backend) -> None:
        while (batch := self._queue.take(backend.limits)) is not None:
            if not self._run_all(backend, batch):
                return
            del batch  # otherwise it would keep the audio in memory while the thread waits
            self.memory = backend.memory()

    def _run_all(self, backend: Backend, batch: Sequence[Entry]) -> bool:
        """Run all entries, one by one if the batch fails as a whole; False if the backend broke."""
        taken = time.monotonic()
        waiting = deque([batch])
        try:
            while waiting:
                done = self._run(backend, waiting[0], taken)
                run = waiting.popleft()
                if not done and len(run) > 1:
                    waiting.extend([entry] for entry in run)
                elif not done:
                    self._post(self._events.failed, run[0])
        except BackendBroken as error:
            logger.critical("the backend is broken and will be loaded again: %s", error.detail, exc_info=error)
            self._post(self._events.broke, [entry for run in waiting for entry in run])
            return False
        return True

    def _run(self, backend: Backend, batch: Sequence[Entry], taken: float) -> bool:
        """Run the entries whose callers still wait; False if the model fails on them."""
        now = time.monotonic()
        wanted = [(entry, clip) for entry in batch if (clip := entry.wanted(now)) is not None]
        if not wanted:
            return True
        entries = [entry for entry, _ in wanted]
        call = _Call(entries)
        try:
            output = self._call(backend, [clip for _, clip in wanted], call)
        except BackendBroken:
            raise
        except Exception:
            if call.cancellation.cancelled():  # it was ended, or nobody waits to be told of the failure
                logger.info("ended a run of %.1f s of audio for which nobody waits", call.seconds)
                return True
            logger.exception("the model failed on a batch of %d (%.1f s of audio)", len(entries), call.seconds)
        else:
            self.answered = True
            self._post(self._events.finished, Run(entries, output, taken, time.monotonic() - now))
            return True
        # Outside the handler, since an exception that is being handled keeps its frames and the memory of their batch.
        if len(entries) == 1:
            self._check(backend)
        return False

    def _check(self, backend: Backend) -> None:
        """Raise BackendBroken if the backend fails on a clip that is known to be good."""
        try:
            self._call(backend, [_good_clip()], _Call())
        except BackendBroken:
            raise
        except Exception as error:
            raise BackendBroken("it fails on a clip that is known to be good") from error

    def _call(self, backend: Backend, clips: Sequence[Clip], call: _Call) -> BatchOutput:
        self._present = call
        self.end_unwanted_run()  # a caller that left since the entries were checked has not found this call
        try:
            output = backend.run(clips, call.cancellation)
        finally:
            self._present = None
        if len(output.clips) != len(clips):
            raise RuntimeError(f"the backend answered {len(output.clips)} of {len(clips)} clips")
        return output

    def _report_death(self, error: BaseException) -> None:
        if isinstance(error, SetupError):
            logger.critical("the inference worker cannot start: %s", error.detail)
        else:
            logger.critical("the inference worker died", exc_info=error)
        self._post(self._events.died, error if isinstance(error, SetupError) else None)

    def _close(self, backend: Backend) -> None:
        try:
            backend.close()
        except Exception:
            logger.exception("the backend could not be closed")

    def _post(self, report: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(report, *args)
        except RuntimeError:
            # The loop was closed without draining the engine, so no caller waits.
            self._queue.close()


@cache
def _good_clip() -> Clip:
    return Clip(speech_like(1.0), SAMPLING_RATE)
