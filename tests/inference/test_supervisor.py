from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from service.errors import CheckpointInvalid, SetupError
from service.inference import supervisor
from service.inference.request_queue import Entry, RequestQueue
from service.inference.supervisor import Supervisor
from service.inference.worker import Run
from tests.inference.fake_backend import BREAK, KILL, FakeBackend, FakeControl, make_clip
from tests.inference.running import PATIENCE, until, worker_threads


class Watched:
    """A supervisor, and what it told its engine; `alive` is what it said of itself when a worker was lost."""

    def __init__(self, control: FakeControl) -> None:
        self.queue = RequestQueue(100, 1000.0)
        self.told: list[str] = []
        self.pauses: list[float] = []
        self.alive: list[bool] = []
        self.supervisor = Supervisor(
            control.load,
            self.queue,
            60.0,
            ready=lambda _: self.told.append("ready"),
            finished=self._finished,
            failed=lambda _: self.told.append("failed"),
            broke=self._broke,
            died=self._died,
        )

    def _finished(self, run: Run) -> None:
        self.told.append(f"finished {len(run.entries)}")

    def _broke(self, entries: Sequence[Entry]) -> None:
        self.told.append(f"broke {len(entries)} {self.supervisor.phase}")
        self.alive.append(self.supervisor.alive)

    def _died(self) -> None:
        self.told.append(f"died {self.supervisor.phase}")
        self.pauses.append(self.supervisor.pause)
        self.alive.append(self.supervisor.alive)

    def put(self, first: float = 0.5) -> None:
        now = time.monotonic()
        clip = make_clip(first=first)
        future = asyncio.get_running_loop().create_future()
        assert self.queue.put(Entry(clip, clip.duration, now, now + PATIENCE, future))

    async def deaths(self, number: int) -> None:
        await until(lambda: self.told.count("died dead") >= number)


@asynccontextmanager
async def watched(control: FakeControl) -> AsyncIterator[Watched]:
    watch = Watched(control)
    try:
        yield watch
    finally:
        control.release()
        watch.supervisor.stop()
        watch.queue.close()
        async with asyncio.timeout(PATIENCE):
            await watch.supervisor.wait_ended()


async def test_from_loading_to_ready() -> None:
    control = FakeControl(device_memory={"allocated": 3})
    control.gate.clear()
    async with watched(control) as watch:
        supervisor = watch.supervisor
        assert (supervisor.phase, supervisor.alive, supervisor.memory) == ("loading", False, {})
        supervisor.start()
        assert (supervisor.phase, supervisor.alive) == ("loading", True)
        control.gate.set()
        assert await supervisor.wait_ready()
        assert (supervisor.phase, supervisor.alive, supervisor.memory) == ("ready", True, {"allocated": 3})
    assert supervisor.memory == {}


async def test_a_dead_worker_is_replaced() -> None:
    control = FakeControl()
    async with watched(control) as watch:
        watch.supervisor.start()
        watch.put(KILL)
        await watch.deaths(1)
        assert await watch.supervisor.wait_ready()
        watch.put()
        await until(lambda: "finished 1" in watch.told)
        assert watch.told == ["ready", "died dead", "ready", "finished 1"]
        assert watch.alive == [False]
    assert (control.loads, control.closes) == (2, 2)


async def test_before_it_knows_of_a_death_it_does_not_seem_stuck() -> None:
    control = FakeControl()
    async with watched(control) as watch:
        watch.supervisor.start()
        assert await watch.supervisor.wait_ready()
        watch.put(KILL)
        for thread in worker_threads():  # the loop stands still, and what the thread reports waits
            thread.join()
        assert (watch.supervisor.phase, watch.supervisor.alive) == ("ready", True)
        await watch.deaths(1)
        assert watch.alive == [False]


async def test_a_broken_backend_is_replaced() -> None:
    control = FakeControl()
    async with watched(control) as watch:
        watch.supervisor.start()
        watch.put(BREAK)
        await until(lambda: "broke 1 dead" in watch.told)
        assert await watch.supervisor.wait_ready()
        watch.put()
        await until(lambda: "finished 1" in watch.told)
        assert watch.told == ["ready", "broke 1 dead", "ready", "finished 1"]
        assert watch.alive == [False]
    assert (control.loads, control.closes) == (2, 2)


async def test_a_break_while_stopping_is_a_death() -> None:
    control = FakeControl()
    async with watched(control) as watch:
        watch.supervisor.start()
        assert await watch.supervisor.wait_ready()
        watch.supervisor.stop()
        watch.put(BREAK)
        await watch.deaths(1)
        assert watch.told == ["ready", "died dead"]
    assert control.loads == 1


