"""Draining of the engine: accepted clips are answered, new ones are refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from service.errors import Draining, WorkerDead
from service.inference import engine as engine_module
from service.inference import supervisor
from tests.inference.fake_backend import KILL, FakeControl, make_clip
from tests.inference.running import PATIENCE, new_engine, occupy, outcome, running, submit, until, worker_threads


class TestDraining:
    async def test_accepted_clips_are_answered_and_new_requests_refused(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, registry):
            first = await occupy(engine, control)
            tasks = [submit(engine, make_clip(seed=i)) for i in range(49)]
            await until(lambda: engine.state().queued_clips == 49)
            drain = asyncio.create_task(engine.drain(PATIENCE))
            await until(lambda: engine.health().state == "draining")
            with pytest.raises(Draining), engine.admit_request("caller"):
                pass
            assert await outcome(submit(engine, make_clip())) is Draining
            assert registry.get_sample_value("ser_requests_rejected_total", {"reason": "draining"}) == 2
            assert not drain.done()
            control.hold.set()
            assert {await outcome(task) for task in (first, *tasks)} == {None}
            await drain
            assert not worker_threads()
            assert control.closes == 1
            assert engine.health() == replace(engine.health(), state="draining", worker_alive=False)
            assert await outcome(submit(engine, make_clip())) is Draining
        assert control.loads == 1

    async def test_requests_admitted_before_may_still_queue_clips(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, _):
            with engine.admit_request("caller"):
                drain = asyncio.create_task(engine.drain(100 * PATIENCE))
                await until(lambda: engine.health().state == "draining")
                await asyncio.sleep(0.02)
                assert not drain.done()
                assert await outcome(submit(engine, make_clip())) is None
                assert not drain.done()
            await asyncio.wait_for(drain, PATIENCE)

    async def test_streams_are_notified_and_their_last_clips_answered(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, _):
            with engine.admit_stream("caller") as ending:
                drain = asyncio.create_task(engine.drain(100 * PATIENCE))
                await asyncio.wait_for(ending.wait(), PATIENCE)
                with pytest.raises(Draining), engine.admit_stream("caller"):
                    pass
                assert await outcome(submit(engine, make_clip())) is None
                assert not drain.done()
            await asyncio.wait_for(drain, PATIENCE)

    async def test_what_is_left_at_the_timeout_fails(self, caplog: pytest.LogCaptureFixture) -> None:
        control = FakeControl()
        async with running(control) as (engine, _):
            first = await occupy(engine, control)
            waiting = submit(engine, make_clip())
            await until(lambda: engine.state().queued_clips == 1)
            with engine.admit_request("caller"):
                async with asyncio.timeout(PATIENCE):
                    await engine.drain(0.05)
                assert await outcome(submit(engine, make_clip())) is Draining
            assert [await outcome(first), await outcome(waiting)] == [Draining, Draining]
            assert "left behind" in caplog.text
            control.hold.set()
            await until(lambda: not worker_threads())
            assert control.closes == 1, "it still closes its backend"
        assert len(control.runs) == 1

    async def test_a_run_that_ends_within_the_grace_period_leaves_no_thread(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        control = FakeControl()
        monkeypatch.setattr(engine_module, "STOP_GRACE", PATIENCE)
        async with running(control) as (engine, _):
            first = await occupy(engine, control)
            drain = asyncio.create_task(engine.drain(0.0))
            assert await outcome(first) is Draining
            control.hold.set()
            await drain
            assert not worker_threads()
        assert "left behind" not in caplog.text

    async def test_draining_again_has_no_effect(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, _):
            first = await occupy(engine, control)
            drains = [asyncio.create_task(engine.drain(PATIENCE)) for _ in range(2)]
            await asyncio.sleep(0.01)
            control.hold.set()
            await asyncio.gather(first, *drains)
            await engine.drain(0.0)
        assert control.closes == 1

    async def test_cancelling_the_caller_does_not_stop_draining(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, _):
            first = await occupy(engine, control)
            drain = asyncio.create_task(engine.drain(PATIENCE))
            await asyncio.sleep(0)
            drain.cancel()
            with pytest.raises(asyncio.CancelledError):
                await drain
            control.hold.set()
            assert await outcome(first) is None
            await until(lambda: not worker_threads())

    async def test_while_loading(self) -> None:
        control = FakeControl()
        control.gate.clear()
        engine, _ = new_engine(control)
        await engine.start()
        ready = asyncio.create_task(engine.wait_ready())
        await asyncio.sleep(0)
        drain = asyncio.create_task(engine.drain(PATIENCE))
        with pytest.raises(Draining):
            await ready
        control.gate.set()
        await drain
        assert not worker_threads()
        assert (control.warm_ups, control.closes) == (0, 1)
        assert engine.health().state == "draining"

    async def test_while_loading_for_too_long(self) -> None:
        control = FakeControl()
        control.gate.clear()
        engine, _ = new_engine(control)
        await engine.start()
        await engine.drain(0.01)
        assert worker_threads()
        control.gate.set()
        await until(lambda: not worker_threads())
        assert control.closes == 1

    async def test_before_the_start(self) -> None:
        engine, _ = new_engine(FakeControl())
        await engine.drain(PATIENCE)
        assert engine.health().state == "draining"
        with pytest.raises(RuntimeError, match="once"):
            await engine.start()

    async def test_between_a_death_and_the_restart(self, monkeypatch: pytest.MonkeyPatch) -> None:
        control = FakeControl()
        monkeypatch.setattr(supervisor, "SHORTEST_PAUSE", 3.0)
        async with running(control) as (engine, _):
            assert await outcome(submit(engine, make_clip(first=KILL))) is WorkerDead
            await engine.drain(PATIENCE)
            await asyncio.sleep(3.1)
        assert control.loads == 1

    async def test_death_while_draining(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, _):
            first = await occupy(engine, control)
            tasks = [submit(engine, make_clip(first=KILL)), submit(engine, make_clip())]
            await until(lambda: engine.state().queued_clips == 2)
            with engine.admit_request("caller"):
                drain = asyncio.create_task(engine.drain(PATIENCE))
                await until(lambda: engine.health().state == "draining")
                control.hold.set()
                assert [await outcome(task) for task in (first, *tasks)] == [None, WorkerDead, WorkerDead]
                await drain  # without waiting for a permit whose clips cannot be answered
                assert await outcome(submit(engine, make_clip())) is Draining
        assert control.loads == 1
