"""What every recognition uses, and the one place where clips are recognised under a set of options."""

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
"""Seconds after which a clip that found the queue full tries again, where it waits for room."""


@dataclass(frozen=True, slots=True)
class Core:
    """What all recognitions of a process share.

    Attributes:
        recognizer: answers clips.
        threads: decode files and build large answers.
        max_duration: seconds of audio that a file may have.
        longest_clip: seconds that it may have where all of it goes through the model in one piece, as it does with any
            granularity but segment.
        observer: is told what happens.
        cache: keeps answers; None where it is off.
        frame_embedding_seconds: seconds of audio for which one request gets frame embeddings, over all its clips. They
            take 12 MiB a minute in the large model.
    """

    recognizer: Recognizer
    threads: Executor
    max_duration: float
    longest_clip: float
    observer: Observer = field(default_factory=Observer)
    cache: AnswerCache | None = None
    frame_embedding_seconds: float = inf

    def loaded_model(self) -> ModelInfo:
        """The model that answers.

        Raises:
            ModelLoading: if there is none yet.
        """
        model = self.recognizer.model
        if model is None:
            raise ModelLoading("The model is loading; try again soon.")
        return model


class Progress:
    """How far one request has come: recognition writes it, logs and status pages read it.

    Attributes:
        received: whether its body has arrived.
        audio_seconds: how much audio was decoded for it, None if none was.
        timings: seconds that the stages took, an entry for each part of the work; the longest of each stage counts.
        segments: how many utterances were answered, None with any granularity but segment.
        segments_until: seconds of the file at which the last of them ends.
        waiting: the clips that the recognizer has at present, queued or running.
        answered: whether the recognizer has answered a clip.
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
    def at_the_recognizer(self, clip: Clip) -> Iterator[None]:
        """Note that the recognizer has `clip` while the context is open."""
        self.waiting[id(clip)] = clip
        try:
            yield
        finally:
            del self.waiting[id(clip)]
            self.answered = True


class ClipRecognition:
    """Recognises clips under one set of options, for a file, a long recording or a live stream.

    Args:
        core: what it uses.
        options: what was asked for. Labels are resolved here, once.
        progress: of the request that the clips belong to.

    Attributes:
        model: the model that answers.

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
        """Ask the recognizer about a clip.

        Args:
            clip: what to recognise.
            deadline: on the loop's clock.
            wait: whether to wait for room in a full queue, until the deadline.

        Raises:
            QueueFull: if the queue has no room, and `wait` is false.
            ServiceError: whatever else `Recognizer.recognize` raises.
        """
        observer = self._core.observer
        with observer.span("recognize"), self._progress.at_the_recognizer(clip):
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
        """Turn what the model found in a clip into scores, under the options.

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
