"""Errors of `POST /recognize`: deadlines, refusals, failures, limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from service.errors import (
    DeadlineExceeded,
    Draining,
    InferenceFailed,
    ModelLoading,
    QueueFull,
    ServiceError,
    WorkerDead,
)
from tests.api.answers import problem
from tests.api.conftest import serving
from tests.api.double import RecognizerDouble
from tests.api.sounds import AS_WAV, CLIP, wav


async def test_the_deadline_of_the_service(new_app: Callable[..., FastAPI], recognizer: RecognizerDouble) -> None:
    recognizer.gate.clear()
    async with serving(new_app(timeout=0.2)) as client:
        for params in ({}, {"timeout": "60"}):
            problem(
                await client.post("/recognize", content=CLIP, headers=AS_WAV, params=params), 504, "deadline_exceeded"
            )
    assert recognizer.permits == 0


@pytest.mark.parametrize("where", ["query", "form"])
async def test_clients_may_shorten_the_deadline(
    client: httpx.AsyncClient, recognizer: RecognizerDouble, where: str
) -> None:
    recognizer.gate.clear()
    began = asyncio.get_running_loop().time()
    options = {"timeout": "0.2"}
    response = await client.post(
        "/recognize",
        files={"file": ("a", CLIP)},
        params=options if where == "query" else {},
        data=options if where == "form" else {},
    )
    problem(response, 504, "deadline_exceeded")
    assert asyncio.get_running_loop().time() - began < 30


async def test_the_deadline_holds_while_decoding(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, registry: CollectorRegistry
) -> None:
    release = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()

    def slow(*_: Any, **__: Any) -> None:
        asyncio.run_coroutine_threadsafe(asyncio.wait_for(asyncio.shield(release), 10), loop).result()

    monkeypatch.setattr("service.recognition.file.decode", slow)
    response = await client.post("/recognize", content=CLIP, headers=AS_WAV, params={"timeout": "0.1"})
    problem(response, 504, "deadline_exceeded")
    release.set_result(None)
    assert registry.get_sample_value("ser_requests_cancelled_total") == 0


@pytest.mark.parametrize(
    ("refusal", "status", "wait"),
    [
        (QueueFull("Full.", 2.1), 429, "3"),
        (QueueFull("Full.", 0.0), 429, "1"),
        (ModelLoading("Loading."), 503, "1"),
        (Draining("Draining."), 503, "1"),
        (WorkerDead("Dead.", 17), 503, "17"),
    ],
)
@pytest.mark.parametrize("path", ["/recognize", "/recognize/batch"])
async def test_refusals_are_sent_before_the_body_is_read(
    client: httpx.AsyncClient,
    recognizer: RecognizerDouble,
    path: str,
    refusal: QueueFull,
    status: int,
    wait: str,
) -> None:
    class Untouched:
        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            raise AssertionError("the body was read")

    recognizer.refusals.append(refusal)
    # A small declared length, so that the connection does not linger.
    response = await client.post(path, content=Untouched(), headers={**AS_WAV, "content-length": "10"})
    document = problem(response, status, refusal.code)
    assert document["detail"] == refusal.detail
    assert response.headers["retry-after"] == wait
    assert recognizer.permits == 0


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (QueueFull("Full."), 429, "queue_full"),
        (WorkerDead("Dead."), 503, "worker_dead"),
        (DeadlineExceeded("Late."), 504, "deadline_exceeded"),
        (InferenceFailed("Failed."), 500, "inference_failed"),
    ],
)
async def test_failures_of_the_inference(
    client: httpx.AsyncClient, recognizer: RecognizerDouble, fault: ServiceError, status: int, code: str
) -> None:
    recognizer.faults.append(fault)
    response = await client.post("/recognize", content=CLIP, headers=AS_WAV)
    assert problem(response, status, code)["detail"] == fault.detail
    assert ("retry-after" in response.headers) == (status in (429, 503))


async def test_one_channel_that_fails_stops_the_others(client: httpx.AsyncClient, recognizer: RecognizerDouble) -> None:
    recognizer.faults += [None, InferenceFailed("Failed.")]
    response = await client.post("/recognize", content=wav(channels=3), headers=AS_WAV, params={"channels": "split"})
    problem(response, 500, "inference_failed")
    assert recognizer.waiting == 0


async def test_a_crash_reveals_nothing(
    client: httpx.AsyncClient, recognizer: RecognizerDouble, caplog: pytest.LogCaptureFixture
) -> None:
    recognizer.faults.append(RuntimeError("secret path /etc/x"))
    response = await client.post("/recognize", content=CLIP, headers={**AS_WAV, "x-request-id": "crash-1"})
    assert problem(response, 500, "internal_error")["title"] == "The service failed"
    assert "secret" not in response.text
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "crash-1" in record.getMessage()
    assert record.exc_info is not None
    assert "secret" in str(record.exc_info[1])
    assert recognizer.permits == 0


async def test_an_internal_error_with_a_detail_reveals_nothing(
    client: httpx.AsyncClient, recognizer: RecognizerDouble, caplog: pytest.LogCaptureFixture
) -> None:
    recognizer.faults.append(ServiceError("secret path /etc/x"))
    response = await client.post("/recognize", content=CLIP, headers=AS_WAV)
    problem(response, 500, "internal_error")
    assert "secret" not in response.text
    assert "secret" in caplog.text


@pytest.mark.parametrize("declared", [True, False])
async def test_bodies_over_the_limit(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble, declared: bool
) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield bytes(1000)

    async with serving(new_app(max_body_bytes=5000)) as client:
        headers = {**AS_WAV, "content-length": "100000"} if declared else AS_WAV
        response = await client.post("/recognize", content=body(), headers=headers)
        assert "5000 bytes" in problem(response, 413, "body_too_large")["detail"]
        files = {"file": ("a", bytes(6000))}
        problem(await client.post("/recognize", files=files), 413, "body_too_large")
        assert (await client.post("/recognize", content=wav(0.05), headers=AS_WAV)).status_code == 200
    assert recognizer.permits == 0
