"""Clips under one set of options: labels, full queues, progress and spans."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

from service.errors import DeadlineExceeded, InferenceFailed, InvalidOptions, ModelLoading, QueueFull
from service.observability.observer import Observer
from service.recognition import core as core_module
from service.recognition.core import ClipRecognition, Core, Progress
from service.recognition.options import Options, parse_options
from service.recognition.scores import resolve_labels
from service.results import ModelInfo, Timings
from tests.api.double import RecognizerDouble
from tests.inference.fake_backend import answer, make_clip
from tests.inference.running import soon, until

FULL = QueueFull("Full.")
CLIP = make_clip()


class SpanRecorder(Observer):
    """Records names of spans, and the stages below them with the time at which their clip was queued."""

    def __init__(self) -> None:
        self.spans: list[str] = []
        self.stages: list[tuple[int, Timings]] = []

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        self.spans.append(name)
        yield

    def add_stage_spans(self, queued: int, timings: Timings) -> None:
        self.stages.append((queued, timings))


@pytest.fixture
def recognizer() -> RecognizerDouble:
    return RecognizerDouble()


@pytest.fixture
def observer() -> SpanRecorder:
    return SpanRecorder()


@pytest.fixture
def progress() -> Progress:
    return Progress()


@pytest.fixture
def core(recognizer: RecognizerDouble, observer: SpanRecorder) -> Iterator[Core]:
    with ThreadPoolExecutor(1) as threads:
        yield Core(recognizer, threads, max_duration=60, longest_clip=10, observer=observer)


@pytest.fixture
def clips(core: Core, progress: Progress) -> ClipRecognition:
    return ClipRecognition(core, Options(), progress)


def test_without_a_model_nothing_is_recognised(core: Core, recognizer: RecognizerDouble, progress: Progress) -> None:
    recognizer.model = None
    with pytest.raises(ModelLoading):
        core.loaded_model()
    with pytest.raises(ModelLoading):
        ClipRecognition(core, Options(), progress)


def test_labels_are_resolved_once(core: Core, progress: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Sequence[str]] = []

    def recorded(names: Sequence[str], model: ModelInfo) -> tuple[int, ...]:
        calls.append(names)
        return resolve_labels(names, model)

    monkeypatch.setattr(core_module, "resolve_labels", recorded)
    clips = ClipRecognition(core, parse_options([("labels", "sad,angry")]), progress)
    output = answer(CLIP, len(clips.model.labels))
    for _ in range(2):
        assert [label.en for label in clips.score(output).labels] == ["sad", "angry"]
    assert calls == [("sad", "angry")]


def test_an_unknown_label_is_an_error_before_any_clip(core: Core, progress: Progress) -> None:
    with pytest.raises(InvalidOptions):
        ClipRecognition(core, parse_options([("labels", "joy")]), progress)


def test_scores_follow_the_options(core: Core, progress: Progress) -> None:
    asked = {"granularity": "frame", "window": "0.06", "hop": "0.04", "start": "2", "embedding": "utterance"}
    clips = ClipRecognition(core, parse_options(asked.items()), progress)
    output = answer(make_clip(1.0), len(clips.model.labels))
    found = clips.score(output)
    assert found.frames is not None
    assert (found.frames.start, found.frames.window, found.frames.hop) == (2.0, 0.06, 0.04)
    assert found.embedding is output.embedding
    output.logits[0, 0] = np.nan
    with pytest.raises(InferenceFailed):
        clips.score(output)


async def test_a_full_queue_is_an_error_without_waiting(clips: ClipRecognition, recognizer: RecognizerDouble) -> None:
    recognizer.faults = [FULL]
    with pytest.raises(QueueFull):
        await clips.run(CLIP, soon())
    assert len(recognizer.clips) == 1


async def test_a_full_queue_is_waited_out(
    clips: ClipRecognition, recognizer: RecognizerDouble, observer: SpanRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_module, "_QUEUE_PAUSE", 0.02)
    recognizer.faults = [FULL, FULL, None]
    began = time.time_ns()
    await clips.run(CLIP, soon(), wait=True)
    assert [clip is CLIP for clip in recognizer.clips] == [True] * 3
    assert observer.spans == ["recognize"]
    ((queued, _),) = observer.stages
    assert queued - began >= 2 * 0.02e9 * 0.9, "the stages begin at the attempt that was accepted"


async def test_a_queue_that_stays_full_is_waited_for_until_the_deadline(
    clips: ClipRecognition, recognizer: RecognizerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_module, "_QUEUE_PAUSE", 0.01)
    recognizer.faults = [FULL] * 1000
    with pytest.raises(DeadlineExceeded):
        await clips.run(CLIP, soon(0.05), wait=True)


async def test_other_errors_are_raised_at_once(clips: ClipRecognition, recognizer: RecognizerDouble) -> None:
    recognizer.faults = [InferenceFailed("Failed.")]
    with pytest.raises(InferenceFailed):
        await clips.run(CLIP, soon(), wait=True)
    assert len(recognizer.clips) == 1


async def test_progress_has_the_clips_at_the_recognizer(
    clips: ClipRecognition, recognizer: RecognizerDouble, progress: Progress
) -> None:
    recognizer.gate.clear()
    equal = [make_clip(), make_clip()]
    tasks = [asyncio.create_task(clips.run(clip, soon())) for clip in equal]
    await until(lambda: recognizer.waiting == 2)
    assert {id(clip) for clip in progress.waiting.values()} == {id(clip) for clip in equal}
    assert not progress.answered
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    assert [clip is equal[1] for clip in progress.waiting.values()] == [True]
    recognizer.gate.set()
    await tasks[1]
    assert (progress.waiting, progress.answered) == ({}, True)


async def test_an_answer_is_traced_with_the_stages_of_the_engine(
    clips: ClipRecognition, observer: SpanRecorder
) -> None:
    before = time.time_ns()
    _, timings = await clips.run(CLIP, soon())
    assert observer.spans == ["recognize"]
    ((queued, traced),) = observer.stages
    assert before <= queued <= time.time_ns()
    assert traced is timings


async def test_a_failure_has_a_span_and_no_stages(
    clips: ClipRecognition, recognizer: RecognizerDouble, observer: SpanRecorder
) -> None:
    recognizer.faults = [InferenceFailed("Failed.")]
    with pytest.raises(InferenceFailed):
        await clips.run(CLIP, soon())
    assert (observer.spans, observer.stages) == (["recognize"], [])
