from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import pytest

from service.errors import CheckpointInvalid, SetupError
from service.inference import supervisor
from service.inference.request_queue import Entry, RequestQueue
from service.inference.supervisor import Supervisor
from service.inference.worker import Run, Worker
from tests.inference.fake_backend import BREAK, KILL, FakeBackend, FakeControl, make_clip
from tests.inference.running import PATIENCE, until, worker_threads


class Recorded:
    """A supervisor and its calls, in order; `alive` has its attribute of this name at each loss of a worker."""

    def __init__(self, control: FakeControl) -> None:
        self.queue = RequestQueue(100, 1000.0)
        self.calls: list[str] = []
        self.pauses: list[float] = []
        self.alive: list[bool] = []
        self.supervisor = Supervisor(
            control.load,
            self.queue,
            lambda _: 60.0,
            ready=lambda _: self.calls.append("ready"),
            finished=self._finished,
            failed=lambda _: self.calls.append("failed"),
            broke=self._broke,
            died=self._died,
        )

    def _finished(self, run: Run) -> None:
        self.calls.append(f"finished {len(run.entries)}")

    def _broke(self, entries: Sequence[Entry]) -> None:
        self.calls.append(f"broke {len(entries)} {self.supervisor.phase}")
        self.alive.append(self.supervisor.alive)

    def _died(self) -> None:
        self.calls.append(f"died {self.supervisor.phase}")
        self.pauses.append(self.supervisor.pause)
        self.alive.append(self.supervisor.alive)

    def put(self, first: float = 0.5) -> None:
        now = time.monotonic()
        clip = make_clip(first=first)
        future = asyncio.get_running_loop().create_future()
        assert self.queue.put(Entry(clip, clip.duration, now, now + PATIENCE, future))

    async def deaths(self, number: int) -> None:
        await until(lambda: self.calls.count("died dead") >= number)


@asynccontextmanager
async def recorded(control: FakeControl) -> AsyncIterator[Recorded]:
    record = Recorded(control)
    try:
        yield record
    finally:
        control.release()
        record.supervisor.stop()
        record.queue.close()
        async with asyncio.timeout(PATIENCE):
            await record.supervisor.wait_ended()


async def test_from_loading_to_ready() -> None:
    control = FakeControl(device_memory={"allocated": 3})
    control.gate.clear()
    async with recorded(control) as record:
        supervisor = record.supervisor
        assert (supervisor.phase, supervisor.alive, supervisor.memory) == ("loading", False, {})
        supervisor.start()
        assert (supervisor.phase, supervisor.alive) == ("loading", True)
        control.gate.set()
        assert await supervisor.wait_ready()
        assert (supervisor.phase, supervisor.alive, supervisor.memory) == ("ready", True, {"allocated": 3})
    assert supervisor.memory == {}


def _next(reads: Iterator[Worker | None], _: Supervisor) -> Worker | None:
    return next(reads)


async def test_the_worker_may_be_dropped_while_another_thread_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    control = FakeControl(device_memory={"allocated": 3})
    async with recorded(control) as record:
        record.supervisor.start()
        assert await record.supervisor.wait_ready()
        worker = record.supervisor._worker
        for name, value in (("memory", {"allocated": 3}), ("alive", True)):
            reads = iter([worker, None])
            with monkeypatch.context() as patch:
                patch.setattr(Supervisor, "_worker", property(partial(_next, reads)), raising=False)
                assert getattr(record.supervisor, name) == value


async def test_a_dead_worker_is_replaced() -> None:
    control = FakeControl()
    async with recorded(control) as record:
        record.supervisor.start()
        record.put(KILL)
        await record.deaths(1)
        assert await record.supervisor.wait_ready()
        record.put()
        await until(lambda: "finished 1" in record.calls)
        assert record.calls == ["ready", "died dead", "ready", "finished 1"]
        assert record.alive == [False]
    assert (control.loads, control.closes) == (2, 2)


async def test_a_dead_worker_does_not_count_as_stuck_before_its_report_is_processed() -> None:
    control = FakeControl()
    async with recorded(control) as record:
        record.supervisor.start()
        assert await record.supervisor.wait_ready()
        record.put(KILL)
        for thread in worker_threads():  # without an await, so that its report is not processed
            thread.join()
        assert (record.supervisor.phase, record.supervisor.alive) == ("ready", True)
        await record.deaths(1)
        assert record.alive == [False]


async def test_a_broken_backend_is_replaced() -> None:
    control = FakeControl()
    async with recorded(control) as record:
        record.supervisor.start()
        record.put(BREAK)
        await until(lambda: "broke 1 dead" in record.calls)
        assert await record.supervisor.wait_ready()
        record.put()
        await until(lambda: "finished 1" in record.calls)
        assert record.calls == ["ready", "broke 1 dead", "ready", "finished 1"]
        assert record.alive == [False]
    assert (control.loads, control.closes) == (2, 2)


async def test_a_break_while_stopping_is_a_death() -> None:
    control = FakeControl()
    async with recorded(control) as record:
        record.supervisor.start()
        assert await record.supervisor.wait_ready()
        record.supervisor.stop()
        record.put(BREAK)
        await record.deaths(1)
        assert record.calls == ["ready", "died dead"]
    assert control.loads == 1


