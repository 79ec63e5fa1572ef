from __future__ import annotations

import asyncio
import gc
import logging
import math
import time
import weakref
from collections.abc import Awaitable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from service.errors import (
    BackendBroken,
    CheckpointInvalid,
    DeadlineExceeded,
    Draining,
    InferenceFailed,
    ModelLoading,
    QueueFull,
    ServiceError,
    TooManyStreams,
    WorkerDead,
)
from service.inference.backend import BatchLimits
from service.inference.batch import Answer
from service.inference.engine import Engine
from service.inference.recognizer import Recognizer
from service.results import Clip, ClipOutput
from tests.inference.fake_backend import (
    BREAK,
    FAIL,
    HOLD,
    INFERENCE_SECONDS,
    KILL,
    OUT_OF_MEMORY,
    PREPROCESS_SECONDS,
    FakeControl,
    answer,
    fingerprint,
    make_clip,
)
from tests.inference.running import PATIENCE, QUICK, new_engine, running, soon, until, worker_threads

SLOW_RESTART = replace(QUICK, restart_min=30.0)


def assert_same(output: ClipOutput, clip: Clip) -> None:
    expected = answer(clip)
    np.testing.assert_array_equal(output.logits, expected.logits)
    np.testing.assert_array_equal(output.embedding, expected.embedding)
    assert (output.speech, output.scored) == (expected.speech, expected.scored)


def submit(engine: Engine, clip: Clip, seconds: float = PATIENCE) -> asyncio.Task[Answer]:
    return asyncio.create_task(_bounded(engine.recognize(clip, deadline=soon(seconds))))


async def _bounded(call: Coroutine[Any, Any, Answer]) -> Answer:
    async with asyncio.timeout(2 * PATIENCE):
        return await call


async def occupy(engine: Engine, control: FakeControl) -> asyncio.Task[Answer]:
    """Keep the worker busy until `control.hold` is set."""
    task = submit(engine, make_clip(first=HOLD))
    await until(control.running.is_set)
    return task


async def outcome(awaitable: Awaitable[Answer]) -> type[BaseException] | None:
    """The kind of error, None for an answer."""
    try:
        await awaitable
    except (ServiceError, asyncio.CancelledError) as error:
        return type(error)
    finally:
        del awaitable  # a task holds its error, and the error's traceback this frame
    return None


def test_it_is_a_recognizer() -> None:
    recognizer: Recognizer = new_engine(FakeControl())[0]
    assert recognizer.model is None


class TestAnswers:
    async def test_one_clip(self) -> None:
        control, clip = FakeControl(), make_clip(1.5)
        async with running(control) as (engine, _):
            began = time.monotonic()
            output, timings = await engine.recognize(clip, deadline=soon())
            took = time.monotonic() - began
        assert_same(output, clip)
        assert 0 <= timings.queue <= took
        assert (timings.decode, timings.preprocess, timings.inference) == (0.0, PREPROCESS_SECONDS, INFERENCE_SECONDS)

    async def test_many_clips_each_get_their_own(self) -> None:
        control = FakeControl()
        clips = [make_clip(0.05 + 0.01 * i, rate=rate, seed=i) for i in range(20) for rate in (8_000, 44_100)]
        async with running(control) as (engine, _):
            results = await asyncio.gather(*(submit(engine, clip) for clip in clips))
        for clip, (output, _) in zip(clips, results, strict=True):
            assert_same(output, clip)
        assert sum(len(run) for run in control.runs) == len(clips)

    async def test_what_arrives_during_a_run_makes_the_very_next_one(self) -> None:
        control = FakeControl()
        clips = [make_clip(seed=i) for i in range(6)]
        async with running(control) as (engine, _):
            first = await occupy(engine, control)
            tasks = []
            for clip in clips:  # one by one, the first of them long before the last
                tasks.append(submit(engine, clip))
                await asyncio.sleep(0.002)
            assert engine.health().queued_requests == 6
            assert engine.health().queued_seconds == pytest.approx(0.6)
            control.hold.set()
            await asyncio.gather(first, *tasks)
        assert control.runs[1:] == [[fingerprint(clip) for clip in clips]]

    async def test_batches_keep_to_the_backends_limits(self) -> None:
        control = FakeControl(limits=BatchLimits(clips=3, seconds=1.0))
        lengths = [0.1, 0.1, 0.1, 0.1, 0.6, 0.6, 3.0, 0.1]
        async with running(control) as (engine, _):
            first = await occupy(engine, control)
            tasks = [submit(engine, make_clip(length)) for length in lengths]
            await until(lambda: engine.health().queued_requests == len(lengths))
            control.hold.set()
            await asyncio.gather(first, *tasks)
        assert [len(run) for run in control.runs[1:]] == [3, 2, 1, 1, 1]

    async def test_one_thread_owns_the_backend(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, _):
            await asyncio.gather(*(submit(engine, make_clip(seed=i)) for i in range(30)))
        assert len(control.threads) == 1


