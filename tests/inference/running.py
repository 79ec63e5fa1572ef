"""Engines for tests: started, ready, and seen to leave nothing behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from service.inference.engine import Engine
from service.inference.limits import EngineLimits
from service.inference.worker import THREAD_NAME
from service.metrics import Metrics
from tests.inference.fake_backend import FakeControl

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
