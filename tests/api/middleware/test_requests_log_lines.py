from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.errors import QueueFull
from tests.api.asgi import upload_scope
from tests.api.conftest import serving
from tests.api.double import RecognizerDouble
from tests.api.sounds import wav
from tests.inference.running import until

TRACE = "0af7651916cd43dd8448eb211c80319c"
ALWAYS = {"request_id", "method", "route", "status", "seconds"}
STAGE_FIELDS = {"decode_seconds", "queue_seconds", "preprocess_seconds", "inference_seconds"}
FORM_FIELDS = {"granularity": "frame"}


@pytest.fixture(autouse=True)
def every_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "service.requests")


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The fields of the log lines so far."""
    plain = vars(logging.makeLogRecord({})).keys() | {"message", "asctime", "taskName"}
    return [
        {name: value for name, value in vars(record).items() if name not in plain}
        for record in caplog.records
        if record.name == "service.requests"
    ]


def form(*names: str) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("files" if len(names) > 1 else "file", (name, wav(0.5), "audio/wav")) for name in names]


async def test_an_answer(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    headers = {"x-request-id": "r-1", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    response = await client.post("/recognize?window=1", files=form("secret.wav"), data=FORM_FIELDS, headers=headers)
    assert response.status_code == 200
    (line,) = lines(caplog)
    assert line.keys() == ALWAYS | STAGE_FIELDS | {"trace_id", "files", "audio_seconds"}
    assert (line["request_id"], line["trace_id"]) == ("r-1", TRACE)
    assert (line["method"], line["route"], line["status"]) == ("POST", "/recognize", 200)
    assert (line["files"], line["audio_seconds"]) == (1, 0.5)
    assert [line[f"{stage}_seconds"] for stage in ("queue", "preprocess", "inference")] == [0.001, 0.002, 0.003]
    assert 0 < line["decode_seconds"] < line["seconds"]


async def test_the_stages_equal_those_of_the_response(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    response = await client.post("/recognize", files=form("a.wav"))
    (line,) = lines(caplog)
    expected = [f"{stage};dur={1000 * line[f'{stage}_seconds']:.3f}" for stage in ("decode", "queue")]
    assert response.headers["server-timing"].split(", ")[:2] == expected


async def test_a_raw_body(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    await client.post("/recognize", content=wav(0.25), headers={"content-type": "audio/wav"})
    (line,) = lines(caplog)
    assert (line["files"], line["audio_seconds"]) == (1, 0.25)


async def test_refusals_are_logged_with_their_code(
    client: httpx.AsyncClient, recognizer: RecognizerDouble, caplog: pytest.LogCaptureFixture
) -> None:
    recognizer.refusals.append(QueueFull("full"))
    await client.post("/recognize", files=form("a.wav"))
    await client.post("/recognize", content=b"no audio", headers={"content-type": "audio/wav"})
    await client.post("/recognize?granularty=frame", files=form("a.wav"))
    await client.post("/nope/secret?token=secret")
    refused, bad, unknown, lost = lines(caplog)
    assert refused.keys() == ALWAYS | {"code"}
    assert (refused["status"], refused["code"]) == (429, "queue_full")
    assert bad.keys() == ALWAYS | {"code", "files"}
    assert (bad["status"], bad["code"]) == (415, "audio_not_decodable")
    assert (unknown["status"], unknown["code"]) == (422, "invalid_options")
    assert (lost["route"], lost["status"], lost["code"]) == ("unmatched", 404, "not_found")
    assert "secret" not in str(lost)


async def test_a_failure_after_decoding_is_logged_with_the_stages_reached(
    client: httpx.AsyncClient, recognizer: RecognizerDouble, caplog: pytest.LogCaptureFixture
) -> None:
    recognizer.faults.append(RuntimeError("crash"))
    await client.post("/recognize", files=form("a.wav"))
    (line,) = lines(caplog)
    assert line.keys() == ALWAYS | {"code", "files", "audio_seconds", "decode_seconds"}
    assert (line["status"], line["code"]) == (500, "internal_error")


async def test_a_batch(
    client: httpx.AsyncClient, recognizer: RecognizerDouble, caplog: pytest.LogCaptureFixture
) -> None:
    files = [*form("a.wav", "b.wav"), ("files", ("c.wav", b"no audio", "audio/wav"))]
    response = await client.post("/recognize/batch", files=files)
    assert response.status_code == 200
    (line,) = lines(caplog)
    assert line.keys() == ALWAYS | STAGE_FIELDS | {"files", "failed_files", "audio_seconds"}
    assert (line["route"], line["files"], line["failed_files"]) == ("/recognize/batch", 3, 1)
    assert line["audio_seconds"] == 1.0


async def test_a_client_that_disconnects(
    client: httpx.AsyncClient, recognizer: RecognizerDouble, caplog: pytest.LogCaptureFixture
) -> None:
    recognizer.gate.clear()
    app = client._transport.app  # type: ignore[attr-defined]  # httpx has no public way to it
    body = wav(0.5)
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not messages:
            await until(lambda: recognizer.waiting == 1)
            return {"type": "http.disconnect"}
        return messages.pop()

    async def send(message: dict[str, Any]) -> None:
        raise AssertionError("the client has disconnected")

    async with asyncio.timeout(10):
        await app(upload_scope(body), receive, send)
    (line,) = lines(caplog)
    assert line.keys() == ALWAYS | {"files", "audio_seconds", "decode_seconds"}
    assert line["status"] == 499


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
@pytest.mark.parametrize("state", ["ready", "draining"])
async def test_probes_and_scrapes_are_not_logged(
    client: httpx.AsyncClient, recognizer: RecognizerDouble, caplog: pytest.LogCaptureFixture, path: str, state: Any
) -> None:
    recognizer.state = state
    await client.get(path)
    await client.get("/models")
    assert [line["route"] for line in lines(caplog)] == ["/models"]


async def test_file_names_are_logged_by_setting(
    new_app: Callable[..., FastAPI], caplog: pytest.LogCaptureFixture
) -> None:
    long = "ü" * 300
    async with serving(new_app(log_file_names=True)) as client:
        await client.post("/recognize/batch", files=form("call of Ms X.wav", f"{long}.wav"))
        await client.post("/recognize", content=wav(0.25), headers={"content-type": "audio/wav"})
    batch, raw = lines(caplog)
    assert batch["file_names"] == ["call of Ms X.wav", "ü" * 255]
    assert "file_names" not in raw


async def test_no_line_is_written_without_the_setting(
    new_app: Callable[..., FastAPI], caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(new_app(access_log=False)) as client:
        await client.get("/models")
    assert lines(caplog) == []


async def test_no_line_is_written_at_a_higher_level(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "service.requests")
    await client.get("/models")
    assert lines(caplog) == []
