"""Engines for tests: started, ready, and seen to leave nothing behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from service.errors import (
    ServiceError,
)
from service.inference.batch import Answer
from service.inference.engine import Engine
from service.inference.engine_limits import EngineLimits
from service.inference.worker import THREAD_NAME
from service.observability.metrics import Metrics
from service.results import Clip, ClipOutput
from tests.inference.fake_backend import (
    HOLD,
    FakeControl,
    answer,
    make_clip,
)

QUICK = EngineLimits(restart_min=0.01, restart_max=0.05, stop_grace=0.05)
PATIENCE = 10.0
"""Seconds after which a test that waits has failed; far more than anything here takes."""


def new_engine(control: FakeControl, limits: EngineLimits = QUICK) -> tuple[Engine, CollectorRegistry]:
    registry = CollectorRegistry()
    return Engine(control.load, limits, Metrics(registry)), registry


@asynccontextmanager
async def running(
    control: FakeControl, limits: EngineLimits = QUICK
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
        while not condition():  # noqa: ASYNC110 - that something is set by a thread, or has no event
            await asyncio.sleep(0.002)


def soon(seconds: float = PATIENCE) -> float:
    """A deadline."""
    return asyncio.get_running_loop().time() + seconds


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
    await until(control.holding.is_set)
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
