"""One file's way through the house: decode in a thread, queue its clips, score the outputs, shape the result.

Or a shorter way: in the thread that would decode it, the file is found to have been answered before.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from time import perf_counter, time_ns
from typing import BinaryIO

from service.api.request_context import Notes, Services
from service.api.schemas import FileResult
from service.errors import AudioTooLong, ModelLoading
from service.observability.spans import add_stages, span
from service.recognition.answers import file_result, longest
from service.recognition.cache import Key, Outcome, Reuse, file_key
from service.recognition.concurrency import all_of, in_pool, within
from service.recognition.options import Options
from service.recognition.progress import RequestProgress
from service.recognition.scores import resolve_labels
from service.recognition.steps import Decoded, decode_clips, score_outputs
from service.results import Clip, ClipOutput, ModelInfo, Timings

_PARALLEL_CLIPS = 4
_BUDGET = 2.0


class FrameEmbeddingBudget:
    """Bounds what frame embeddings may take of the memory: 12 MiB a minute of audio in the large model.

    One request, however many files and channels it has, gets them for twice the length that one file may have, so
    that stereo of full length passes.
    """

    def __init__(self, max_duration: float) -> None:
        self._allowed = self._left = _BUDGET * max_duration

    def take(self, seconds: float) -> None:
        """Charge clips of `seconds` in all.

        Raises:
            AudioTooLong: if the request has had its share.
        """
        if seconds > self._left:
            raise AudioTooLong(f"Frame embeddings are given for {self._allowed:g} s of audio in one request at most.")
        self._left -= seconds


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """The answer for one file, what it took, and whether it was known before (None without a cache)."""

    result: FileResult
    timings: Timings
    cached: bool | None


def loaded_model(services: Services) -> ModelInfo:
    """The model that answers.

    Raises:
        ModelLoading: if there is none yet.
    """
    model = services.recognizer.model
    if model is None:
        raise ModelLoading("The model is loading; try again soon.")
    return model


class Pipeline:
    """Recognises the files of one request under one set of options.

    Args:
        services: the parts of the application.
        options: what the client asked for.
        deadline: on the loop's clock.
        reuse: what the client lets the cache do.
        notes: where to put down what the log should tell.
        progress: where to note what is being done.

    Raises:
        InvalidOptions: if a label is not one of the model's.
    """

    def __init__(
        self,
        services: Services,
        options: Options,
        deadline: float,
        reuse: Reuse,
        notes: Notes,
        progress: RequestProgress,
    ) -> None:
        self.model = loaded_model(services)
        self._services = services
        self._options = options
        self._deadline = deadline
        self._reuse = reuse
        self._notes = notes
        self._progress = progress
        self._labels = None if options.labels is None else resolve_labels(options.labels, self.model)
        self._budget = FrameEmbeddingBudget(services.settings.longest_clip)

    async def run(self, file: BinaryIO) -> FileAnswer:
        """Recognise one file, and close it.

        Raises:
            ServiceError: any that concerns this file.
        """
        began = perf_counter()  # the loop's clock is coarse
        with span(self._services.tracer, "decode"):
            key, opened = await self._open(file)
        timings = Timings(decode=perf_counter() - began)
        self._notes.audio_seconds = (self._notes.audio_seconds or 0.0) + opened.duration
        self._notes.timings.append(timings)
        if self._options.embedding == "frame":
            self._budget.take(opened.seconds)
        if isinstance(opened, Outcome):
            outcome = opened
        else:
            self._services.metrics.stage_duration.labels("decode").observe(timings.decode)
            outputs, spent = await self._recognize_all(opened.clips)
            timings = replace(spent, decode=timings.decode)
            self._notes.timings.append(timings)
            if self._options.over_time:
                outcome = await in_pool(self._services.pool, None, self._shape, opened, outputs, key)
            else:
                outcome = self._shape(opened, outputs, key)
        for label in outcome.labels:
            self._services.metrics.predictions.labels(label).inc()
        known = None if self._services.cache is None else outcome is opened
        return FileAnswer(outcome.result, timings, known)

    async def _open(self, file: BinaryIO) -> tuple[Key | None, Decoded | Outcome]:
        try:
            async with within(self._deadline):
                return await in_pool(self._services.pool, file.close, self._look_up_or_decode, file)
        except asyncio.CancelledError:
            # From the queue on, the engine counts callers that give up.
            self._services.metrics.requests_cancelled.inc()
            raise

    def _look_up_or_decode(self, file: BinaryIO) -> tuple[Key | None, Decoded | Outcome]:
        """What was found in this file before, or its clips; and the key under which to keep what is found in them."""
        key = None
        if (cache := self._services.cache) is not None:
            if self._reuse.store:
                key = file_key(file, self._options, self.model)
            if key is None or not self._reuse.read:
                self._services.metrics.cache_requests.labels("bypass").inc()
            elif (outcome := cache.get(key)) is not None:
                return None, outcome
        settings = self._services.settings
        return key, decode_clips(file, self._options, settings.longest_clip, settings.max_duration)

    async def _recognize_all(self, clips: tuple[Clip, ...]) -> tuple[list[ClipOutput], Timings]:
        limit = asyncio.Semaphore(_PARALLEL_CLIPS)
        answered = await all_of(self._recognize(clip, limit) for clip in clips)
        return [output for output, _ in answered], longest([timings for _, timings in answered])

    async def _recognize(self, clip: Clip, limit: asyncio.Semaphore) -> tuple[ClipOutput, Timings]:
        async with limit:
            with span(self._services.tracer, "recognize"), self._progress.at_the_recognizer(clip):
                queued = time_ns()
                output, timings = await self._services.recognizer.recognize(clip, deadline=self._deadline)
                add_stages(self._services.tracer, queued, timings)
            return output, timings

    def _shape(self, decoded: Decoded, outputs: list[ClipOutput], key: Key | None) -> Outcome:
        recognitions = score_outputs(outputs, self.model, self._options, self._labels)
        labels = tuple(each.labels[each.best].en for each in recognitions)
        outcome = Outcome(file_result(decoded, recognitions, self._options), labels, decoded.seconds)
        if self._services.cache is not None and key is not None:
            self._services.cache.put(key, outcome)
        return outcome
