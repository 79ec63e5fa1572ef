"""`GET /models`, and `GET /requests/{id}` with a backend that waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
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
from service.results import Int8Error
from service.settings.settings import Settings
from tests.api.answers import problem
from tests.api.conftest import serving
from tests.api.double import RecognizerDouble
from tests.api.sounds import wav
from tests.inference.fake_backend import LABELS, WIDTH, FakeControl
from tests.inference.running import LIMITS, PATIENCE


async def test_models(client: httpx.AsyncClient, recognizer: RecognizerDouble) -> None:
    response = await client.get("/models")
    assert response.status_code == 200
    assert response.json() == {
        "models": [
            {
                "id": "fake",
                "revision": "1",
                "backend": "fake",
                "device": "cpu",
                "dtype": "float32",
                "demonstration": True,
                "labels": [{"en": label.en, "zh": label.zh, "native": label.native} for label in LABELS],
                "embedding_size": WIDTH,
            }
        ]
    }
    assert recognizer.model is not None
    recognizer.model = replace(recognizer.model, dtype="int8", int8_error=Int8Error(0.004, 0.96, 24))
    (model,) = (await client.get("/models")).json()["models"]
    assert model["int8_error"] == {"score_difference": 0.004, "equal_labels": 0.96, "clips": 24}
    recognizer.model = None
    problem(await client.get("/models"), 503, "model_loading")


@pytest.fixture
async def control() -> AsyncIterator[FakeControl]:
    control = FakeControl(limits=BatchLimits(clips=1, seconds=60.0))
    yield control
    control.release()


@pytest.fixture
async def engine_client(control: FakeControl) -> AsyncIterator[httpx.AsyncClient]:
    metrics = Metrics(CollectorRegistry())
    engine = Engine(control.load, LIMITS, Telemetry(metrics))
    app: FastAPI = create_app(engine, Settings(answer_cache_bytes=0), metrics)
    async with serving(app) as engine_client:
        await engine.wait_ready()
        yield engine_client
        control.release()


def post(engine_client: httpx.AsyncClient, request_id: str, **params: Any) -> asyncio.Task[httpx.Response]:
    headers = {"X-Request-ID": request_id, "Content-Type": "audio/wav"}
    sound = wav(seconds=0.5, channels=6)
    return asyncio.create_task(engine_client.post("/recognize", content=sound, headers=headers, params=params))


async def state(engine_client: httpx.AsyncClient, request_id: str) -> dict[str, Any]:
    response = await engine_client.get(f"/requests/{request_id}")
    assert response.status_code == 200
    answer: dict[str, Any] = response.json()
    return answer


async def wait_for_state(engine_client: httpx.AsyncClient, request_id: str, wanted: str) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        while (answer := await state(engine_client, request_id))["state"] != wanted:  # noqa: ASYNC110 - polled over HTTP
            await asyncio.sleep(0.002)
    return answer


async def test_the_queue_ahead_of_a_request_is_reported(engine_client: httpx.AsyncClient, control: FakeControl) -> None:
    assert await state(engine_client, "first") == {"state": "unknown"}
    assert (await post(engine_client, "earlier")).status_code == 200  # so that the speed is known
    control.run_gate.clear()
    first = post(engine_client, "first")
    assert await wait_for_state(engine_client, "first", "running") == {"state": "running"}
    second = post(engine_client, "second")
    answer = await wait_for_state(engine_client, "second", "queued")
    assert answer["ahead"] | {"wait": 0} == {"clips": 0, "audio_seconds": 0, "wait": 0}
    third = post(engine_client, "third")
    ahead = (await wait_for_state(engine_client, "third", "queued"))["ahead"]
    assert (ahead["clips"], ahead["audio_seconds"]) == (1, 0.5)
    assert ahead["wait"] >= 0
    control.run_gate.set()
    for answered in await asyncio.gather(first, second, third):
        assert answered.status_code == 200
        assert await state(engine_client, answered.json()["id"]) == {"state": "unknown"}


async def test_no_wait_is_estimated_before_the_first_run(
    engine_client: httpx.AsyncClient, control: FakeControl
) -> None:
    control.run_gate.clear()
    first = post(engine_client, "first")
    await wait_for_state(engine_client, "first", "running")
    second = post(engine_client, "second")  # sent only now, because of two requests the first decoded would run first
    assert (await wait_for_state(engine_client, "second", "queued"))["ahead"]["wait"] is None
    control.run_gate.set()
    assert {(await task).status_code for task in (first, second)} == {200}


async def test_of_several_clips_the_first_in_the_queue_counts(
    engine_client: httpx.AsyncClient, control: FakeControl
) -> None:
    control.run_gate.clear()
    first = post(engine_client, "first")
    await wait_for_state(engine_client, "first", "running")
    split = post(engine_client, "split", channels="split")
    assert (await wait_for_state(engine_client, "split", "queued"))["ahead"]["clips"] == 0
    control.run_gate.set()
    assert {(await task).status_code for task in (first, split)} == {200}


async def test_a_request_is_received_before_it_is_decoded(engine_client: httpx.AsyncClient) -> None:
    goes_on = asyncio.Event()
    sound = wav()

    async def slowly() -> AsyncIterator[bytes]:
        yield sound[:1000]
        await goes_on.wait()
        yield sound[1000:]

    headers = {"X-Request-ID": "slow", "Content-Type": "audio/wav"}
    task = asyncio.create_task(engine_client.post("/recognize", content=slowly(), headers=headers))
    await wait_for_state(engine_client, "slow", "receiving")
    goes_on.set()
    assert (await task).status_code == 200


async def test_a_request_of_a_disconnected_client_is_unknown(
    engine_client: httpx.AsyncClient, control: FakeControl
) -> None:
    control.run_gate.clear()
    task = post(engine_client, "gone")
    await wait_for_state(engine_client, "gone", "running")
    task.cancel()
    await wait_for_state(engine_client, "gone", "unknown")