class TestLoading:
    async def test_start_returns_at_once_and_requests_are_refused(self) -> None:
        control = FakeControl()
        control.gate.clear()
        engine, registry = new_engine(control)
        await engine.start()
        assert engine.health().state == "loading"
        assert engine.health().worker_alive
        assert (engine.model, control.warm_ups) == (None, 0)
        with pytest.raises(ModelLoading), engine.admit():
            pass
        assert await outcome(submit(engine, make_clip())) is ModelLoading
        assert registry.get_sample_value("ser_requests_rejected_total", {"reason": "model_loading"}) == 2
        control.gate.set()
        await engine.wait_ready()
        assert engine.health().state == "ready"
        assert engine.model == control.info
        assert control.warm_ups == 1
        await engine.drain(PATIENCE)

    async def test_before_the_start_it_is_loading(self) -> None:
        engine, _ = new_engine(FakeControl())
        assert engine.health().state == "loading"
        assert not engine.health().worker_alive
        assert await outcome(submit(engine, make_clip())) is ModelLoading

    async def test_it_starts_once(self) -> None:
        async with running(FakeControl()) as (engine, _):
            with pytest.raises(RuntimeError, match="once"):
                await engine.start()

    async def test_a_failed_load_is_a_dead_worker_until_it_succeeds(self) -> None:
        control = FakeControl(load_faults=[CheckpointInvalid("weights are missing")])
        engine, registry = new_engine(control, SLOW_RESTART)
        await engine.start()
        with pytest.raises(CheckpointInvalid):
            await engine.wait_ready()
        assert engine.health().state == "dead"
        assert not engine.health().worker_alive
        with pytest.raises(WorkerDead) as refused, engine.admit():
            pass
        assert refused.value.retry_after >= 1
        assert registry.get_sample_value("ser_worker_deaths_total") == 1
        await engine.drain(PATIENCE)


class TestAdmission:
    async def test_permits_are_bounded_and_given_back(self) -> None:
        async with running(FakeControl(), replace(QUICK, max_requests=2)) as (engine, registry):
            with engine.admit(), engine.admit():
                with pytest.raises(QueueFull) as refused, engine.admit():
                    pass
                assert refused.value.retry_after == 1.0
                assert registry.get_sample_value("ser_requests_in_flight") == 2
            with pytest.raises(KeyError), engine.admit():
                raise KeyError
            assert registry.get_sample_value("ser_requests_in_flight") == 0
            with engine.admit(), engine.admit():
                pass
            assert registry.get_sample_value("ser_requests_rejected_total", {"reason": "queue_full"}) == 1

    async def test_streams_have_permits_of_their_own(self) -> None:
        async with running(FakeControl(), replace(QUICK, max_requests=1, max_streams=2)) as (engine, registry):
            with engine.admit(), engine.admit_stream() as first, engine.admit_stream() as second:
                assert not first.is_set()
                assert not second.is_set()
                with pytest.raises(TooManyStreams) as refused, engine.admit_stream():
                    pass
                assert refused.value.retry_after == 10.0
                assert registry.get_sample_value("ser_streams") == 2
                assert registry.get_sample_value("ser_streams_limit") == 2
                assert registry.get_sample_value("ser_requests_in_flight") == 1
            with pytest.raises(KeyError), engine.admit_stream():
                raise KeyError
            assert registry.get_sample_value("ser_streams") == 0
            assert registry.get_sample_value("ser_requests_rejected_total", {"reason": "too_many_streams"}) == 1

    async def test_a_full_queue_admits_nobody(self) -> None:
        control = FakeControl()
        async with running(control, replace(QUICK, max_queue_requests=1)) as (engine, _):
            first = await occupy(engine, control)
            second = submit(engine, make_clip())
            await until(lambda: engine.health().queued_requests == 1)
            with pytest.raises(QueueFull), engine.admit():
                pass
            assert await outcome(submit(engine, make_clip())) is QueueFull
            control.hold.set()
            await asyncio.gather(first, second)
            with engine.admit():
                assert await outcome(submit(engine, make_clip())) is None

    async def test_a_queue_full_of_seconds_refuses_too(self) -> None:
        control = FakeControl()
        async with running(control, replace(QUICK, max_queue_seconds=2.0)) as (engine, _):
            first = await occupy(engine, control)
            second = submit(engine, make_clip(1.5))
            await until(lambda: engine.health().queued_requests == 1)
            assert await outcome(submit(engine, make_clip(1.0))) is QueueFull
            control.hold.set()
            await asyncio.gather(first, second)

    async def test_retry_after_follows_the_queue_and_the_speed(self) -> None:
        control = FakeControl()
        async with running(control, replace(QUICK, max_queue_requests=1, max_queue_seconds=1e6)) as (engine, _):
            first = await occupy(engine, control)
            await asyncio.sleep(0.1)
            control.hold.set()
            await first  # 0.1 s of audio took more than 0.1 s: at most 1 s of audio a second
            control.running.clear()
            control.hold.clear()
            first = await occupy(engine, control)
            second = submit(engine, make_clip(20.0))
            await until(lambda: engine.health().queued_requests == 1)
            with pytest.raises(QueueFull) as refused, engine.admit():
                pass
            assert 20.0 <= refused.value.retry_after <= 60.0
            control.hold.set()
            await asyncio.gather(first, second)


