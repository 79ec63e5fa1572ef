"""Recognise the files of a run in this process, with the engine and the core of the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from math import inf
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from service.errors import Draining, InferenceFailed, ModelLoading, QueueFull, ServiceError, SetupError, WorkerDead
from service.folders.source import FileOutcome, problem, unreadable
from service.inference.backend import Backend
from service.inference.engine import Engine
from service.inference.engine_limits import EngineLimits
from service.model.synthetic_speech import speech_like
from service.observability.observer import Observer
from service.recognition.answers import model_summary
from service.recognition.concurrency import in_pool
from service.recognition.core import ClipRecognition, Core, Progress
from service.recognition.file import FileRecognition
from service.recognition.options import Options
from service.results import SAMPLING_RATE, Clip

if TYPE_CHECKING:
    from service.recognition.result_types import FileResult, Segment, SegmentedResult

_THREADS = 256
"""Upper limit of decoding threads; one is started for each file that is recognised at a time."""

_GPU_FILES = 32
"""Files at a time if the model runs on a GPU, enough for a batch of the torch backend."""

_NO_DEADLINE = 1e8
"""Seconds until the deadline of a file; practically none."""

_LIMITS = EngineLimits(
    max_requests=_THREADS,
    max_recordings=_THREADS,
    max_streams=0,
    caller_share=1.0,
    max_queue_clips=5 * _THREADS,  # each file has up to four clips in the queue, and the check of the model one
    max_queue_seconds=inf,
    stuck_after=inf,
)

_BROKEN_MODEL = "The model does not work any more; the same command goes on from here."

T = TypeVar("T")


class LocalSource:
    """Recognises in this process. While the model runs, the files of its next run are decoded.

    The engine runs on an event loop in its own thread; `recognize` may be called from any number of threads. On Ctrl-C
    nothing is closed, since the process then ends without waiting for the model.

    Args:
        open_backend: opens the model.
        options: for every file.
        max_duration: seconds of audio that a file may have.
        longest_clip: seconds that it may have if it is scored in one piece, with any granularity other than segment.

    Raises:
        SetupError: if the model cannot be opened.
        InvalidOptions: if it does not have the labels asked for.
    """

    def __init__(
        self, open_backend: Callable[[], Backend], options: Options, *, max_duration: float, longest_clip: float
    ) -> None:
        self._options = options
        self._engine = Engine(open_backend, _LIMITS, Observer())
        threads = ThreadPoolExecutor(_THREADS, "decode")
        self._core = Core(self._engine, threads, max_duration, longest_clip)
        self._closed = False
        self._submitting = Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="recognition", daemon=True)
        self._thread.start()
        try:
            self._run(self._engine.start())
            self._run(self._engine.wait_ready())
            model = ClipRecognition(self._core, options, Progress()).model  # checks the labels as well
        except Exception:
            self._close(0.0)
            raise
        self.model = model_summary(model)
        # A CPU is busy with one clip, and the next one is decoded meanwhile; a GPU runs a whole batch at a time.
        self.concurrency = 2 if model.device == "cpu" else _GPU_FILES

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not KeyboardInterrupt:  # which ends the process: nothing is left to wait for
            self._close(_NO_DEADLINE if kind is None else 0.0)  # after an error, what still runs is not needed

    def recognize(self, path: Path) -> FileOutcome:
        """As `Source.recognize`; a file during which the worker died is retried once."""
        retried = False
        while True:
            try:
                return {"model": self.model, **self._run(self._recognize(path))}
            except QueueFull as error:  # too many long files are open
                time.sleep(error.retry_after)
            except ModelLoading:  # it is loaded again, because the worker died while it ran other files
                self._run(self._engine.wait_ready())
            except WorkerDead as error:
                self._run(self._check_model())
                if retried:
                    return problem(error.code, error.title, error.detail)
                retried = True
            except InferenceFailed as error:
                self._run(self._check_model())
                return problem(error.code, error.title, error.detail)
            except SetupError:
                raise
            except ServiceError as error:
                return problem(error.code, error.title, error.detail)
            except OSError as error:
                return unreadable(error)

    async def _recognize(self, path: Path) -> FileResult | SegmentedResult:
        deadline = self._loop.time() + _NO_DEADLINE
        core, options, progress = self._core, self._options, Progress()
        file = await in_pool(core.threads, None, path.open, "rb")
        if options.granularity != "segment":
            return (await FileRecognition(core, options, deadline, progress).run(file)).result
        from service.recognition.long_file import LongFileRecognition, SegmentLists  # segmentation is seldom needed

        long_file = LongFileRecognition(core, file, options, deadline, progress)
        segments = SegmentLists()

        async def keep(segment: Segment) -> None:
            segments.add(segment, segment)

        try:
            await long_file.open()
            totals, _ = await long_file.run(keep)
            return totals.result(segments)
        finally:
            long_file.close()

    async def _check_model(self) -> None:
        """Wait for the worker's restart, and run a clip that is known to be good.

        The model fails on it if it raises an error, or if its output is not finite, which the engine does not notice.

        Raises:
            SetupError: if the model cannot be loaded again, or fails on that clip as well: no file can be recognised.
        """
        await self._engine.wait_ready()
        clip, deadline = Clip(speech_like(1.0), SAMPLING_RATE), self._loop.time() + _NO_DEADLINE
        try:
            output, _ = await self._engine.recognize(clip, deadline=deadline)
        except (InferenceFailed, WorkerDead) as error:
            raise SetupError(_BROKEN_MODEL) from error
        if not np.isfinite(output.logits).all():
            raise SetupError(_BROKEN_MODEL)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        with self._submitting:
            if self._closed:
                coroutine.close()
                raise Draining("The run has ended.")
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result()

    def _close(self, drain_seconds: float) -> None:
        self._run(self._engine.drain(drain_seconds))
        self._core.threads.shutdown(wait=False, cancel_futures=True)
        with self._submitting:  # a coroutine submitted later would never end, nor the thread that waits for it
            self._closed = True
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
