"""The application with the real engine and a fake backend."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from statistics import median
from time import monotonic
from typing import Any

import httpx
import numpy as np
from prometheus_client import CollectorRegistry

from service.api.app import create_app
from service.inference.engine import Engine
from service.inference.engine_limits import EngineLimits
from service.observability.metrics import Metrics
from service.observability.telemetry import Telemetry
from service.settings.settings import Settings
from tests.api.answers import problem
from tests.api.conftest import serving
from tests.api.sounds import as_wav, wav
from tests.inference.fake_backend import FAIL, KILL, FakeControl
from tests.inference.running import LIMITS, until

AS_WAV = {"content-type": "audio/wav"}


async def count(client: httpx.AsyncClient, sample: str) -> float:
    """The value of one sample, as Prometheus reads it."""
    lines = (await client.get("/metrics")).text.splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(sample + " ")))


def clip_with_command(command: float) -> bytes:
    """A clip whose first sample is a command for the fake backend."""
    samples = np.full((1600, 1), 0.1)
    samples[0] = command
    return as_wav(samples)


async def post(client: httpx.AsyncClient, clip: bytes, **params: Any) -> httpx.Response:
    return await client.post("/recognize", content=clip, headers=AS_WAV, params=params)


@asynccontextmanager
async def service(
    control: FakeControl, limits: EngineLimits = LIMITS, *, wait: bool = True
) -> AsyncIterator[tuple[httpx.AsyncClient, Engine]]:
    metrics = Metrics(CollectorRegistry())
    engine = Engine(control.load, limits, Telemetry(metrics))
    async with serving(create_app(engine, Settings(), metrics)) as client:
        try:
            if wait:
                await engine.wait_ready()
            yield client, engine
        finally:
            control.release()


async def test_recognition() -> None:
    async with service(FakeControl()) as (client, _):
        answer = (await post(client, wav(channels=2), channels="split", embedding="frame", granularity="frame")).json()
        assert answer["model"]["id"] == "fake"
        assert [len(channel["scores"]) for channel in answer["channels"]] == [9, 9]


async def test_while_the_model_loads() -> None:
    control = FakeControl()
    control.gate.clear()
    async with service(control, wait=False) as (client, engine):
        assert (await client.get("/livez")).status_code == 200
        problem(await client.get("/readyz"), 503, "model_loading")
        problem(await client.get("/models"), 503, "model_loading")
        problem(await post(client, wav()), 503, "model_loading")
        control.gate.set()
        await engine.wait_ready()
        assert (await client.get("/readyz")).status_code == 200
        assert (await post(client, wav())).status_code == 200


async def test_a_burst_of_ten_times_the_capacity() -> None:
    control = FakeControl()
    control.run_gate.clear()
    limits = replace(LIMITS, max_requests=5)
    async with service(control, limits) as (client, _):
        accepted = [asyncio.create_task(post(client, wav(0.1, seed=seed))) for seed in range(5)]
        await asyncio.to_thread(control.running.wait, 10)
        await until(lambda: all(not task.done() for task in accepted))
        refused, took = [], []
        for _ in range(45):
            began = monotonic()
            refused.append(await post(client, wav(0.1)))
            took.append(monotonic() - began)
        assert median(took) < 1  # a bound for slow machines; the usual time is a few milliseconds
        for response in refused:
            problem(response, 429, "queue_full")
            assert int(response.headers["retry-after"]) >= 1
        control.run_gate.set()
        assert [(await task).status_code for task in accepted] == [200] * 5
        assert await count(client, 'ser_requests_rejected_total{reason="queue_full"}') == 45
        assert await count(client, "ser_requests_in_flight") == 0
        again = await asyncio.gather(*(post(client, wav(0.1)) for _ in range(5)))
        assert [response.status_code for response in again] == [200] * 5


async def test_a_failed_clip_does_not_affect_others() -> None:
    async with service(FakeControl()) as (client, _):
        clips = [wav(0.1, seed=1), clip_with_command(FAIL), wav(0.1, seed=2)]
        responses = await asyncio.gather(*(post(client, clip) for clip in clips))
        assert [response.status_code for response in responses] == [200, 500, 200]
        problem(responses[1], 500, "inference_failed")


async def test_a_worker_that_dies_is_restarted() -> None:
    async with service(FakeControl()) as (client, engine):
        problem(await post(client, clip_with_command(KILL)), 503, "worker_dead")
        assert (await client.get("/livez")).status_code == 200
        await engine.wait_ready()
        assert (await post(client, wav())).status_code == 200


async def test_draining_loses_nothing() -> None:
    control = FakeControl()
    control.run_gate.clear()
    async with service(control) as (client, engine):
        accepted = [asyncio.create_task(post(client, wav(0.1, seed=seed))) for seed in range(50)]
        await asyncio.to_thread(control.running.wait, 10)
        await until(lambda: engine.state().queued_clips >= 40)
        draining = asyncio.create_task(engine.drain(10))
        await until(lambda: engine.health().state == "draining")
        problem(await post(client, wav()), 503, "draining")
        problem(await client.get("/readyz"), 503, "draining")
        assert (await client.get("/livez")).status_code == 200
        control.run_gate.set()
        assert Counter([(await task).status_code for task in accepted]) == {200: 50}
        await draining


async def test_clips_of_disconnected_clients_are_not_run() -> None:
    control = FakeControl()
    control.run_gate.clear()
    async with service(control) as (client, engine):
        first = asyncio.create_task(post(client, wav(0.1)))
        await asyncio.to_thread(control.running.wait, 10)
        problem(await post(client, wav(0.1, seed=1), timeout="0.1"), 504, "deadline_exceeded")
        control.run_gate.set()
        assert (await first).status_code == 200
        assert (await post(client, wav(0.1, seed=2))).status_code == 200
        assert sum(map(len, control.runs)) == 2
        assert engine.state().queued_clips == 0
        gone = asyncio.create_task(post(client, wav(0.1, seed=3)))
        control.run_gate.clear()
        await until(lambda: engine.state().queued_clips == 1 or len(control.runs) == 3)
        gone.cancel()
        await asyncio.wait((gone,))
        assert await count(client, "ser_requests_cancelled_total") == 1