class TestDeadlines:
    async def test_passed_already(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, _):
            assert await outcome(submit(engine, make_clip(), seconds=0.0)) is DeadlineExceeded
        assert control.runs == []

    async def test_while_waiting_it_ends_at_the_deadline_and_is_never_run(self) -> None:
        control, late = FakeControl(), make_clip(seed=9)
        async with running(control) as (engine, _):
            first = await occupy(engine, control)
            began = time.monotonic()
            assert await outcome(submit(engine, late, seconds=0.05)) is DeadlineExceeded
            assert 0.04 <= time.monotonic() - began < 0.8
            assert engine.health().queued_requests == 0, "its room is free at once"
            control.hold.set()
            assert await outcome(first) is None
        assert [fingerprint(late)] not in control.runs

    async def test_during_the_run_it_ends_at_the_deadline_and_the_answer_is_thrown_away(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, registry):
            control.run_gate.clear()
            assert await outcome(submit(engine, make_clip(), seconds=0.05)) is DeadlineExceeded
            control.run_gate.set()
            assert await outcome(submit(engine, make_clip())) is None
            queued = registry.get_sample_value("ser_stage_duration_seconds_count", {"stage": "queue"})
            assert queued == 1, "only answers are counted as such"
            assert registry.get_sample_value("ser_requests_cancelled_total") == 0
        assert len(control.runs) == 2


class TestCancelling:
    async def test_while_waiting_it_is_never_run(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, registry):
            first = await occupy(engine, control)
            second = submit(engine, make_clip())
            await until(lambda: engine.health().queued_requests == 1)
            second.cancel()
            assert await outcome(second) is asyncio.CancelledError
            assert (engine.health().queued_requests, engine.health().queued_seconds) == (0, 0.0)
            control.hold.set()
            assert await outcome(first) is None
            assert registry.get_sample_value("ser_requests_cancelled_total") == 1
        assert len(control.runs) == 1

    async def test_during_the_run_the_others_get_their_answers(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, _):
            first = await occupy(engine, control)
            second, third = submit(engine, make_clip(seed=2)), submit(engine, make_clip(seed=3))
            await until(lambda: engine.health().queued_requests == 2)
            control.run_gate.clear()
            control.hold.set()
            await until(lambda: len(control.runs) == 2)
            second.cancel()
            control.run_gate.set()
            assert [await outcome(task) for task in (first, second, third)] == [None, asyncio.CancelledError, None]

    async def test_before_the_retry_of_its_batch_it_is_not_run_again(self) -> None:
        control, gone = FakeControl(), make_clip(seed=7)
        async with running(control) as (engine, _):
            first = await occupy(engine, control)
            tasks = [submit(engine, make_clip(first=FAIL)), submit(engine, gone)]
            await until(lambda: engine.health().queued_requests == 2)
            control.run_gate.clear()
            control.hold.set()
            await until(lambda: len(control.runs) == 2)
            tasks[1].cancel()
            assert await outcome(tasks[1]) is asyncio.CancelledError
            control.run_gate.set()
            assert [await outcome(task) for task in (first, tasks[0])] == [None, InferenceFailed]
        assert [fingerprint(gone)] not in control.runs


