"""Clips of several threads before one model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from service.errors import BackendBroken, InferenceFailed, SetupError
from service.folders.model_thread import ModelThread
from service.inference.backend import BatchLimits
from service.results import BatchOutput, Clip
from tests.inference.fake_backend import FAIL, KILL, FakeControl, answer, fingerprint, make_clip


@pytest.fixture
def control() -> Iterator[FakeControl]:
    control = FakeControl(limits=BatchLimits(clips=3, seconds=1.0))
    yield control
    control.release()


@pytest.fixture
def model(control: FakeControl) -> Iterator[ModelThread]:
    model = ModelThread(control.load)
    yield model
    control.release()
    model.close(wait=True)
    assert control.closes == 1


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def while_it_works(
    model: ModelThread, control: FakeControl, callers: ThreadPoolExecutor, clips: list[Clip]
) -> list[Future[BatchOutput]]:
    """Ask for a first clip and, while that runs, one by one for the others."""
    control.run_gate.clear()
    first = callers.submit(model.run, [make_clip(seed=99)])
    assert control.running.wait(10)
    asked = []
    for count, clip in enumerate(clips, 1):
        asked.append(callers.submit(model.run, [clip]))
        while len(model._waiting) < count:
            threading.Event().wait(0.001)
    control.run_gate.set()
    assert len(first.result(10).clips) == 1
    return asked


def test_what_comes_while_it_works_is_run_together(
    model: ModelThread, control: FakeControl, callers: ThreadPoolExecutor
) -> None:
    clips = [make_clip(seed=seed) for seed in range(5)]
    answers = while_it_works(model, control, callers, clips)
    for clip, told in zip(clips, answers, strict=True):
        (found,) = told.result(10).clips
        assert found.logits.tolist() == answer(clip).logits.tolist()
    prints = [fingerprint(clip) for clip in clips]
    assert control.runs[1:] == [prints[:3], prints[3:]]


def test_a_run_has_no_more_seconds_than_the_model_takes(
    model: ModelThread, control: FakeControl, callers: ThreadPoolExecutor
) -> None:
    clips = [make_clip(seconds, seed=seed) for seed, seconds in enumerate((0.6, 0.6, 3.0, 0.2, 0.2))]
    for told in while_it_works(model, control, callers, clips):
        told.result(10)
    assert [len(run) for run in control.runs[1:]] == [1, 1, 1, 2]


def test_a_clip_on_which_the_model_fails_takes_no_other_with_it(
    model: ModelThread, control: FakeControl, callers: ThreadPoolExecutor
) -> None:
    clips = [make_clip(seed=1), make_clip(first=FAIL), make_clip(seed=2)]
    answers = while_it_works(model, control, callers, clips)
    assert [len(answers[index].result(10).clips) for index in (0, 2)] == [1, 1]
    with pytest.raises(InferenceFailed):
        answers[1].result(10)


def test_a_model_that_breaks_is_told_to_all_who_wait(
    model: ModelThread, control: FakeControl, callers: ThreadPoolExecutor
) -> None:
    control.run_faults[:] = [BackendBroken("broken") for _ in range(10)]
    with pytest.raises(SetupError, match="does not work any more"):
        model.run([make_clip()])
    for told in [callers.submit(model.run, [make_clip(seed=seed)]) for seed in range(3)]:
        with pytest.raises(SetupError, match="does not work any more"):
            told.result(10)


def test_whoever_asks_after_the_end_is_refused(control: FakeControl) -> None:
    model = ModelThread(control.load)
    model.close(wait=True)
    with pytest.raises(InferenceFailed, match="given up"):
        model.run([make_clip()])


def test_a_model_that_cannot_be_opened_is_told(control: FakeControl) -> None:
    control.load_faults.append(SetupError("no such device"))
    with pytest.raises(SetupError, match="no such device"):
        ModelThread(control.load)


def test_whatever_ends_a_run_ends_the_wait_for_it(
    model: ModelThread, control: FakeControl, callers: ThreadPoolExecutor
) -> None:
    answers = while_it_works(model, control, callers, [make_clip(first=KILL), make_clip(seed=1)])
    with pytest.raises(SystemExit):
        answers[0].result(10)
    assert len(answers[1].result(10).clips) == 1
