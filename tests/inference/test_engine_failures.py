"""What callers get when clips, backends and the worker fail."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from service.errors import BackendBroken, DeadlineExceeded, Draining, InferenceFailed, ModelLoading, WorkerDead
from service.inference import supervisor
from service.inference.backend import BatchLimits
from tests.inference.fake_backend import BREAK, FAIL, HOLD, KILL, OUT_OF_MEMORY, FakeControl, fingerprint, make_clip
from tests.inference.running import LIMITS, PATIENCE, assert_same, occupy, outcome, running, soon, submit, until


class TestFailures:
    @pytest.mark.parametrize("command", [FAIL, OUT_OF_MEMORY])
    async def test_only_the_clip_that_caused_the_failure_fails(self, command: float) -> None:
        control = FakeControl()
        async with running(control) as (engine, registry):
            first = await occupy(engine, control)
            clips = [make_clip(seed=1), make_clip(first=command), make_clip(seed=2)]
            tasks = [submit(engine, clip) for clip in clips]
            await until(lambda: engine.state().queued_clips == 3)
            control.hold.set()
            assert [await outcome(task) for task in (first, *tasks)] == [None, None, InferenceFailed, None]
            assert_same(tasks[2].result()[0], clips[2])
            assert registry.get_sample_value("ser_inference_failures_total") == 1
            assert engine.health().state == "ready"

    async def test_the_error_does_not_show_the_exception(self) -> None:
        async with running(FakeControl()) as (engine, _):
            with pytest.raises(InferenceFailed) as failed:
                await engine.recognize(make_clip(first=FAIL), deadline=soon())
        assert "on request" not in failed.value.detail
        assert failed.value.__cause__ is None

    async def test_when_the_worker_dies_all_accepted_clips_fail_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        control = FakeControl()
        monkeypatch.setattr(supervisor, "SHORTEST_PAUSE", 30.0)
        async with running(control) as (engine, registry):
            first = await occupy(engine, control)
            tasks = [submit(engine, make_clip(first=KILL)), *(submit(engine, make_clip(seed=i)) for i in range(20))]
            await until(lambda: engine.state().queued_clips == 21)
            control.hold.set()
            outcomes = [await outcome(task) for task in (first, *tasks)]
            assert outcomes == [None] + [WorkerDead] * 21
            assert engine.health().state == "dead"
            assert not engine.health().worker_alive
            assert (engine.state().queued_clips, engine.state().queued_seconds) == (0, 0.0)
            with pytest.raises(WorkerDead) as refused, engine.admit_request("caller"):
                pass
            assert refused.value.retry_after >= 1
            assert await outcome(submit(engine, make_clip())) is WorkerDead
            assert registry.get_sample_value("ser_worker_up") == 0
            assert registry.get_sample_value("ser_worker_deaths_total") == 1

    async def test_a_dead_worker_is_replaced(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, registry):
            assert await outcome(submit(engine, make_clip(first=KILL))) is WorkerDead
            assert engine.model == control.info, "kept while the next one loads"
            await engine.wait_ready()
            assert await outcome(submit(engine, make_clip())) is None
            assert registry.get_sample_value("ser_worker_up") == 1
        assert (control.loads, control.closes) == (2, 2)
        assert len(control.threads) <= 2

    @pytest.mark.parametrize("waits", [0, 3])
    async def test_after_a_broken_backend_every_clip_is_answered(self, waits: int) -> None:
        """Those of its batch, which are retried, and those that wait behind them."""
        control = FakeControl(limits=BatchLimits(3, 60.0))
        clips = [make_clip(seed=i) for i in range(3 + waits)]
        async with running(control) as (engine, registry):
            first = await occupy(engine, control)
            tasks = [submit(engine, clip) for clip in clips]
            await until(lambda: engine.state().queued_clips == len(clips))
            control.run_faults += [BackendBroken("a persistent error")]
            control.hold.set()
            for clip, (output, _) in zip(clips, await asyncio.gather(*tasks), strict=True):
                assert_same(output, clip)
            assert_same((await first)[0], make_clip(first=HOLD))
            assert registry.get_sample_value("ser_worker_deaths_total") == 1
            assert registry.get_sample_value("ser_inference_failures_total") == 0
            assert registry.get_sample_value("ser_worker_up") == 1
        assert (control.loads, control.closes) == (2, 2)
        names = [fingerprint(clip) for clip in clips]
        assert control.runs[1] == names[:3], "the run that broke the backend"
        assert control.runs[2:5] == [[name] for name in names[:3]]
        assert control.runs[5:] == ([names[3:]] if waits else [])

    async def test_a_clip_that_breaks_every_backend_fails_alone(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, registry):
            first = await occupy(engine, control)
            clips = [make_clip(seed=1), make_clip(first=BREAK), make_clip(seed=2)]
            tasks = [submit(engine, clip) for clip in clips]
            await until(lambda: engine.state().queued_clips == 3)
            control.hold.set()
            assert [await outcome(task) for task in (first, *tasks)] == [None, None, InferenceFailed, None]
            assert registry.get_sample_value("ser_worker_deaths_total") == 2
            assert registry.get_sample_value("ser_inference_failures_total") == 1
        assert control.loads == 3

    async def test_new_requests_are_refused_while_a_new_backend_is_loaded(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, _):
            control.gate.clear()
            clip = make_clip(seed=1)
            task = submit(engine, clip)
            control.run_faults += [BackendBroken("a persistent error")]
            await until(lambda: engine.health().state == "loading")
            with pytest.raises(ModelLoading), engine.admit_request("caller"):
                pass
            control.gate.set()
            assert_same((await task)[0], clip)

    async def test_clips_given_up_while_a_new_backend_is_loaded_are_not_retried(self) -> None:
        control, gone, late = FakeControl(), make_clip(seed=1), make_clip(seed=2)
        async with running(control) as (engine, _):
            first = await occupy(engine, control)
            tasks = [submit(engine, gone), submit(engine, late, seconds=0.3), submit(engine, make_clip(seed=3))]
            await until(lambda: engine.state().queued_clips == 3)
            control.gate.clear()
            control.run_faults += [BackendBroken("a persistent error")]
            control.hold.set()
            await until(lambda: engine.health().state == "loading")
            assert engine.state().queued_clips >= 2, "the late one may have expired"
            tasks[0].cancel()
            ends = [await outcome(task) for task in (first, *tasks[:2])]
            assert ends == [None, asyncio.CancelledError, DeadlineExceeded]
            assert engine.state().queued_clips == 1
            control.gate.set()
            assert await outcome(tasks[2]) is None
        assert [fingerprint(gone)] not in control.runs
        assert [fingerprint(late)] not in control.runs

    async def test_clips_that_wait_for_a_new_backend_fail_if_none_can_be_loaded(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        control = FakeControl()
        monkeypatch.setattr(supervisor, "SHORTEST_PAUSE", 30.0)
        async with running(control) as (engine, _):
            control.load_faults += [OSError()]
            control.run_faults += [BackendBroken("a persistent error")]
            task = submit(engine, make_clip())
            await until(lambda: engine.health().state == "dead")
            await engine.drain(PATIENCE)
            assert await outcome(task) is Draining

        monkeypatch.setattr(supervisor, "SHORTEST_PAUSE", 0.01)
        control = FakeControl()
        async with running(control) as (engine, _):
            control.load_faults += [OSError()]
            control.run_faults += [BackendBroken("a persistent error")]
            assert await outcome(submit(engine, make_clip())) is WorkerDead
            await engine.wait_ready()
            assert await outcome(submit(engine, make_clip())) is None

    async def test_too_many_failed_loads_are_reported_as_permanent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        control = FakeControl()
        monkeypatch.setattr(supervisor, "MAX_FAILED_LOADS", 2)
        async with running(control) as (engine, _):
            failure = asyncio.create_task(engine.wait_permanent_failure())
            control.load_faults += [OSError(), OSError()]
            assert await outcome(submit(engine, make_clip(first=KILL))) is WorkerDead
            await asyncio.wait_for(failure, PATIENCE)

    async def test_each_caller_gets_its_own_error_object(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, _):
            tasks = [submit(engine, make_clip(first=KILL)), submit(engine, make_clip())]
            errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert errors[0] is not errors[1]

    async def test_a_stuck_worker_is_not_alive(self) -> None:
        control = FakeControl()
        async with running(control, replace(LIMITS, stuck_after=0.02)) as (engine, registry):
            first = await occupy(engine, control)
            await until(lambda: not engine.health().worker_alive)
            assert registry.get_sample_value("ser_worker_up") == 0
            control.hold.set()
            assert await outcome(first) is None
            await until(lambda: engine.health().worker_alive)

    @pytest.mark.parametrize(("cost", "alive"), [(None, False), (1000.0, True)])
    async def test_a_worker_is_not_stuck_as_long_as_its_clip_may_take(self, cost: float | None, alive: bool) -> None:
        control = FakeControl(cost=cost)  # 1000 s for a second of audio: 100 s for this clip
        async with running(control, replace(LIMITS, stuck_after=0.0)) as (engine, registry):
            first = await occupy(engine, control)
            assert engine.health().worker_alive == alive
            assert registry.get_sample_value("ser_worker_up") == alive
            control.hold.set()
            assert await outcome(first) is None