class TestFailures:
    @pytest.mark.parametrize("command", [FAIL, OUT_OF_MEMORY])
    async def test_only_the_guilty_clip_fails(self, command: float) -> None:
        control = FakeControl()
        async with running(control) as (engine, registry):
            first = await occupy(engine, control)
            clips = [make_clip(seed=1), make_clip(first=command), make_clip(seed=2)]
            tasks = [submit(engine, clip) for clip in clips]
            await until(lambda: engine.health().queued_requests == 3)
            control.hold.set()
            assert [await outcome(task) for task in (first, *tasks)] == [None, None, InferenceFailed, None]
            assert_same(tasks[2].result()[0], clips[2])
            assert registry.get_sample_value("ser_inference_failures_total") == 1
            assert engine.health().state == "ready"

    async def test_the_error_says_nothing_of_the_exception(self) -> None:
        async with running(FakeControl()) as (engine, _):
            with pytest.raises(InferenceFailed) as failed:
                await engine.recognize(make_clip(first=FAIL), deadline=soon())
        assert "asked for a failure" not in failed.value.detail
        assert failed.value.__cause__ is None

    async def test_a_dying_worker_fails_what_it_holds_and_what_waits_at_once(self) -> None:
        control = FakeControl()
        async with running(control, SLOW_RESTART) as (engine, registry):
            first = await occupy(engine, control)
            tasks = [submit(engine, make_clip(first=KILL)), *(submit(engine, make_clip(seed=i)) for i in range(20))]
            await until(lambda: engine.health().queued_requests == 21)
            control.hold.set()
            outcomes = [await outcome(task) for task in (first, *tasks)]
            assert outcomes == [None] + [WorkerDead] * 21
            assert engine.health().state == "dead"
            assert not engine.health().worker_alive
            assert (engine.health().queued_requests, engine.health().queued_seconds) == (0, 0.0)
            with pytest.raises(WorkerDead) as refused, engine.admit():
                pass
            assert refused.value.retry_after >= 1
            assert await outcome(submit(engine, make_clip())) is WorkerDead
            assert registry.get_sample_value("ser_worker_up") == 0
            assert registry.get_sample_value("ser_worker_deaths_total") == 1

    async def test_a_dead_worker_is_replaced(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, registry):
            assert await outcome(submit(engine, make_clip(first=KILL))) is WorkerDead
            assert engine.model == control.info, "still known while the next one loads"
            await engine.wait_ready()
            assert await outcome(submit(engine, make_clip())) is None
            assert registry.get_sample_value("ser_worker_up") == 1
        assert (control.loads, control.closes) == (2, 2)
        assert len(control.threads) <= 2

    @pytest.mark.parametrize("waits", [0, 3])
    async def test_a_broken_backend_costs_nobody_the_answer(self, waits: int) -> None:
        """Neither its batch, which is tried once more, nor what waits behind it."""
        control = FakeControl(limits=BatchLimits(3, 60.0))
        clips = [make_clip(seed=i) for i in range(3 + waits)]
        async with running(control) as (engine, registry):
            first = await occupy(engine, control)
            tasks = [submit(engine, clip) for clip in clips]
            await until(lambda: engine.health().queued_requests == len(clips))
            control.run_faults += [BackendBroken("an error that sticks")]
            control.hold.set()
            for clip, (output, _) in zip(clips, await asyncio.gather(*tasks), strict=True):
                assert_same(output, clip)
            assert_same((await first)[0], make_clip(first=HOLD))
            assert registry.get_sample_value("ser_worker_deaths_total") == 1
            assert registry.get_sample_value("ser_inference_failures_total") == 0
            assert registry.get_sample_value("ser_worker_up") == 1
        assert (control.loads, control.closes) == (2, 2)
        names = [fingerprint(clip) for clip in clips]
        assert control.runs[1] == names[:3], "this one broke"
        assert control.runs[2:5] == [[name] for name in names[:3]]
        assert control.runs[5:] == ([names[3:]] if waits else [])

    async def test_a_clip_that_breaks_every_backend_fails_and_takes_nobody_with_it(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, registry):
            first = await occupy(engine, control)
            clips = [make_clip(seed=1), make_clip(first=BREAK), make_clip(seed=2)]
            tasks = [submit(engine, clip) for clip in clips]
            await until(lambda: engine.health().queued_requests == 3)
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
            control.run_faults += [BackendBroken("an error that sticks")]
            await until(lambda: engine.health().state == "loading")
            with pytest.raises(ModelLoading), engine.admit():
                pass
            control.gate.set()
            assert_same((await task)[0], clip)

    async def test_who_gives_up_while_a_new_backend_is_loaded_is_not_tried_again(self) -> None:
        control, gone, late = FakeControl(), make_clip(seed=1), make_clip(seed=2)
        async with running(control) as (engine, _):
            first = await occupy(engine, control)
            tasks = [submit(engine, gone), submit(engine, late, seconds=0.3), submit(engine, make_clip(seed=3))]
            await until(lambda: engine.health().queued_requests == 3)
            control.gate.clear()
            control.run_faults += [BackendBroken("an error that sticks")]
            control.hold.set()
            await until(lambda: engine.health().state == "loading")
            assert engine.health().queued_requests == 3
            tasks[0].cancel()
            ends = [await outcome(task) for task in (first, *tasks[:2])]
            assert ends == [None, asyncio.CancelledError, DeadlineExceeded]
            assert engine.health().queued_requests == 1
            control.gate.set()
            assert await outcome(tasks[2]) is None
        assert [fingerprint(gone)] not in control.runs
        assert [fingerprint(late)] not in control.runs

    async def test_what_waits_for_a_new_backend_fails_where_none_can_be_loaded(self) -> None:
        control = FakeControl()
        async with running(control, SLOW_RESTART) as (engine, _):
            control.load_faults += [OSError()]
            control.run_faults += [BackendBroken("an error that sticks")]
            task = submit(engine, make_clip())
            await until(lambda: engine.health().state == "dead")
            await engine.drain(PATIENCE)
            assert await outcome(task) is Draining

        control = FakeControl()
        async with running(control) as (engine, _):
            control.load_faults += [OSError()]
            control.run_faults += [BackendBroken("an error that sticks")]
            assert await outcome(submit(engine, make_clip())) is WorkerDead
            await engine.wait_ready()
            assert await outcome(submit(engine, make_clip())) is None

    async def test_loads_that_fail_for_ever_are_told(self) -> None:
        control = FakeControl()
        async with running(control, replace(QUICK, max_failed_loads=2)) as (engine, _):
            hopeless = asyncio.create_task(engine.wait_hopeless())
            control.load_faults += [OSError(), OSError()]
            assert await outcome(submit(engine, make_clip(first=KILL))) is WorkerDead
            await asyncio.wait_for(hopeless, PATIENCE)

    async def test_each_caller_gets_an_error_of_its_own(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, _):
            tasks = [submit(engine, make_clip(first=KILL)), submit(engine, make_clip())]
            errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert errors[0] is not errors[1]

    async def test_a_stuck_worker_is_not_alive(self) -> None:
        control = FakeControl()
        async with running(control, replace(QUICK, stuck_after=0.02)) as (engine, registry):
            first = await occupy(engine, control)
            await until(lambda: not engine.health().worker_alive)
            assert registry.get_sample_value("ser_worker_up") == 0
            control.hold.set()
            assert await outcome(first) is None
            await until(lambda: engine.health().worker_alive)


