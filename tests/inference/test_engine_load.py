"""Overload of the engine, and what it keeps in memory afterwards."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from service.errors import DeadlineExceeded, InferenceFailed, QueueFull, WorkerDead
from service.inference.engine import Engine
from service.inference.request_queue import ClipAnswer
from tests.inference.fake_backend import BREAK, FAIL, KILL, FakeControl, make_clip
from tests.inference.running import LIMITS, PATIENCE, assert_same, occupy, outcome, running, soon, submit, until


class TestOverload:
    async def test_requests_above_the_capacity_are_refused_at_once(self) -> None:
        control = FakeControl()
        limits = replace(LIMITS, max_requests=20, max_queue_clips=10)

        async def request(engine: Engine, seed: int) -> ClipAnswer:
            with engine.admit_request("caller"):
                return await engine.recognize(make_clip(seed=seed), deadline=soon())

        async with running(control, limits) as (engine, registry):
            first = await occupy(engine, control)
            burst = [asyncio.create_task(request(engine, i)) for i in range(200)]
            await until(lambda: sum(task.done() for task in burst) == 190)
            took = []
            for _ in range(5):
                began = time.monotonic()
                assert await outcome(request(engine, 1)) is QueueFull
                took.append(time.monotonic() - began)
            assert min(took) < 0.05, "a refusal does not wait"
            assert engine.state().queued_clips == 10
            assert engine.health().state == "ready", "a full queue does not make the engine unready"
            control.hold.set()
            outcomes = [await outcome(task) for task in burst]
            assert (outcomes.count(None), outcomes.count(QueueFull)) == (10, 190)
            await first

            assert (engine.state().queued_clips, engine.state().queued_seconds) == (0, 0.0)
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
    async def test_the_audio_is_freed(self, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
        # Handlers of pytest keep log records and the tracebacks in them.
        monkeypatch.setattr(logging.getLogger("service"), "disabled", True)
        for name in ("engine", "worker", "supervisor"):
            monkeypatch.setattr(logging.getLogger(f"service.inference.{name}"), "disabled", True)
        control = FakeControl()
        first = {"failure": FAIL, "break": BREAK, "death": KILL}.get(end, 0.5)
        async with running(control, replace(LIMITS, max_queue_clips=1)) as (engine, _):
            busy: list[asyncio.Task[ClipAnswer]] = []
            if end in ("deadline", "cancel", "full"):
                busy.append(await occupy(engine, control))
            if end == "full":
                busy.append(submit(engine, make_clip()))
                await until(lambda: engine.state().queued_clips == 1)
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

    async def test_the_answer_is_freed(self) -> None:
        async with running(FakeControl()) as (engine, _):
            with without_garbage_collector():
                output, _ = await submit(engine, make_clip())
                logits = weakref.ref(output.logits)
                del output
                await until(lambda: logits() is None)
