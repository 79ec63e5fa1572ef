"""`GET /requests/{id}`, with a backend that holds its clips."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from service.api.app import create_app
from service.inference.backend import BatchLimits
from service.inference.engine import Engine
from service.observability.metrics import Metrics
from service.observability.telemetry import Telemetry
from service.settings.settings import Settings
from tests.api.conftest import serving
from tests.api.sounds import wav
from tests.inference.fake_backend import FakeControl
from tests.inference.running import LIMITS, PATIENCE


@pytest.fixture
async def control() -> AsyncIterator[FakeControl]:
    control = FakeControl(limits=BatchLimits(clips=1, seconds=60.0))
    yield control
    control.release()


@pytest.fixture
async def client(control: FakeControl) -> AsyncIterator[httpx.AsyncClient]:
    metrics = Metrics(CollectorRegistry())
    engine = Engine(control.load, LIMITS, Telemetry(metrics))
    app: FastAPI = create_app(engine, Settings(answer_cache_bytes=0), metrics)
    async with serving(app) as client:
        await engine.wait_ready()
        yield client
        control.release()


def post(client: httpx.AsyncClient, request_id: str, **params: Any) -> asyncio.Task[httpx.Response]:
    headers = {"X-Request-ID": request_id, "Content-Type": "audio/wav"}
    sound = wav(seconds=0.5, channels=6)
    return asyncio.create_task(client.post("/recognize", content=sound, headers=headers, params=params))


async def state(client: httpx.AsyncClient, request_id: str) -> dict[str, Any]:
    response = await client.get(f"/requests/{request_id}")
    assert response.status_code == 200
    answer: dict[str, Any] = response.json()
    return answer


async def reaches(client: httpx.AsyncClient, request_id: str, wanted: str) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        while (answer := await state(client, request_id))["state"] != wanted:  # noqa: ASYNC110 - it is asked over HTTP
            await asyncio.sleep(0.002)
    return answer


async def test_what_waits_before_a_request_is_told(client: httpx.AsyncClient, control: FakeControl) -> None:
    assert await state(client, "first") == {"state": "unknown"}
    assert (await post(client, "earlier")).status_code == 200  # so that the speed is known
    control.run_gate.clear()
    first = post(client, "first")
    assert await reaches(client, "first", "running") == {"state": "running"}
    second = post(client, "second")
    answer = await reaches(client, "second", "queued")
    assert answer["ahead"] | {"wait": 0} == {"clips": 0, "audio_seconds": 0, "wait": 0}
    third = post(client, "third")
    ahead = (await reaches(client, "third", "queued"))["ahead"]
    assert (ahead["clips"], ahead["audio_seconds"]) == (1, 0.5)
    assert ahead["wait"] >= 0
    control.run_gate.set()
    for answered in await asyncio.gather(first, second, third):
        assert answered.status_code == 200
        assert await state(client, answered.json()["id"]) == {"state": "unknown"}


async def test_the_wait_is_not_guessed_before_the_first_run(client: httpx.AsyncClient, control: FakeControl) -> None:
    control.run_gate.clear()
    first = post(client, "first")
    await reaches(client, "first", "running")
    second = post(client, "second")  # only now: whichever of two is decoded first runs first
    assert (await reaches(client, "second", "queued"))["ahead"]["wait"] is None
    control.run_gate.set()
    assert {(await task).status_code for task in (first, second)} == {200}


async def test_of_several_clips_the_next_one_counts(client: httpx.AsyncClient, control: FakeControl) -> None:
    control.run_gate.clear()
    first = post(client, "first")
    await reaches(client, "first", "running")
    split = post(client, "split", channels="split")
    assert (await reaches(client, "split", "queued"))["ahead"]["clips"] == 0
    control.run_gate.set()
    assert {(await task).status_code for task in (first, split)} == {200}


async def test_a_request_is_received_before_it_is_decoded(client: httpx.AsyncClient) -> None:
    goes_on = asyncio.Event()
    sound = wav()

    async def slowly() -> AsyncIterator[bytes]:
        yield sound[:1000]
        await goes_on.wait()
        yield sound[1000:]

    headers = {"X-Request-ID": "slow", "Content-Type": "audio/wav"}
    task = asyncio.create_task(client.post("/recognize", content=slowly(), headers=headers))
    await reaches(client, "slow", "receiving")
    goes_on.set()
    assert (await task).status_code == 200


async def test_a_caller_that_leaves_is_forgotten(client: httpx.AsyncClient, control: FakeControl) -> None:
    control.run_gate.clear()
    task = post(client, "gone")
    await reaches(client, "gone", "running")
    task.cancel()
    await reaches(client, "gone", "unknown")
