"""What all recognitions share, and the recognition of clips under one set of options."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from time import time_ns

from service.errors import ModelLoading, QueueFull
from service.inference.recognizer import Recognizer
from service.observability.observer import Observer
from service.recognition.cache import AnswerCache
from service.recognition.concurrency import within
from service.recognition.options import Options
from service.recognition.scores import recognition, resolve_labels
from service.results import Clip, ClipOutput, ModelInfo, Recognition, Timings

_QUEUE_PAUSE = 0.25
"""Seconds between two attempts to put a clip into a full queue."""


@dataclass(frozen=True, slots=True)
class Core:
    """Resources and limits of all recognitions of a process.

    Attributes:
        recognizer: runs the model on clips.
        threads: decode files and build large answers.
        max_duration: seconds of audio that a file may have.
        longest_clip: seconds that it may have if it is scored in one piece, with any granularity other than segment.
        observer: receives reports.
        cache: of answers; None if it is disabled.
        frame_embedding_seconds: seconds of audio, over all clips of a request, for which it gets frame embeddings. They
            take 12 MiB a minute with the large model.
    """

    recognizer: Recognizer
    threads: Executor
    max_duration: float
    longest_clip: float
    observer: Observer = field(default_factory=Observer)
    cache: AnswerCache | None = None
    frame_embedding_seconds: float = inf

    def loaded_model(self) -> ModelInfo:
        """The model that the recognizer has loaded.

        Raises:
            ModelLoading: if there is none yet.
        """
        model = self.recognizer.model
        if model is None:
            raise ModelLoading("The model is loading; try again soon.")
        return model


class Progress:
    """The progress of one request. Recognition writes it; the log and `GET /requests/{id}` read it.

    Attributes:
        received: whether the body has been received.
        audio_seconds: seconds of audio that were decoded; None before that.
        timings: of its files and clips; the maximum of each stage is logged.
        segments: number of recognised utterances; None unless the granularity is segment.
        segments_until: end of the last of them, in seconds of the file.
        waiting: the clips that the recognizer has, queued or running, by their `id`.
        answered: whether the recognizer has finished with any clip, also by an error.
    """

    def __init__(self) -> None:
        self.received = False
        self.audio_seconds: float | None = None
        self.timings: list[Timings] = []
        self.segments: int | None = None
        self.segments_until = 0.0
        self.waiting: dict[int, Clip] = {}
        self.answered = False

    @contextmanager
    def track(self, clip: Clip) -> Iterator[None]:
        """Have `clip` in `waiting` during the block."""
        self.waiting[id(clip)] = clip
        try:
            yield
        finally:
            del self.waiting[id(clip)]
            self.answered = True


class ClipRecognition:
    """Recognises clips under one set of options, for a file, a long recording or a live stream.

    Args:
        core: resources and limits.
        options: of the request; labels are resolved once, here.
        progress: of the request.

    Attributes:
        model: the loaded model.

    Raises:
        ModelLoading: if there is no model yet.
        InvalidOptions: if a label is not one of the model's.
    """

    def __init__(self, core: Core, options: Options, progress: Progress) -> None:
        self.model = core.loaded_model()
        self._labels = None if options.labels is None else resolve_labels(options.labels, self.model)
        self._core = core
        self._options = options
        self._progress = progress

    async def run(self, clip: Clip, deadline: float, *, wait: bool = False) -> tuple[ClipOutput, Timings]:
        """Run the model on a clip; returns its output and the seconds of the engine's stages.

        Args:
            clip: the waveform.
            deadline: on the loop's clock.
            wait: whether to wait for room in a full queue, until the deadline.

        Raises:
            QueueFull: if the queue has no room, and `wait` is false.
            ServiceError: as `Recognizer.recognize` does.
        """
        observer = self._core.observer
        with observer.span("recognize"), self._progress.track(clip):
            while True:
                queued = time_ns()
                try:
                    output, timings = await self._core.recognizer.recognize(clip, deadline=deadline)
                    break
                except QueueFull:
                    if not wait:
                        raise
                async with within(deadline):
                    await asyncio.sleep(_QUEUE_PAUSE)
            observer.add_stage_spans(queued, timings)
        return output, timings

    def score(self, output: ClipOutput) -> Recognition:
        """Compute scores from the output for a clip, under the options.

        Raises:
            InferenceFailed: if the output is not finite.
        """
        options = self._options
        return recognition(
            output,
            self.model,
            granularity=options.granularity,
            embedding=options.embedding,
            labels=self._labels,
            window=options.window,
            hop=options.hop,
            offset=options.start or 0.0,
        )
