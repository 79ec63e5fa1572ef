"""Engines for tests: started, ready, and drained afterwards; none may leave a thread behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from service.errors import ServiceError
from service.inference.engine import Engine
from service.inference.engine_limits import EngineLimits
from service.inference.request_queue import ClipAnswer
from service.inference.worker import THREAD_NAME
from service.observability.metrics import Metrics
from service.observability.telemetry import Telemetry
from service.results import Clip, ClipOutput
from tests.inference.fake_backend import HOLD, FakeControl, answer, make_clip

LIMITS = EngineLimits(
    max_requests=64,
    max_recordings=64,
    max_streams=64,
    caller_share=1.0,
    max_queue_clips=256,
    max_queue_seconds=1800.0,
    stuck_after=60.0,
)
PATIENCE = 10.0
"""Seconds after which a test that waits fails; far more than any step takes."""


def new_engine(control: FakeControl, limits: EngineLimits = LIMITS) -> tuple[Engine, CollectorRegistry]:
    registry = CollectorRegistry()
    return Engine(control.load, limits, Telemetry(Metrics(registry))), registry


@asynccontextmanager
async def running(
    control: FakeControl, limits: EngineLimits = LIMITS
) -> AsyncIterator[tuple[Engine, CollectorRegistry]]:
    """An engine that is ready; drained afterwards."""
    engine, registry = new_engine(control, limits)
    await engine.start()
    async with asyncio.timeout(PATIENCE):
        await engine.wait_ready()
    try:
        yield engine, registry
    finally:
        control.release()
        async with asyncio.timeout(2 * PATIENCE):
            await engine.drain(PATIENCE)
        assert not worker_threads()


def worker_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what a thread changes has no asyncio event
            await asyncio.sleep(0.002)


def soon(seconds: float = PATIENCE) -> float:
    """A deadline in `seconds`."""
    return asyncio.get_running_loop().time() + seconds


def assert_same(output: ClipOutput, clip: Clip) -> None:
    expected = answer(clip)
    np.testing.assert_array_equal(output.logits, expected.logits)
    np.testing.assert_array_equal(output.embedding, expected.embedding)
    assert (output.speech, output.scored) == (expected.speech, expected.scored)


def submit(engine: Engine, clip: Clip, seconds: float = PATIENCE) -> asyncio.Task[ClipAnswer]:
    return asyncio.create_task(_bounded(engine.recognize(clip, deadline=soon(seconds))))


async def _bounded(call: Coroutine[Any, Any, ClipAnswer]) -> ClipAnswer:
    async with asyncio.timeout(2 * PATIENCE):
        return await call


async def occupy(engine: Engine, control: FakeControl) -> asyncio.Task[ClipAnswer]:
    """Keep the worker busy until `control.hold` is set."""
    task = submit(engine, make_clip(first=HOLD))
    await until(control.holding.is_set)
    return task


async def outcome(awaitable: Awaitable[ClipAnswer]) -> type[BaseException] | None:
    """The type of the error, None for an answer."""
    try:
        await awaitable
    except (ServiceError, asyncio.CancelledError) as error:
        return type(error)
    finally:
        del awaitable  # a task keeps its error, whose traceback keeps this frame
    return None
