"""The worker thread without an engine: its reports, their order and their thread."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from service.errors import BackendBroken, CheckpointInvalid, SetupError
from service.inference.backend import Backend
from service.inference.request_queue import Entry, RequestQueue
from service.inference.worker import Loaded, Run, Worker, WorkerEvents
from service.results import BatchOutput, Clip
from tests.inference.fake_backend import (
    BREAK,
    FAIL,
    HOLD,
    KILL,
    OUT_OF_MEMORY,
    FakeBackend,
    FakeControl,
    answer,
    fingerprint,
    make_clip,
)
from tests.inference.running import PATIENCE, until, worker_threads


class Recorder:
    """A queue, its worker, and all reports of the worker."""

    def __init__(self, load: Callable[[], Backend]) -> None:
        self.queue = RequestQueue(100, 1000.0)
        self.loop = asyncio.get_running_loop()
        self.reports: list[tuple[str, Any]] = []
        self.threads: set[int] = set()
        events = WorkerEvents(
            ready=lambda loaded: self._record("ready", loaded),
            finished=lambda run: self._record("finished", run),
            failed=lambda entry: self._record("failed", entry),
            broke=lambda entries: self._record("broke", entries),
            died=lambda error: self._record("died", error),
            ended=lambda: self._record("ended", None),
        )
        self.worker = Worker(load, self.queue, self.loop, events)

    def _record(self, kind: str, value: Any) -> None:
        self.threads.add(threading.get_ident())
        self.reports.append((kind, value))

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.reports]

    def put(self, *clips: Clip, deadline: float = PATIENCE) -> list[Entry]:
        now = time.monotonic()
        entries = [Entry(clip, clip.duration, now, now + deadline, self.loop.create_future()) for clip in clips]
        for entry in entries:
            assert self.queue.put(entry)
        return entries

    async def ended(self) -> None:
        await until(lambda: "ended" in self.kinds)
        self.worker.join()

    async def stop(self) -> None:
        self.queue.close()
        await self.ended()


async def test_reports_from_loading_to_the_end() -> None:
    control = FakeControl(device_memory={"allocated": 7})
    recorder = Recorder(control.load)
    clips = [make_clip(seed=1), make_clip(seed=2)]
    entries = recorder.put(*clips)
    recorder.worker.start()
    await until(lambda: "finished" in recorder.kinds)
    assert not recorder.worker.stuck(lambda _: 60)
    await recorder.stop()

    assert recorder.kinds == ["ready", "finished", "ended"]
    loaded, run = recorder.reports[0][1], recorder.reports[1][1]
    assert isinstance(loaded, Loaded)
    assert loaded.model == control.info
    assert loaded.seconds > 0
    assert isinstance(run, Run)
    assert list(run.entries) == entries
    assert [output.speech for output in run.output.clips] == [answer(clip).speech for clip in clips]
    assert entries[0].enqueued <= run.taken <= run.taken + run.seconds <= time.monotonic()
    assert recorder.worker.memory == {"allocated": 7}
    assert not recorder.worker.stuck(lambda _: 60)
    assert not worker_threads()
    assert (control.loads, control.warm_ups, control.closes) == (1, 1, 1)
    assert recorder.threads == {threading.get_ident()}, "reports are made in the thread of the loop"
    assert len(control.threads) == 1, "only the worker calls the backend"
    assert control.threads.isdisjoint(recorder.threads)


@pytest.mark.parametrize("command", [FAIL, OUT_OF_MEMORY])
async def test_a_failing_batch_is_run_one_by_one(command: float, caplog: pytest.LogCaptureFixture) -> None:
    control = FakeControl()
    recorder = Recorder(control.load)
    entries = recorder.put(make_clip(seed=1), make_clip(first=command), make_clip(seed=2))
    with caplog.at_level(logging.ERROR):
        recorder.worker.start()
        await until(lambda: len(recorder.reports) == 4)
    await recorder.stop()
    good = control.runs.pop(3)  # run after the clip that failed
    assert good not in [[fingerprint(entry.clip)] for entry in entries if entry.clip]
    assert [len(run) for run in control.runs] == [3, 1, 1, 1]
    assert recorder.kinds == ["ready", "finished", "failed", "finished", "ended"]
    assert [list(recorder.reports[i][1].entries) for i in (1, 3)] == [[entries[0]], [entries[2]]]
    assert recorder.reports[2][1] is entries[1]
    records = [record for record in caplog.records if record.name == "service.inference.worker"]
    assert [record.getMessage() for record in records] == [
        "the model failed on a batch of 3 (0.3 s of audio)",
        "the model failed on a batch of 1 (0.1 s of audio)",
    ]
    assert all(record.exc_info for record in records), "records have the traceback"


async def test_all_clips_of_a_batch_that_only_fails_as_a_whole_are_answered() -> None:
    control = FakeControl(run_faults=[MemoryError()])
    recorder = Recorder(control.load)
    entries = recorder.put(make_clip(seed=1), make_clip(seed=2))
    recorder.worker.start()
    await until(lambda: len(recorder.reports) == 3)
    await recorder.stop()
    assert recorder.kinds == ["ready", "finished", "finished", "ended"]
    assert [list(recorder.reports[i][1].entries) for i in (1, 2)] == [[entries[0]], [entries[1]]]


async def test_clips_given_up_meanwhile_are_not_retried() -> None:
    control = FakeControl()
    recorder = Recorder(control.load)
    entries = recorder.put(make_clip(first=HOLD), make_clip(first=FAIL), make_clip(seed=2))
    recorder.worker.start()
    await until(control.running.is_set)
    entries[2].clip = None
    entries[0].deadline = time.monotonic()
    control.hold.set()
    await until(lambda: "failed" in recorder.kinds)
    await recorder.stop()
    assert [len(run) for run in control.runs] == [3, 1, 1]
    assert control.runs[1] == [fingerprint(make_clip(first=FAIL))]
    assert recorder.kinds == ["ready", "failed", "ended"]


async def test_a_run_ends_once_nobody_waits_for_any_of_its_clips() -> None:
    control = FakeControl(endable=True)
    recorder = Recorder(control.load)
    entries = recorder.put(make_clip(first=HOLD), make_clip(seed=1))
    recorder.worker.start()
    await until(control.holding.is_set)
    entries[0].clip = None
    recorder.worker.end_unwanted_run()
    assert not control.hold.is_set(), "the other caller waits"
    entries[1].clip = None
    recorder.worker.end_unwanted_run()
    await until(lambda: not recorder.worker.stuck(lambda _: 0.0))
    recorder.put(make_clip(seed=2))
    await until(lambda: "finished" in recorder.kinds)
    await recorder.stop()
    assert recorder.kinds == ["ready", "finished", "ended"]
    assert [len(run) for run in control.runs] == [2, 1], "no retry, and no run of the clip that is known to be good"


class LeavingEntry(Entry):
    """Its caller leaves right after the worker has checked for the last time whether it waits."""

    checks = 0

    def wanted(self, now: float) -> Clip | None:
        clip = super().wanted(now)
        self.checks += 1
        if self.checks == 2:
            self.clip = None
        return clip


async def test_a_run_ends_if_its_caller_left_just_before_it_began() -> None:
    control = FakeControl(endable=True)
    recorder = Recorder(control.load)
    now = time.monotonic()
    clip = make_clip(first=HOLD)
    assert recorder.queue.put(LeavingEntry(clip, 0.1, now, now + PATIENCE, recorder.loop.create_future()))
    recorder.worker.start()
    await until(control.hold.is_set)
    await recorder.stop()
    assert recorder.kinds == ["ready", "ended"]


@pytest.mark.parametrize("number", [1, 3])
async def test_a_broken_backend_ends_the_worker(number: int, caplog: pytest.LogCaptureFixture) -> None:
    control = FakeControl(run_faults=[BackendBroken("a persistent error")])
    recorder = Recorder(control.load)
    entries = recorder.put(*(make_clip(seed=seed) for seed in range(number)))
    with caplog.at_level(logging.CRITICAL):
        recorder.worker.start()
        await recorder.ended()
    assert recorder.kinds == ["ready", "broke", "ended"]
    assert recorder.reports[1][1] == entries
    assert not recorder.worker.stuck(lambda _: 0.0)
    assert (len(control.runs), control.closes) == (1, 1)
    assert "a persistent error" in caplog.text


async def test_a_backend_that_fails_on_a_good_clip_is_broken() -> None:
    """A persistent error that the backend does not detect: batch, clip and the good clip fail."""
    control = FakeControl(run_faults=[RuntimeError() for _ in range(3)])
    recorder = Recorder(control.load)
    entries = recorder.put(make_clip(seed=1), make_clip(seed=2))
    recorder.worker.start()
    await recorder.ended()
    assert recorder.kinds == ["ready", "broke", "ended"]
    assert recorder.reports[1][1] == entries
    assert [len(run) for run in control.runs] == [2, 1, 1]
    assert not recorder.worker.stuck(lambda _: 0.0)


async def test_clips_reported_before_the_backend_broke_are_not_reported_again() -> None:
    control = FakeControl(run_faults=[MemoryError()])
    recorder = Recorder(control.load)
    clips = make_clip(seed=1), make_clip(first=FAIL), make_clip(first=BREAK), make_clip(seed=2)
    entries = recorder.put(*clips)
    recorder.worker.start()
    await recorder.ended()
    assert recorder.kinds == ["ready", "finished", "failed", "broke", "ended"]
    assert list(recorder.reports[1][1].entries) == entries[:1]
    assert recorder.reports[2][1] is entries[1]
    assert recorder.reports[3][1] == entries[2:]


async def test_a_backend_that_answers_too_few_clips_is_broken() -> None:
    class OneOutputShort(FakeBackend):
        def run(self, clips: Sequence[Clip], cancellation: Future[None] | None = None) -> BatchOutput:
            return BatchOutput(super().run(clips, cancellation).clips[1:], 0.0, 0.0)

    recorder = Recorder(lambda: OneOutputShort(FakeControl()))
    entries = recorder.put(make_clip())
    recorder.worker.start()
    await recorder.ended()
    assert recorder.reports[1:] == [("broke", entries), ("ended", None)]


@pytest.mark.parametrize("fault", [SystemExit(), KeyboardInterrupt(), asyncio.CancelledError()], ids=repr)
async def test_a_death_is_reported_and_the_backend_closed(fault: BaseException) -> None:
    control = FakeControl(run_faults=[fault])
    recorder = Recorder(control.load)
    recorder.put(make_clip(), make_clip())
    recorder.worker.start()
    await recorder.ended()
    assert recorder.kinds == ["ready", "died", "ended"]
    assert recorder.reports[1][1] is None
    assert not recorder.worker.stuck(lambda _: 0.0)
    assert control.closes == 1


async def test_clips_answered_before_a_death_keep_their_answers() -> None:
    control = FakeControl(run_faults=[MemoryError()])
    recorder = Recorder(control.load)
    entries = recorder.put(make_clip(), make_clip(first=KILL), make_clip())
    recorder.worker.start()
    await recorder.ended()
    assert recorder.kinds == ["ready", "finished", "died", "ended"]
    assert list(recorder.reports[1][1].entries) == [entries[0]]


@pytest.mark.parametrize("where", ["load", "warm_up"])
@pytest.mark.parametrize("fault", [CheckpointInvalid("weights are missing"), OSError(), SystemExit()], ids=repr)
async def test_a_failed_load_is_a_death(where: str, fault: BaseException) -> None:
    control = FakeControl()
    (control.load_faults if where == "load" else control.warm_up_faults).append(fault)
    recorder = Recorder(control.load)
    recorder.worker.start()
    await recorder.ended()
    assert recorder.kinds == ["died", "ended"]
    assert recorder.reports[0][1] is (fault if isinstance(fault, SetupError) else None)
    assert control.closes == (where == "warm_up")


async def test_an_error_while_closing_the_backend_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(FakeControl(close_fault=OSError("busy")).load)
    recorder.worker.start()
    await until(lambda: "ready" in recorder.kinds)
    await recorder.stop()
    assert recorder.kinds == ["ready", "ended"]
    assert "the backend could not be closed" in caplog.text


async def test_a_worker_stopped_while_loading_neither_warms_up_nor_reports_ready() -> None:
    control = FakeControl()
    control.gate.clear()
    recorder = Recorder(control.load)
    recorder.worker.start()
    recorder.queue.close()
    control.gate.set()
    await recorder.ended()
    assert recorder.kinds == ["ended"]
    assert (control.warm_ups, control.closes) == (0, 1)


async def test_the_time_limit_follows_the_audio_of_the_run() -> None:
    control = FakeControl()
    recorder = Recorder(control.load)
    recorder.put(make_clip(2.0, first=HOLD), make_clip(1.0))
    recorder.worker.start()
    await until(control.holding.is_set)
    assert recorder.worker.stuck(lambda seconds: 0.0 if seconds == 3.0 else 60.0)
    assert not recorder.worker.stuck(lambda seconds: 60.0 if seconds == 3.0 else 0.0)
    control.hold.set()
    await recorder.stop()


async def test_a_run_that_takes_too_long_counts_as_stuck() -> None:
    control = FakeControl()
    recorder = Recorder(control.load)
    recorder.put(make_clip(first=HOLD))
    recorder.worker.start()
    await until(control.running.is_set)
    await until(lambda: recorder.worker.stuck(lambda _: 0.02))
    assert not recorder.worker.stuck(lambda _: 60)
    control.hold.set()
    await until(lambda: not recorder.worker.stuck(lambda _: 0.02))
    await recorder.stop()


def test_a_closed_loop_ends_the_worker() -> None:
    control = FakeControl()
    control.gate.clear()

    async def start_and_leave() -> Recorder:
        recorder = Recorder(control.load)
        recorder.worker.start()
        return recorder

    recorder = asyncio.run(start_and_leave())
    control.gate.set()
    recorder.worker.join()
    assert control.closes == 1
