"""The thread that owns a backend: loads it, warms it up, runs batches, closes it.

    event loop                       worker thread
    RequestQueue.put ───────────────▶ RequestQueue.take ─▶ Backend.run
    WorkerEvents.* ◀── call_soon_threadsafe, once per run ──┘

A clip on which the model fails alone may be at fault itself, or have met a backend that fails on everything, as after
an error of the GPU that sticks. A clip that is known to be good tells which: it must succeed right afterwards.

Nothing but the queue is shared. What the thread has to say, it says by calling `WorkerEvents` on the event loop;
`busy_since` and `memory` are plain attributes, replaced whole and read at any time.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from service.errors import BackendBroken, SetupError
from service.inference.backend import Backend
from service.inference.batch import Entry
from service.inference.request_queue import RequestQueue
from service.model.synthetic_speech import speech_like
from service.results import SAMPLING_RATE, BatchOutput, Clip, ModelInfo

logger = logging.getLogger(__name__)

THREAD_NAME = "inference-worker"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A backend is loaded and warm; `seconds` is how long that took."""

    model: ModelInfo
    seconds: float


@dataclass(frozen=True, slots=True)
class Run:
    """One successful call of `Backend.run`: `output.clips[i]` answers `entries[i]`.

    Attributes:
        entries: what was run.
        output: what came out.
        taken: when the worker took the batch, a time of `time.monotonic`.
        seconds: how long the call took.
    """

    entries: Sequence[Entry]
    output: BatchOutput
    taken: float
    seconds: float


@dataclass(frozen=True, slots=True)
class WorkerEvents:
    """What the thread reports, each called on the event loop, in the order in which it happened.

    Attributes:
        ready: the backend is loaded and warm.
        finished: a run has succeeded.
        failed: the model failed on this one clip.
        broke: the backend is of no use any more and the thread about to end; these entries were taken and have no end.
        died: the thread is about to end without having been asked to; a `SetupError` says why where one was raised.
        ended: the backend is closed and the thread is over; the last report of every thread.
    """

    ready: Callable[[Loaded], None]
    finished: Callable[[Run], None]
    failed: Callable[[Entry], None]
    broke: Callable[[Sequence[Entry]], None]
    died: Callable[[SetupError | None], None]
    ended: Callable[[], None]


class Worker:
    """One life of the worker thread; a restart makes a new one.

    Args:
        load: makes the backend; called in the thread.
        queue: where the work comes from; closing it ends the thread.
        loop: the event loop that `events` belong to.
        events: where reports go.

    Attributes:
        busy_since: when the present call of `Backend.run` began (`time.monotonic`), None between calls.
        memory: bytes of device memory by kind, as of the last run.
    """

    def __init__(
        self,
        load: Callable[[], Backend],
        queue: RequestQueue,
        loop: asyncio.AbstractEventLoop,
        events: WorkerEvents,
    ) -> None:
        self.busy_since: float | None = None
        self.memory: Mapping[str, int] = {}
        self._load = load
        self._queue = queue
        self._loop = loop
        self._events = events
        # A daemon, because a thread stuck in native code must not keep the process from ending.
        self._thread = threading.Thread(target=self._main, name=THREAD_NAME, daemon=True)

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: if the system gives no thread.
        """
        self._thread.start()

    def stuck(self, after: float) -> bool:
        """Whether the present call of `Backend.run` has taken so many seconds. How a thread ends, `events` tell."""
        busy_since = self.busy_since
        return busy_since is not None and time.monotonic() - busy_since >= after

    def join(self) -> None:
        """Wait for the thread; call it after `WorkerEvents.ended`, when there is nothing left to wait for."""
        self._thread.join()

    def _main(self) -> None:
        backend: Backend | None = None
        try:
            began = time.monotonic()
            backend = self._load()
            if not self._queue.closed:
                backend.warm_up()
                self.memory = backend.memory()
                self._post(self._events.ready, Loaded(backend.info, time.monotonic() - began))
            self._serve(backend)
        # Not only Exception: whatever ends the thread, SystemExit included, must reach those who wait for it.
        except BaseException as error:
            self._report_death(error)
        finally:
            # A death is reported before this, so that nobody waits for it; a restart waits, so that two models
            # are never in memory together.
            try:
                if backend is not None:
                    self._close(backend)
            finally:
                self._post(self._events.ended)

    def _serve(self, backend: Backend) -> None:
        while (batch := self._queue.take(backend.limits)) is not None:
            if not self._work_off(backend, batch):
                return
            del batch  # nothing keeps the audio while the thread waits
            self.memory = backend.memory()

    def _work_off(self, backend: Backend, batch: Sequence[Entry]) -> bool:
        """Bring every entry to its end, one by one where the batch fails as a whole; False if the backend broke."""
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
        """Answer those entries that are still wanted; False if the model fails on them."""
        now = time.monotonic()
        wanted = [(entry, clip) for entry in batch if (clip := entry.wanted(now)) is not None]
        if not wanted:
            return True
        entries = [entry for entry, _ in wanted]
        try:
            output = self._call(backend, [clip for _, clip in wanted])
        except BackendBroken:
            raise
        except Exception:
            logger.exception(
                "the model failed on a batch of %d (%.1f s of audio)", len(entries), sum(e.seconds for e in entries)
            )
        else:
            self._post(self._events.finished, Run(entries, output, taken, time.monotonic() - now))
            return True
        # Outside the handler: an exception that is being handled keeps its frames and so the failed batch's memory.
        if len(entries) == 1:
            self._examine(backend)
        return False

    def _examine(self, backend: Backend) -> None:
        try:
            self._call(backend, [_good_clip()])
        except BackendBroken:
            raise
        except Exception as error:
            raise BackendBroken("it fails on a clip that is known to be good") from error

    def _call(self, backend: Backend, clips: Sequence[Clip]) -> BatchOutput:
        self.busy_since = time.monotonic()
        try:
            output = backend.run(clips)
        finally:
            self.busy_since = None
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
            # The loop was closed without draining the engine: nobody is left to answer.
            self._queue.close()


@cache
def _good_clip() -> Clip:
    return Clip(speech_like(1.0), SAMPLING_RATE)