async def test_too_many_failed_loads_are_a_permanent_failure_and_loading_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "MAX_FAILED_LOADS", 3)
    control = FakeControl()
    async with watched(control) as watch:
        watch.supervisor.start()
        assert await watch.supervisor.wait_ready()
        control.load_faults += [OSError(), OSError()]
        watch.put(BREAK)
        await watch.deaths(2)
        assert await watch.supervisor.wait_ready()

        async def told() -> None:
            await watch.supervisor.wait_permanent_failure()
            with pytest.raises(SetupError, match="3 times"):  # before the next load begins, and all may be well
                await watch.supervisor.wait_ready()

        failure = asyncio.create_task(told())
        await asyncio.sleep(0.02)
        assert not failure.done(), "two in a row are not three"
        control.load_faults += [OSError() for _ in range(3)]
        watch.put(BREAK)
        await asyncio.wait_for(failure, PATIENCE)
        await until(lambda: watch.supervisor.phase == "ready")


async def test_the_first_loads_may_be_a_permanent_failure_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "MAX_FAILED_LOADS", 3)
    control = FakeControl(load_faults=[OSError() for _ in range(3)])
    async with watched(control) as watch:
        watch.supervisor.start()
        with pytest.raises(SetupError, match="3 times"):
            await watch.supervisor.wait_ready()


async def test_the_new_model_is_loaded_only_after_the_old_one_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    control = FakeControl()
    order: list[str] = []
    load = control.load

    def noted_load() -> FakeBackend:
        order.append("load")
        return load()

    monkeypatch.setattr(control, "load", noted_load)
    monkeypatch.setattr(FakeBackend, "close", lambda _: order.append("close"))
    async with watched(control) as watch:
        watch.supervisor.start()
        watch.put(KILL)
        await watch.deaths(1)
        assert await watch.supervisor.wait_ready()
    assert order == ["load", "close", "load", "close"]


async def test_the_pause_doubles_up_to_its_bound_and_only_an_answer_resets_it() -> None:
    control = FakeControl(load_faults=[OSError() for _ in range(5)])
    async with watched(control) as watch:
        watch.supervisor.start()
        await watch.deaths(5)
        assert watch.pauses == [0.01, 0.02, 0.04, 0.05, 0.05]
        assert await watch.supervisor.wait_ready()
        assert watch.supervisor.pause == 0.05
        watch.put()
        await until(lambda: "finished 1" in watch.told)
        watch.put(KILL)
        await watch.deaths(6)
        assert watch.pauses[5:] == [0.01]


async def test_a_set_up_error_is_raised_and_trying_goes_on() -> None:
    fault = CheckpointInvalid("weights are missing")
    control = FakeControl(load_faults=[fault])
    async with watched(control) as watch:
        watch.supervisor.start()
        with pytest.raises(CheckpointInvalid) as raised:
            await watch.supervisor.wait_ready()
        assert raised.value is fault
        await until(lambda: watch.supervisor.phase == "ready")
        assert await watch.supervisor.wait_ready()


async def test_waiting_for_readiness_goes_on_through_other_failures() -> None:
    control = FakeControl(load_faults=[OSError(), MemoryError()], warm_up_faults=[RuntimeError()])
    async with watched(control) as watch:
        watch.supervisor.start()
        assert await watch.supervisor.wait_ready()
    assert control.loads == 4


async def test_stopping_ends_the_wait_for_readiness() -> None:
    control = FakeControl()
    control.gate.clear()
    async with watched(control) as watch:
        watch.supervisor.start()
        waiting = asyncio.create_task(watch.supervisor.wait_ready())
        await asyncio.sleep(0)
        watch.supervisor.stop()
        assert await waiting is False


async def test_stopped_during_the_pause_it_does_not_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "SHORTEST_PAUSE", 0.03)
    control = FakeControl(load_faults=[OSError()])
    async with watched(control) as watch:
        watch.supervisor.start()
        await watch.supervisor.wait_ended()
        watch.supervisor.stop()
        await asyncio.sleep(0.06)
        assert (control.loads, watch.supervisor.phase) == (1, "dead")


async def test_no_thread_to_be_had_is_a_death(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    refusals = [RuntimeError("can't start new thread")]

    def scarce(thread: threading.Thread) -> None:
        if refusals:
            raise refusals.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    async with watched(FakeControl()) as watch:
        watch.supervisor.start()
        assert watch.supervisor.phase == "dead"
        assert await watch.supervisor.wait_ready()
    assert watch.told == ["died dead", "ready"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # that is the point
async def test_a_thread_that_cannot_even_report_its_death_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    control = FakeControl()

    def speechless(*_: object, **__: object) -> None:
        raise SystemExit

    async with watched(control) as watch:
        watch.supervisor.start()
        assert await watch.supervisor.wait_ready()
        with monkeypatch.context() as patch:
            patch.setattr(logging.getLogger("service.inference.worker"), "critical", speechless)
            watch.put(KILL)
            await watch.deaths(1)
        assert await watch.supervisor.wait_ready()
