"""The engine: answers, loading, admission, deadlines, cancelling, metrics."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest

from service.errors import (
    CallerLimit,
    CheckpointInvalid,
    DeadlineExceeded,
    InferenceFailed,
    ModelLoading,
    QueueFull,
    TooManyStreams,
    WorkerDead,
)
from service.inference import supervisor
from service.inference.backend import BatchLimits
from service.inference.recognizer import Recognizer
from tests.inference.fake_backend import (
    FAIL,
    HOLD,
    INFERENCE_SECONDS,
    PREPROCESS_SECONDS,
    FakeControl,
    fingerprint,
    make_clip,
)
from tests.inference.running import (
    LIMITS,
    PATIENCE,
    assert_same,
    new_engine,
    occupy,
    outcome,
    running,
    soon,
    submit,
    until,
)


def test_an_engine_is_a_recognizer() -> None:
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

    async def test_each_of_many_clips_gets_its_own_answer(self) -> None:
        control = FakeControl()
        clips = [make_clip(0.05 + 0.01 * i, rate=rate, seed=i) for i in range(20) for rate in (8_000, 44_100)]
        async with running(control) as (engine, _):
            results = await asyncio.gather(*(submit(engine, clip) for clip in clips))
        for clip, (output, _) in zip(clips, results, strict=True):
            assert_same(output, clip)
        assert sum(len(run) for run in control.runs) == len(clips)

    async def test_clips_that_arrive_during_a_run_are_the_next_batch(self) -> None:
        control = FakeControl()
        clips = [make_clip(seed=i) for i in range(6)]
        async with running(control) as (engine, _):
            first = await occupy(engine, control)
            tasks = []
            for clip in clips:  # one by one, long before the run ends
                tasks.append(submit(engine, clip))
                await asyncio.sleep(0.002)
            assert engine.state().queued_clips == 6
            assert engine.state().queued_seconds == pytest.approx(0.6)
            control.hold.set()
            await asyncio.gather(first, *tasks)
        assert control.runs[1:] == [[fingerprint(clip) for clip in clips]]

    async def test_batches_respect_the_limits_of_the_backend(self) -> None:
        control = FakeControl(limits=BatchLimits(clips=3, seconds=1.0))
        lengths = [0.1, 0.1, 0.1, 0.1, 0.6, 0.6, 3.0, 0.1]
        async with running(control) as (engine, _):
            first = await occupy(engine, control)
            tasks = [submit(engine, make_clip(length)) for length in lengths]
            await until(lambda: engine.state().queued_clips == len(lengths))
            control.hold.set()
            await asyncio.gather(first, *tasks)
        assert [len(run) for run in control.runs[1:]] == [3, 2, 1, 1, 1]

    async def test_only_one_thread_calls_the_backend(self) -> None:
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
        with pytest.raises(ModelLoading), engine.admit_request("caller"):
            pass
        assert await outcome(submit(engine, make_clip())) is ModelLoading
        assert registry.get_sample_value("ser_requests_rejected_total", {"reason": "model_loading"}) == 2
        control.gate.set()
        await engine.wait_ready()
        assert engine.health().state == "ready"
        assert engine.model == control.info
        assert control.warm_ups == 1
        await engine.drain(PATIENCE)

    async def test_before_the_start_the_state_is_loading(self) -> None:
        engine, _ = new_engine(FakeControl())
        assert engine.health().state == "loading"
        assert not engine.health().worker_alive
        assert await outcome(submit(engine, make_clip())) is ModelLoading

    async def test_an_engine_starts_once(self) -> None:
        async with running(FakeControl()) as (engine, _):
            with pytest.raises(RuntimeError, match="once"):
                await engine.start()

    async def test_a_failed_load_is_a_dead_worker_until_it_succeeds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        control = FakeControl(load_faults=[CheckpointInvalid("weights are missing")])
        monkeypatch.setattr(supervisor, "SHORTEST_PAUSE", 30.0)
        engine, registry = new_engine(control)
        await engine.start()
        with pytest.raises(CheckpointInvalid):
            await engine.wait_ready()
        assert engine.health().state == "dead"
        assert not engine.health().worker_alive
        with pytest.raises(WorkerDead) as refused, engine.admit_request("caller"):
            pass
        assert refused.value.retry_after >= 1
        assert registry.get_sample_value("ser_worker_deaths_total") == 1
        await engine.drain(PATIENCE)


class TestAdmission:
    async def test_permits_are_limited_and_given_back(self) -> None:
        async with running(FakeControl(), replace(LIMITS, max_requests=2)) as (engine, registry):
            with engine.admit_request("caller"), engine.admit_request("caller"):
                with pytest.raises(QueueFull) as refused, engine.admit_request("caller"):
                    pass
                assert refused.value.retry_after == 1.0
                assert registry.get_sample_value("ser_requests_in_flight") == 2
            with pytest.raises(KeyError), engine.admit_request("caller"):
                raise KeyError
            assert registry.get_sample_value("ser_requests_in_flight") == 0
            with engine.admit_request("caller"), engine.admit_request("caller"):
                pass
            assert registry.get_sample_value("ser_requests_rejected_total", {"reason": "queue_full"}) == 1

    async def test_streams_have_their_own_permits(self) -> None:
        async with running(FakeControl(), replace(LIMITS, max_requests=1, max_streams=2)) as (engine, registry):
            with (
                engine.admit_request("caller"),
                engine.admit_stream("caller") as first,
                engine.admit_stream("caller") as second,
            ):
                assert not first.is_set()
                assert not second.is_set()
                with pytest.raises(TooManyStreams) as refused, engine.admit_stream("caller"):
                    pass
                assert refused.value.retry_after == 10.0
                assert registry.get_sample_value("ser_streams") == 2
                assert registry.get_sample_value("ser_streams_limit") == 2
                assert registry.get_sample_value("ser_requests_in_flight") == 1
            with pytest.raises(KeyError), engine.admit_stream("caller"):
                raise KeyError
            assert registry.get_sample_value("ser_streams") == 0
            assert registry.get_sample_value("ser_requests_rejected_total", {"reason": "too_many_streams"}) == 1

    async def test_one_caller_leaves_permits_for_the_others(self) -> None:
        limits = replace(LIMITS, max_requests=3, max_recordings=2, max_streams=2, caller_share=0.5)
        async with running(FakeControl(), limits) as (engine, registry):
            for kind, admit in enumerate((engine.admit_request, engine.admit_recording, engine.admit_stream)):
                with ExitStack() as held:
                    for _ in range(2 if admit == engine.admit_request else 1):
                        held.enter_context(admit("first"))
                    with pytest.raises(CallerLimit) as refused, admit("first"):
                        pass
                    assert refused.value.retry_after >= 1
                    held.enter_context(admit("second"))
                assert registry.get_sample_value("ser_requests_rejected_total", {"reason": "caller_limit"}) == kind + 1
                with admit("first"):
                    pass

    async def test_a_full_queue_admits_no_request(self) -> None:
        control = FakeControl()
        async with running(control, replace(LIMITS, max_queue_clips=1)) as (engine, _):
            first = await occupy(engine, control)
            second = submit(engine, make_clip())
            await until(lambda: engine.state().queued_clips == 1)
            with pytest.raises(QueueFull), engine.admit_request("caller"):
                pass
            assert await outcome(submit(engine, make_clip())) is QueueFull
            control.hold.set()
            await asyncio.gather(first, second)
            with engine.admit_request("caller"):
                assert await outcome(submit(engine, make_clip())) is None

    async def test_the_speed_is_known_from_the_warm_up_on(self) -> None:
        async with running(FakeControl(cost=0.5)) as (engine, _):
            assert engine.expected(0.7) == pytest.approx(0.5 * 0.7 * 1.01)
            assert engine.expected(140.0) == pytest.approx(0.5 * 140 * 3), "long clips are slower"
        async with running(FakeControl()) as (engine, _):
            assert engine.expected(300.0) is None

    async def test_a_queue_with_too_many_seconds_refuses_clips(self) -> None:
        control = FakeControl()
        async with running(control, replace(LIMITS, max_queue_seconds=2.0)) as (engine, _):
            first = await occupy(engine, control)
            second = submit(engine, make_clip(1.5))
            await until(lambda: engine.state().queued_clips == 1)
            assert await outcome(submit(engine, make_clip(1.0))) is QueueFull
            control.hold.set()
            await asyncio.gather(first, second)

    async def test_retry_after_follows_the_queue_and_the_speed(self) -> None:
        control = FakeControl()
        async with running(control, replace(LIMITS, max_queue_clips=1, max_queue_seconds=1e6)) as (engine, _):
            first = await occupy(engine, control)
            await asyncio.sleep(0.1)
            control.hold.set()
            await first  # 0.1 s of audio took more than 0.1 s: at most 1 s of audio a second
            control.holding.clear()
            control.hold.clear()
            first = await occupy(engine, control)
            second = submit(engine, make_clip(20.0))
            await until(lambda: engine.state().queued_clips == 1)
            with pytest.raises(QueueFull) as refused, engine.admit_request("caller"):
                pass
            assert 20.0 <= refused.value.retry_after <= 60.0
            control.hold.set()
            await asyncio.gather(first, second)


class TestDeadlines:
    async def test_a_deadline_in_the_past(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, _):
            assert await outcome(submit(engine, make_clip(), seconds=0.0)) is DeadlineExceeded
        assert control.runs == []

    async def test_a_waiting_clip_fails_at_its_deadline_and_is_not_run(self) -> None:
        control, late = FakeControl(), make_clip(seed=9)
        async with running(control) as (engine, _):
            first = await occupy(engine, control)
            began = time.monotonic()
            assert await outcome(submit(engine, late, seconds=0.05)) is DeadlineExceeded
            assert 0.04 <= time.monotonic() - began < PATIENCE / 2
            assert engine.state().queued_clips == 0, "it takes no room any more"
            control.hold.set()
            assert await outcome(first) is None
        assert [fingerprint(late)] not in control.runs

    async def test_a_running_clip_fails_at_its_deadline_and_its_answer_is_dropped(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, registry):
            control.run_gate.clear()
            while not control.running.is_set():  # retried if the deadline passes before the run begins
                assert await outcome(submit(engine, make_clip(), seconds=0.05)) is DeadlineExceeded
            control.run_gate.set()
            assert await outcome(submit(engine, make_clip())) is None
            queued = registry.get_sample_value("ser_stage_duration_seconds_count", {"stage": "queue"})
            assert queued == 1, "only answers are counted"
            assert registry.get_sample_value("ser_requests_cancelled_total") == 0
        assert len(control.runs) == 2

    async def test_a_run_ends_at_the_deadline_and_the_next_clips_are_answered(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        control = FakeControl(endable=True)
        async with running(control) as (engine, registry):
            while not control.holding.is_set():  # retried if the deadline passes before the run begins
                assert await outcome(submit(engine, make_clip(first=HOLD), seconds=0.05)) is DeadlineExceeded
            assert await outcome(submit(engine, make_clip())) is None
            assert registry.get_sample_value("ser_worker_deaths_total") == 0
            assert registry.get_sample_value("ser_inference_failures_total") == 0
        assert len(control.runs) == 2, "no clip that is known to be good is run to check the model"
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


class TestCancelling:
    async def test_a_cancelled_clip_that_waits_is_not_run(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, registry):
            first = await occupy(engine, control)
            second = submit(engine, make_clip())
            await until(lambda: engine.state().queued_clips == 1)
            second.cancel()
            assert await outcome(second) is asyncio.CancelledError
            assert (engine.state().queued_clips, engine.state().queued_seconds) == (0, 0.0)
            control.hold.set()
            assert await outcome(first) is None
            assert registry.get_sample_value("ser_requests_cancelled_total") == 1
        assert len(control.runs) == 1

    async def test_a_run_ends_when_its_caller_is_cancelled(self) -> None:
        control = FakeControl(endable=True)
        async with running(control) as (engine, _):
            first = await occupy(engine, control)
            second = submit(engine, make_clip())
            first.cancel()
            assert [await outcome(task) for task in (first, second)] == [asyncio.CancelledError, None]

    async def test_cancelling_a_running_clip_does_not_affect_its_batch(self) -> None:
        control = FakeControl()
        async with running(control) as (engine, _):
            first = await occupy(engine, control)
            second, third = submit(engine, make_clip(seed=2)), submit(engine, make_clip(seed=3))
            await until(lambda: engine.state().queued_clips == 2)
            control.run_gate.clear()
            control.hold.set()
            await until(lambda: len(control.runs) == 2)
            second.cancel()
            control.run_gate.set()
            assert [await outcome(task) for task in (first, second, third)] == [None, asyncio.CancelledError, None]

    async def test_a_cancelled_clip_of_a_failed_batch_is_not_retried(self) -> None:
        control, gone = FakeControl(), make_clip(seed=7)
        async with running(control) as (engine, _):
            first = await occupy(engine, control)
            tasks = [submit(engine, make_clip(first=FAIL)), submit(engine, gone)]
            await until(lambda: engine.state().queued_clips == 2)
            control.run_gate.clear()
            control.hold.set()
            await until(lambda: len(control.runs) == 2)
            tasks[1].cancel()
            assert await outcome(tasks[1]) is asyncio.CancelledError
            control.run_gate.set()
            assert [await outcome(task) for task in (first, tasks[0])] == [None, InferenceFailed]
        assert [fingerprint(gone)] not in control.runs


class TestMetrics:
    async def test_series_after_a_batch(self) -> None:
        control = FakeControl(device_memory={"allocated": 5, "peak": 9})
        async with running(control) as (engine, registry):
            value = registry.get_sample_value
            first = await occupy(engine, control)
            tasks = [submit(engine, make_clip(0.5)) for _ in range(3)]
            await until(lambda: engine.state().queued_clips == 3)
            assert value("ser_queue_depth") == 3
            assert value("ser_queue_audio_seconds") == 1.5
            assert value("ser_queue_depth_limit") == LIMITS.max_queue_clips
            assert value("ser_queue_audio_seconds_limit") == LIMITS.max_queue_seconds
            assert value("ser_requests_in_flight_limit") == LIMITS.max_requests
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