class TestDraining:
    async def test_what_was_accepted_is_answered_and_nothing_new_taken(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, registry):
            first = await occupy(engine, control)
            tasks = [submit(engine, make_clip(seed=i)) for i in range(49)]
            await until(lambda: engine.health().queued_requests == 49)
            drain = asyncio.create_task(engine.drain(PATIENCE))
            await until(lambda: engine.health().state == "draining")
            with pytest.raises(Draining), engine.admit():
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

    async def test_who_was_admitted_before_may_still_queue_clips(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, _):
            with engine.admit():
                drain = asyncio.create_task(engine.drain(100 * PATIENCE))
                await until(lambda: engine.health().state == "draining")
                await asyncio.sleep(0.02)
                assert not drain.done()
                assert await outcome(submit(engine, make_clip())) is None
                assert not drain.done()
            await asyncio.wait_for(drain, PATIENCE)

    async def test_streams_are_told_and_have_their_last_clips_answered(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, _):
            with engine.admit_stream() as ending:
                drain = asyncio.create_task(engine.drain(100 * PATIENCE))
                await asyncio.wait_for(ending.wait(), PATIENCE)
                with pytest.raises(Draining), engine.admit_stream():
                    pass
                assert await outcome(submit(engine, make_clip())) is None
                assert not drain.done()
            await asyncio.wait_for(drain, PATIENCE)

    async def test_what_is_left_at_the_timeout_fails(self, caplog: pytest.LogCaptureFixture) -> None:
        control = FakeControl()
        async with running(control) as (engine, _):
            first = await occupy(engine, control)
            waiting = submit(engine, make_clip())
            await until(lambda: engine.health().queued_requests == 1)
            with engine.admit():
                began = time.monotonic()
                await engine.drain(0.05)
                assert time.monotonic() - began < 2
                assert await outcome(submit(engine, make_clip())) is Draining
            assert [await outcome(first), await outcome(waiting)] == [Draining, Draining]
            assert "left behind" in caplog.text
            control.hold.set()
            await until(lambda: not worker_threads())
            assert control.closes == 1, "even so, it closes its backend"
        assert len(control.runs) == 1

    async def test_a_run_that_ends_within_the_grace_leaves_no_thread(self, caplog: pytest.LogCaptureFixture) -> None:
        control = FakeControl()
        async with running(control, replace(QUICK, stop_grace=PATIENCE)) as (engine, _):
            first = await occupy(engine, control)
            drain = asyncio.create_task(engine.drain(0.0))
            assert await outcome(first) is Draining
            control.hold.set()
            await drain
            assert not worker_threads()
        assert "left behind" not in caplog.text

    async def test_twice_at_once_and_again(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, _):
            first = await occupy(engine, control)
            drains = [asyncio.create_task(engine.drain(PATIENCE)) for _ in range(2)]
            await asyncio.sleep(0.01)
            control.hold.set()
            await asyncio.gather(first, *drains)
            await engine.drain(0.0)
        assert control.closes == 1

    async def test_a_cancelled_caller_does_not_stop_it(self) -> None:
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

    async def test_while_loading_takes_too_long(self) -> None:
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

    async def test_between_a_death_and_the_restart(self) -> None:
        control = FakeControl()
        async with running(control, replace(QUICK, restart_min=0.02)) as (engine, _):
            assert await outcome(submit(engine, make_clip(first=KILL))) is WorkerDead
            await engine.drain(PATIENCE)
            await asyncio.sleep(0.05)
        assert control.loads == 1

    async def test_death_while_draining(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, _):
            first = await occupy(engine, control)
            tasks = [submit(engine, make_clip(first=KILL)), submit(engine, make_clip())]
            await until(lambda: engine.health().queued_requests == 2)
            with engine.admit():
                drain = asyncio.create_task(engine.drain(PATIENCE))
                await until(lambda: engine.health().state == "draining")
                control.hold.set()
                assert [await outcome(task) for task in (first, *tasks)] == [None, WorkerDead, WorkerDead]
                await drain  # a permit whose clips nobody can answer is not waited for
                assert await outcome(submit(engine, make_clip())) is Draining
        assert control.loads == 1


