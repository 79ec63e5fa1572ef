"""The `Recognizer` of this process: permits, a bounded queue and one supervised worker thread.

The caller of every accepted clip waits on one future. The first of these events completes it: the answer, a failure of
the model on this clip, the deadline, the cancellation of the caller, the death of the worker, the end of draining. When
a backend breaks, the clips of its batch are retried with the next backend, one by one, before those that wait. A clip
that breaks this backend too has failed, so no clip causes more than two loads. All state here belongs to the event
loop; the worker thread accesses it through `WorkerEvents` only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

from service.errors import (
    CallerLimit,
    DeadlineExceeded,
    Draining,
    InferenceFailed,
    ModelLoading,
    QueueFull,
    Refused,
    ServiceError,
    TooManyStreams,
    WorkerDead,
)
from service.inference.backend import Backend
from service.inference.engine_limits import EngineLimits
from service.inference.permits import Permits
from service.inference.recognizer import Ahead, Health
from service.inference.request_queue import ClipAnswer, Entry, RequestQueue, Throughput
from service.inference.supervisor import Supervisor
from service.inference.worker import Loaded, Run
from service.observability.observer import EngineState, Observer
from service.results import Clip, ModelInfo, Timings

logger = logging.getLogger(__name__)

STOP_GRACE = 1.0
"""Seconds for which draining waits for the worker thread after its own time limit."""

_LONG_RETRY = 10.0
"""`retry_after` of refused streams and recordings, since it is not known when one of the others ends."""

_PATIENCE = 4.0
"""A run is stuck once it takes so many times as long as expected: other programs may need the processor as well."""

_TWICE_AS_SLOW = 70.0
"""A clip of so many seconds takes about twice as long per second as a short one, since the work of attention grows with
the square of the length: the large model takes 0.14 s per second at 10 s and 0.54 s at 300 s (docs/performance.md)."""

_Refusal = TypeVar("_Refusal", bound=Refused)


class Engine:
    """Runs one model in one thread of this process; implements `service.inference.recognizer.Recognizer`.

    Args:
        load: makes the backend; called in the worker thread, and again at every restart.
        limits: bounds of the queue and of the permits.
        observer: receives the reports of the engine.
    """

    def __init__(self, load: Callable[[], Backend], limits: EngineLimits, observer: Observer) -> None:
        self._limits = limits
        self._observer = observer
        self._queue = RequestQueue(limits.max_queue_clips, limits.max_queue_seconds)
        self._worker = Supervisor(
            load,
            self._queue,
            self._time_limit,
            ready=self._on_ready,
            finished=self._on_finished,
            failed=self._on_failed,
            broke=self._on_broke,
            died=self._on_died,
        )
        self._throughput = Throughput()
        self._model: ModelInfo | None = None
        self._open: set[Entry] = set()  # accepted and not answered
        self._requests = Permits(limits.max_requests, limits.caller_share)
        self._recordings = Permits(limits.max_recordings, limits.caller_share)
        self._streams = Permits(limits.max_streams, limits.caller_share)
        self._started = False
        self._draining: asyncio.Task[None] | None = None
        self._closed = False
        self._ending = asyncio.Event()  # draining has begun
        self._settled = asyncio.Event()  # while draining: nothing is left that could still be answered
        observer.engine_created(self.state)

    @property
    def model(self) -> ModelInfo | None:
        """The model that was loaded last; None until the first one is ready."""
        return self._model

    def health(self) -> Health:
        """As `Recognizer.health`."""
        return Health(
            state="draining" if self._draining is not None else self._worker.phase,
            worker_alive=self._worker.alive,
        )

    def state(self) -> EngineState:
        """The present load; may be called from any thread."""
        return EngineState(
            queued_clips=self._queue.clips,
            max_queued_clips=self._limits.max_queue_clips,
            queued_seconds=self._queue.seconds,
            max_queued_seconds=self._limits.max_queue_seconds,
            requests=self._requests.taken,
            max_requests=self._requests.limit,
            recordings=self._recordings.taken,
            max_recordings=self._recordings.limit,
            streams=self._streams.taken,
            max_streams=self._streams.limit,
            worker_up=self._worker.phase == "ready" and self._worker.alive,
            memory=self._worker.memory,
        )

    @contextmanager
    def admit_request(self, caller: str) -> Iterator[None]:
        """As `Recognizer.admit_request`; a request that has a permit when draining begins may still queue clips."""
        self._require_open()
        if self._requests.all_taken or self._queue.full:
            raise self._refused(self._queue_full())
        self._require_share(self._requests, caller, "requests", self._throughput.retry_after(self._queue.seconds))
        with self._hold(self._requests, caller):
            yield

    @contextmanager
    def admit_recording(self, caller: str) -> Iterator[None]:
        """As `Recognizer.admit_recording`."""
        if self._recordings.all_taken:
            limit = self._recordings.limit
            detail = f"{limit} requests with granularity=segment are being worked on, as many as the service takes."
            raise self._refused(QueueFull(detail, _LONG_RETRY))
        self._require_share(self._recordings, caller, "requests with granularity=segment", _LONG_RETRY)
        with self._recordings.hold(caller):
            yield

    @contextmanager
    def admit_stream(self, caller: str) -> Iterator[asyncio.Event]:
        """As `Recognizer.admit_stream`."""
        self._require_open()
        if self._streams.all_taken:
            raise self._refused(TooManyStreams("As many streams as the service takes are open.", _LONG_RETRY))
        self._require_share(self._streams, caller, "streams", _LONG_RETRY)
        with self._hold(self._streams, caller):
            yield self._ending

    async def recognize(self, clip: Clip, *, deadline: float) -> ClipAnswer:
        """As `Recognizer.recognize`; `deadline` must be finite."""
        if self._closed or (self._draining is not None and not (self._requests.taken or self._streams.taken)):
            raise self._refused(_shutting_down())
        self._require_worker()
        loop = asyncio.get_running_loop()
        left = deadline - loop.time()
        if left <= 0:
            raise _too_late()
        # Not the loop's clock, since the worker thread compares times too, and uvloop's clock is coarser.
        now = time.monotonic()
        entry = Entry(clip, clip.duration, now, now + left, loop.create_future())
        if not self._queue.put(entry):
            raise self._refused(self._queue_full())
        self._open.add(entry)
        timer = loop.call_at(deadline, _expire, entry)
        try:
            return await entry.future
        except asyncio.CancelledError:
            self._observer.request_cancelled()
            raise
        finally:
            timer.cancel()
            entry.clip = None
            self._queue.discard(entry)
            self._open.discard(entry)
            self._worker.end_unwanted_run()
            self._check_settled()
            # The traceback of an error refers to this frame, and the entry's future to the error. Without `del`, this
            # cycle would keep the audio of every failed request in memory until the garbage collector runs.
            del entry, clip

    def ahead_of(self, clip: Clip) -> Ahead | None:
        """As `Recognizer.ahead_of`."""
        ahead = self._queue.ahead_of(clip)
        if ahead is None:
            return None
        clips, seconds = ahead
        return Ahead(clips, seconds, self._throughput.expected(seconds))

    def expected(self, seconds: float) -> float | None:
        """Seconds that one clip of `seconds` takes at the recent speed, None before it is known; for any thread."""
        expected = self._throughput.expected(seconds)
        return None if expected is None else expected * (1 + seconds / _TWICE_AS_SLOW)

    async def start(self) -> None:
        """As `Recognizer.start`.

        Raises:
            RuntimeError: if the engine was started or drained before.
        """
        if self._started or self._draining is not None:
            raise RuntimeError("an engine starts once")
        self._started = True
        self._worker.start()

    async def wait_ready(self) -> None:
        """Wait until the model is ready; a load that fails with another error than `SetupError` is retried.

        Raises:
            SetupError: as `load` raised it, or because too many loads have failed; loads are retried even then.
            Draining: if the engine is drained instead.
        """
        if not await self._worker.wait_ready():
            raise _shutting_down()

    async def wait_permanent_failure(self) -> None:
        """Wait until so many consecutive loads have failed that the process should be restarted."""
        await self._worker.wait_permanent_failure()

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - as in the protocol
        """As `Recognizer.drain`; a second call waits for the first one, and cancelling the caller does not stop it."""
        if self._draining is None:
            self._worker.stop()
            self._ending.set()
            self._draining = asyncio.create_task(self._drain_within(timeout), name="engine-drain")
        await asyncio.shield(self._draining)

    async def _drain_within(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        self._check_settled()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                await self._settled.wait()
        self._closed = True
        self._fail_open(_shutting_down)
        self._queue.close()
        try:
            async with asyncio.timeout_at(max(end, loop.time() + STOP_GRACE)):
                await self._worker.wait_ended()
        except TimeoutError:
            logger.error("the inference worker does not stop and is left behind")

    def _on_ready(self, loaded: Loaded) -> None:
        self._model = loaded.model
        if loaded.cost is not None:
            self._throughput.observe(1.0, loaded.cost)
        self._observer.model_loaded(loaded.model, loaded.seconds)

    def _on_finished(self, run: Run) -> None:
        output = run.output
        for entry, answer in zip(run.entries, output.clips, strict=True):
            timings = Timings(
                queue=run.taken - entry.enqueued,
                preprocess=output.preprocess_seconds,
                inference=output.inference_seconds,
            )
            if entry.answer(answer, timings):
                self._observer.clip_answered(timings)
        seconds = sum(entry.seconds for entry in run.entries)
        self._throughput.observe(seconds, run.seconds)
        self._observer.run_finished(len(run.entries), seconds, output.padding_ratio)

    def _on_failed(self, entry: Entry) -> None:
        self._observer.clip_failed()
        entry.fail(InferenceFailed("The model failed on this audio; the other requests are not concerned."))

    def _on_broke(self, entries: Sequence[Entry]) -> None:
        self._observer.worker_died()
        for entry in entries:
            if entry.retried:  # then it ran alone
                self._on_failed(entry)
        again = [entry for entry in entries if not entry.future.done()]
        for entry in again:
            entry.retried = True
        self._queue.put_back(again)

    def _on_died(self) -> None:
        self._observer.worker_died()
        self._fail_open(self._worker_dead)
        self._check_settled()

    def _fail_open(self, error: Callable[[], ServiceError]) -> None:
        for entry in self._open:
            entry.fail(error())  # one each, since raising an exception adds to its traceback

    def _check_settled(self) -> None:
        answerable = self._worker.phase == "ready" and (self._requests.taken or self._streams.taken or self._open)
        if self._draining is not None and not answerable:
            self._settled.set()

    def _time_limit(self, seconds: float) -> float:
        """Seconds that a run with `seconds` of audio may take before the worker counts as stuck."""
        return max(self._limits.stuck_after, _PATIENCE * (self.expected(seconds) or 0.0))

    @contextmanager
    def _hold(self, permits: Permits, caller: str) -> Iterator[None]:
        """Hold one of the permits for which draining waits."""
        try:
            with permits.hold(caller):
                yield
        finally:
            self._check_settled()

    def _require_share(self, permits: Permits, caller: str, what: str, retry_after: float) -> None:
        if permits.share_taken(caller):
            detail = f"This caller has as many {what} at a time as leave enough for others; try again later."
            raise self._refused(CallerLimit(detail, retry_after))

    def _require_open(self) -> None:
        if self._draining is not None:
            raise self._refused(_shutting_down())
        self._require_worker()

    def _require_worker(self) -> None:
        if self._worker.phase == "loading":
            raise self._refused(ModelLoading("The model is loading; try again soon."))
        if self._worker.phase == "dead":
            raise self._refused(self._worker_dead())

    def _worker_dead(self) -> WorkerDead:
        return WorkerDead("The inference worker is down and will be restarted.", max(1.0, self._worker.pause))

    def _queue_full(self) -> QueueFull:
        detail = "As many requests as the service takes are being worked on; try again later."
        return QueueFull(detail, self._throughput.retry_after(self._queue.seconds))

    def _refused(self, error: _Refusal) -> _Refusal:
        self._observer.request_refused(error.code)
        return error


def _expire(entry: Entry) -> None:
    entry.fail(_too_late())


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("The answer was not ready within the time allowed.")


def _shutting_down() -> Draining:
    return Draining("The service is shutting down and takes nothing new.")
