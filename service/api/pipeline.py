"""One file's way through the house: decode in a thread, queue its clips, score the outputs, shape the result."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from time import perf_counter
from typing import BinaryIO

from service.api.answers import file_result, longest
from service.api.context import Services
from service.api.options import Options
from service.api.schemas import FileResult
from service.api.steps import Decoded, decode_clips, score_outputs
from service.api.work import all_of, in_pool, within
from service.errors import AudioTooLong, ModelLoading
from service.inference.scores import resolve_labels
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

    def take(self, clips: tuple[Clip, ...]) -> None:
        """Charge clips.

        Raises:
            AudioTooLong: if the request has had its share.
        """
        seconds = sum(clip.duration for clip in clips)
        if seconds > self._left:
            raise AudioTooLong(f"Frame embeddings are given for {self._allowed:g} s of audio in one request at most.")
        self._left -= seconds


class Pipeline:
    """Recognises the files of one request under one set of options.

    Args:
        services: the parts of the application.
        options: what the client asked for.
        deadline: on the loop's clock.

    Raises:
        InvalidOptions: if a label is not one of the model's.
    """

    def __init__(self, services: Services, options: Options, deadline: float) -> None:
        model = services.recognizer.model
        if model is None:
            raise ModelLoading("The model is loading; try again soon.")
        self.model: ModelInfo = model
        self._services = services
        self._options = options
        self._deadline = deadline
        self._labels = None if options.labels is None else resolve_labels(options.labels, model)
        self._budget = FrameEmbeddingBudget(services.settings.max_duration)

    async def run(self, file: BinaryIO) -> tuple[FileResult, Timings]:
        """Recognise one file, and close it.

        Raises:
            ServiceError: any that concerns this file.
        """
        began = perf_counter()  # the loop's clock is coarse
        decoded = await self._decode(file)
        seconds = perf_counter() - began
        self._services.metrics.stage_duration.labels("decode").observe(seconds)
        if self._options.embedding == "frame":
            self._budget.take(decoded.clips)
        limit = asyncio.Semaphore(_PARALLEL_CLIPS)
        answered = await all_of(self._recognize(clip, limit) for clip in decoded.clips)
        outputs = [output for output, _ in answered]
        if self._options.over_time:
            result = await in_pool(self._services.pool, None, self._shape, decoded, outputs)
        else:
            result = self._shape(decoded, outputs)
        return result, replace(longest([timings for _, timings in answered]), decode=seconds)

    async def _decode(self, file: BinaryIO) -> Decoded:
        try:
            async with within(self._deadline):
                max_duration = self._services.settings.max_duration
                return await in_pool(self._services.pool, file.close, decode_clips, file, self._options, max_duration)
        except asyncio.CancelledError:
            # From the queue on, the engine counts callers that give up.
            self._services.metrics.requests_cancelled.inc()
            raise

    async def _recognize(self, clip: Clip, limit: asyncio.Semaphore) -> tuple[ClipOutput, Timings]:
        async with limit:
            return await self._services.recognizer.recognize(clip, deadline=self._deadline)

    def _shape(self, decoded: Decoded, outputs: list[ClipOutput]) -> FileResult:
        recognitions = score_outputs(outputs, self.model, self._options, self._labels)
        for each in recognitions:
            self._services.metrics.predictions.labels(each.labels[each.best].en).inc()
        return file_result(decoded, recognitions, self._options)
