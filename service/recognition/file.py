"""Recognise a file in one piece: decode it in a thread, queue its clips, compute scores, build the result.

If the cache of answers is enabled, the same thread first looks the file up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, BinaryIO

from service.errors import AudioTooLong
from service.preprocess.bandwidth import is_narrow
from service.preprocess.clips import make_clips
from service.preprocess.decode import decode
from service.recognition.answers import file_result
from service.recognition.cache import CacheControl, CachedFile, Key, file_key
from service.recognition.concurrency import all_of, in_pool, within
from service.recognition.core import ClipRecognition, Core, Progress
from service.recognition.options import Options
from service.results import Clip, ClipOutput, DecodedFile, Timings

if TYPE_CHECKING:
    from service.recognition.result_types import FileResult

_PARALLEL_CLIPS = 4


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """The answer for one file, its timings, and whether it came from the cache (None without a cache)."""

    result: FileResult
    timings: Timings
    cached: bool | None


class FileRecognition:
    """Recognises the files of one request under one set of options.

    Args:
        core: resources and limits.
        options: of the request; the granularity is not segment.
        deadline: on the loop's clock.
        progress: of the request.
        cache_control: whether the request may use the cache.

    Attributes:
        model: the loaded model.

    Raises:
        ModelLoading: if there is no model yet.
        InvalidOptions: if a label is not one of the model's.
    """

    def __init__(
        self,
        core: Core,
        options: Options,
        deadline: float,
        progress: Progress,
        cache_control: CacheControl = CacheControl(),  # noqa: B008 - immutable
    ) -> None:
        self._clips = ClipRecognition(core, options, progress)
        self.model = self._clips.model
        self._core = core
        self._options = options
        self._deadline = deadline
        self._progress = progress
        self._cache_control = cache_control
        self._frame_embedding_seconds = 0.0  # of this request so far

    async def run(self, file: BinaryIO) -> FileAnswer:
        """Recognise one file, and close it.

        Raises:
            ServiceError: any that concerns this file.
        """
        core = self._core
        began = perf_counter()  # the loop's clock is coarse
        with core.observer.span("decode"):
            key, opened = await self._open(file)
        timings = Timings(decode=perf_counter() - began)
        self._progress.audio_seconds = (self._progress.audio_seconds or 0.0) + opened.duration
        self._progress.timings.append(timings)
        if self._options.embedding == "frame":
            self._charge_frame_embeddings(opened.seconds)
        if isinstance(opened, CachedFile):
            answer = opened
        else:
            core.observer.file_decoded(timings.decode)
            outputs, spent = await self._run_clips(opened.clips)
            timings = replace(spent, decode=timings.decode)
            self._progress.timings.append(timings)
            if self._options.over_time:
                answer = await in_pool(core.threads, None, self._answer, opened, outputs, key)
            else:
                answer = self._answer(opened, outputs, key)
        for label in answer.labels:
            core.observer.label_predicted(label)
        return FileAnswer(answer.result, timings, None if core.cache is None else answer is opened)

    def _charge_frame_embeddings(self, seconds: float) -> None:
        allowed = self._core.frame_embedding_seconds
        if self._frame_embedding_seconds + seconds > allowed:
            raise AudioTooLong(f"Frame embeddings are given for {allowed:g} s of audio in one request at most.")
        self._frame_embedding_seconds += seconds

    async def _open(self, file: BinaryIO) -> tuple[Key | None, DecodedFile | CachedFile]:
        try:
            async with within(self._deadline):
                return await in_pool(self._core.threads, file.close, self._look_up_or_decode, file)
        except asyncio.CancelledError:
            # The engine reports callers that are cancelled later, while a clip is queued or running.
            self._core.observer.request_cancelled()
            raise

    def _look_up_or_decode(self, file: BinaryIO) -> tuple[Key | None, DecodedFile | CachedFile]:
        """The cached answer for this file, or its clips; and the key under which to store their answer."""
        core, key = self._core, None
        if core.cache is not None:
            if self._cache_control.store:
                key = file_key(file, self._options, self.model)
            if key is None or not self._cache_control.read:
                core.observer.cache_looked_up("bypass")
            elif (cached := core.cache.get(key)) is not None:
                return None, cached
        return key, decode_clips(file, self._options, core.longest_clip, core.max_duration)

    async def _run_clips(self, clips: Sequence[Clip]) -> tuple[list[ClipOutput], Timings]:
        limit = asyncio.Semaphore(_PARALLEL_CLIPS)

        async def run(clip: Clip) -> tuple[ClipOutput, Timings]:
            async with limit:
                return await self._clips.run(clip, self._deadline)

        answers = await all_of(run(clip) for clip in clips)
        return [output for output, _ in answers], Timings.longest(timings for _, timings in answers)

    def _answer(self, file: DecodedFile, outputs: Sequence[ClipOutput], key: Key | None) -> CachedFile:
        recognitions = [self._clips.score(output) for output in outputs]
        labels = tuple(each.label.en for each in recognitions)
        answer = CachedFile(file_result(file, recognitions, self._options), labels, file.seconds)
        if self._core.cache is not None and key is not None:
            self._core.cache.put(key, answer)
        return answer


def decode_clips(file: BinaryIO, options: Options, longest_clip: float, max_duration: float) -> DecodedFile:
    """Decode a file and make the clips that the options select.

    Args:
        file: the audio file.
        options: of the request.
        longest_clip: seconds that the file may last.
        max_duration: seconds that it may last with granularity segment; mentioned in the error for a longer one.

    Raises:
        AudioError: if the audio is not usable.
        InvalidOptions: if an option does not match it.
    """
    try:
        waveform = decode(file, max_duration=longest_clip)
    except AudioTooLong as error:
        if max_duration <= longest_clip:
            raise
        raise AudioTooLong(f"{error.detail} With granularity=segment it may last {max_duration:g} s.") from None
    clips, taken = make_clips(
        waveform,
        channels=options.channels,
        start=options.start,
        end=options.end,
        trim=options.trim,
        frame_embeddings=options.embedding == "frame",
    )
    narrow = is_narrow(waveform.samples, waveform.sampling_rate)
    return DecodedFile(
        tuple(clips),
        waveform.duration,
        waveform.sampling_rate,
        waveform.channels,
        narrow,
        waveform.truncated,
        waveform.unread_bytes,
        taken,
    )