class TestOverload:
    async def test_ten_times_the_capacity_and_then_as_before(self) -> None:
        control = FakeControl()
        limits = replace(QUICK, max_requests=20, max_queue_requests=10)

        async def request(engine: Engine, seed: int) -> Answer:
            with engine.admit():
                return await engine.recognize(make_clip(seed=seed), deadline=soon())

        async with running(control, limits) as (engine, registry):
            first = await occupy(engine, control)
            burst = [asyncio.create_task(request(engine, i)) for i in range(200)]
            await until(lambda: sum(task.done() for task in burst) == 190)
            began = time.monotonic()
            assert await outcome(request(engine, 1)) is QueueFull
            assert time.monotonic() - began < 0.05
            assert engine.health().queued_requests == 10
            assert engine.health().state == "ready", "a full queue is no reason to be taken out of service"
            control.hold.set()
            outcomes = [await outcome(task) for task in burst]
            assert (outcomes.count(None), outcomes.count(QueueFull)) == (10, 190)
            await first

            assert (engine.health().queued_requests, engine.health().queued_seconds) == (0, 0.0)
            assert registry.get_sample_value("ser_requests_in_flight") == 0
            again = await asyncio.gather(*(request(engine, i) for i in range(10)))
            for seed, (output, _) in enumerate(again):
                assert_same(output, make_clip(seed=seed))


