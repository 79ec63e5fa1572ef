"""The service over HTTP with a fake model that waits at a gate, so that tests control how long each state lasts."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from prometheus_client import CollectorRegistry

from service.api.app import create_app
from service.inference.backend import BatchLimits
from service.inference.engine import Engine
from service.inference.engine_limits import EngineLimits
from service.observability.metrics import Metrics
from service.observability.telemetry import Telemetry
from service.settings.sources import load_settings
from tests.api.sounds import wav
from tests.inference.fake_backend import FakeControl
from tests.inference.running import LIMITS

TIMEOUT = 20.0


@dataclass
class GatedService:
    """A service in its own thread; clips run while `control.run_gate` is set; `end` stops it and waits."""

    url: str
    control: FakeControl
    registry: CollectorRegistry
    pool: ThreadPoolExecutor
    end: Callable[[], None]

    def count(self, name: str) -> float:
        """The value of a metric without labels."""
        return self.registry.get_sample_value(name) or 0.0

    def post(self, seconds: float = 1.0) -> Future[httpx.Response]:
        """Send a clip as another client."""
        return self.pool.submit(httpx.post, f"{self.url}/recognize", files={"file": wav(seconds)}, timeout=60)


@contextmanager
def gated_service(limits: EngineLimits | None = None, **settings: Any) -> Iterator[GatedService]:
    """A service with batches of one clip."""
    control = FakeControl(limits=BatchLimits(clips=1, seconds=60.0))
    registry, ready, stop = CollectorRegistry(), threading.Event(), threading.Event()
    url: list[str] = []

    async def serve() -> None:
        metrics = Metrics(registry)
        engine = Engine(control.load, limits or LIMITS, Telemetry(metrics))
        app = create_app(engine, load_settings(**settings), metrics)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False, lifespan="on"))
        serving = asyncio.create_task(server.serve())
        await engine.wait_ready()
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        url.append(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
        ready.set()
        await asyncio.to_thread(stop.wait)
        control.release()
        server.should_exit = True
        await serving

    with ThreadPoolExecutor() as pool:
        thread = pool.submit(asyncio.run, serve())

        def end() -> None:
            stop.set()
            thread.result(TIMEOUT)

        try:
            assert ready.wait(TIMEOUT), thread
            yield GatedService(url[0], control, registry, pool, end)
        finally:
            end()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds."""
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