async def test_too_many_failed_loads_are_a_permanent_failure_and_loading_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "MAX_FAILED_LOADS", 3)
    control = FakeControl()
    async with recorded(control) as record:
        record.supervisor.start()
        assert await record.supervisor.wait_ready()
        control.load_faults += [OSError(), OSError()]
        record.put(BREAK)
        await record.deaths(2)
        assert await record.supervisor.wait_ready()

        async def expect_failure() -> None:
            await record.supervisor.wait_permanent_failure()
            with pytest.raises(SetupError, match="3 times"):  # before the next load, which may succeed
                await record.supervisor.wait_ready()

        failure = asyncio.create_task(expect_failure())
        await asyncio.sleep(0.02)
        assert not failure.done(), "only two consecutive loads have failed"
        control.load_faults += [OSError() for _ in range(3)]
        record.put(BREAK)
        await asyncio.wait_for(failure, PATIENCE)
        await until(lambda: record.supervisor.phase == "ready")


async def test_failed_first_loads_can_be_a_permanent_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "MAX_FAILED_LOADS", 3)
    control = FakeControl(load_faults=[OSError() for _ in range(3)])
    async with recorded(control) as record:
        record.supervisor.start()
        with pytest.raises(SetupError, match="3 times"):
            await record.supervisor.wait_ready()


async def test_the_new_model_is_loaded_only_after_the_old_one_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    control = FakeControl()
    order: list[str] = []
    load = control.load

    def recorded_load() -> FakeBackend:
        order.append("load")
        return load()

    monkeypatch.setattr(control, "load", recorded_load)
    monkeypatch.setattr(FakeBackend, "close", lambda _: order.append("close"))
    async with recorded(control) as record:
        record.supervisor.start()
        record.put(KILL)
        await record.deaths(1)
        assert await record.supervisor.wait_ready()
    assert order == ["load", "close", "load", "close"]


async def test_the_pause_doubles_up_to_its_limit_and_only_an_answer_resets_it() -> None:
    control = FakeControl(load_faults=[OSError() for _ in range(5)])
    async with recorded(control) as record:
        record.supervisor.start()
        await record.deaths(5)
        assert record.pauses == [0.01, 0.02, 0.04, 0.05, 0.05]
        assert await record.supervisor.wait_ready()
        assert record.supervisor.pause == 0.05
        record.put()
        await until(lambda: "finished 1" in record.calls)
        record.put(KILL)
        await record.deaths(6)
        assert record.pauses[5:] == [0.01]


async def test_a_setup_error_is_raised_and_loading_goes_on() -> None:
    fault = CheckpointInvalid("weights are missing")
    control = FakeControl(load_faults=[fault])
    async with recorded(control) as record:
        record.supervisor.start()
        with pytest.raises(CheckpointInvalid) as raised:
            await record.supervisor.wait_ready()
        assert raised.value is fault
        await until(lambda: record.supervisor.phase == "ready")
        assert await record.supervisor.wait_ready()


async def test_waiting_for_readiness_goes_on_through_other_failures() -> None:
    control = FakeControl(load_faults=[OSError(), MemoryError()], warm_up_faults=[RuntimeError()])
    async with recorded(control) as record:
        record.supervisor.start()
        assert await record.supervisor.wait_ready()
    assert control.loads == 4


async def test_stopping_ends_the_wait_for_readiness() -> None:
    control = FakeControl()
    control.gate.clear()
    async with recorded(control) as record:
        record.supervisor.start()
        waiting = asyncio.create_task(record.supervisor.wait_ready())
        await asyncio.sleep(0)
        record.supervisor.stop()
        assert await waiting is False


async def test_a_stop_during_the_pause_prevents_the_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "SHORTEST_PAUSE", 0.03)
    control = FakeControl(load_faults=[OSError()])
    async with recorded(control) as record:
        record.supervisor.start()
        await record.supervisor.wait_ended()
        record.supervisor.stop()
        await asyncio.sleep(0.06)
        assert (control.loads, record.supervisor.phase) == (1, "dead")


async def test_a_thread_that_cannot_be_started_counts_as_a_death(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    refusals = [RuntimeError("can't start new thread")]

    def start_or_refuse(thread: threading.Thread) -> None:
        if refusals:
            raise refusals.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_refuse)
    async with recorded(FakeControl()) as record:
        record.supervisor.start()
        assert record.supervisor.phase == "dead"
        assert await record.supervisor.wait_ready()
    assert record.calls == ["died dead", "ready"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # raised on purpose
async def test_a_thread_that_ends_without_reporting_its_death_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    control = FakeControl()

    def fail(*_: object, **__: object) -> None:
        raise SystemExit

    async with recorded(control) as record:
        record.supervisor.start()
        assert await record.supervisor.wait_ready()
        with monkeypatch.context() as patch:
            patch.setattr(logging.getLogger("service.inference.worker"), "critical", fail)
            record.put(KILL)
            await record.deaths(1)
        assert await record.supervisor.wait_ready()