@contextmanager
def without_garbage_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class TestMemory:
    @pytest.mark.parametrize("end", ["answer", "failure", "break", "deadline", "cancel", "death", "full"])
    async def test_nothing_keeps_the_audio(self, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
        # Log handlers of pytest keep records, and so the tracebacks in them.
        monkeypatch.setattr(logging.getLogger("service"), "disabled", True)
        for name in ("engine", "worker", "supervisor"):
            monkeypatch.setattr(logging.getLogger(f"service.inference.{name}"), "disabled", True)
        control = FakeControl()
        first = {"failure": FAIL, "break": BREAK, "death": KILL}.get(end, 0.5)
        async with running(control, replace(QUICK, max_queue_requests=1)) as (engine, _):
            busy: list[asyncio.Task[Answer]] = []
            if end in ("deadline", "cancel", "full"):
                busy.append(await occupy(engine, control))
            if end == "full":
                busy.append(submit(engine, make_clip()))
                await until(lambda: engine.health().queued_requests == 1)
            with without_garbage_collector():
                clip = make_clip(first=first)
                samples = weakref.ref(clip.samples)
                task = submit(engine, clip, seconds=0.02 if end == "deadline" else PATIENCE)
                del clip
                await asyncio.sleep(0.005)
                if end == "cancel":
                    task.cancel()
                kind = await outcome(task)
                del task
                await until(lambda: samples() is None)
            assert (
                kind
                == {
                    "answer": None,
                    "failure": InferenceFailed,
                    "break": InferenceFailed,
                    "deadline": DeadlineExceeded,
                    "cancel": asyncio.CancelledError,
                    "death": WorkerDead,
                    "full": QueueFull,
                }[end]
            )
            control.hold.set()
            await asyncio.gather(*busy)

    async def test_nothing_keeps_the_answer(self) -> None:
        async with running(FakeControl()) as (engine, _):
            with without_garbage_collector():
                output, _ = await submit(engine, make_clip())
                logits = weakref.ref(output.logits)
                del output
                await until(lambda: logits() is None)


class TestMetrics:
    async def test_what_a_batch_counts(self) -> None:
        control = FakeControl(device_memory={"allocated": 5, "peak": 9})
        async with running(control) as (engine, registry):
            value = registry.get_sample_value
            first = await occupy(engine, control)
            tasks = [submit(engine, make_clip(0.5)) for _ in range(3)]
            await until(lambda: engine.health().queued_requests == 3)
            assert value("ser_queue_depth") == 3
            assert value("ser_queue_audio_seconds") == 1.5
            assert value("ser_queue_depth_limit") == QUICK.max_queue_requests
            assert value("ser_queue_audio_seconds_limit") == QUICK.max_queue_seconds
            assert value("ser_requests_in_flight_limit") == QUICK.max_requests
            assert value("ser_worker_up") == 1
            control.hold.set()
            await asyncio.gather(first, *tasks)
            assert value("ser_queue_depth") == 0
            assert value("ser_batch_size_count") == 2
            assert value("ser_batch_size_sum") == 4
            assert math.isclose(value("ser_batch_audio_seconds_sum") or 0, 1.6)
            assert value("ser_batch_padding_ratio_count") == 2
            assert math.isclose(value("ser_audio_seconds_total") or 0, 1.6)
            for stage in ("queue", "preprocess", "inference"):
                assert value("ser_stage_duration_seconds_count", {"stage": stage}) == 4
            assert value("ser_gpu_memory_bytes", {"kind": "allocated"}) == 5
            assert value("ser_gpu_memory_bytes", {"kind": "peak"}) == 9
            assert (value("ser_model_load_seconds") or 0) > 0
            assert value("ser_predictions_total", {"label": "angry"}) == 0
            identity = {"id": "fake", "revision": "1", "backend": "fake", "device": "cpu", "dtype": "float32"}
            assert value("ser_model_info", identity) == 1
