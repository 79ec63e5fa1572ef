from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, WebSocket
from starlette.responses import StreamingResponse
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.api.answers import check_problem
from tests.api.asgi import upload_scope
from tests.api.conftest import serving
from tests.api.double import RecognizerDouble
from tests.api.sockets import listening
from tests.api.sounds import wav
from tests.inference.running import until


async def test_cancelled_requests_are_answered_at_shutdown(
    client: httpx.AsyncClient, recognizer: RecognizerDouble
) -> None:
    """The server cancels the remaining requests at the end of its grace period."""
    recognizer.gate.clear()
    app = client._transport.app  # type: ignore[attr-defined]  # httpx has no public way to it
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if sent or receiving:
            await asyncio.sleep(30)
        receiving.append(True)
        return {"type": "http.request", "body": wav(), "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    receiving: list[bool] = []
    request = asyncio.create_task(app(upload_scope(wav()), receive, send))
    await until(lambda: recognizer.waiting == 1)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert sent[0]["status"] == 503
    assert b'"draining"' in sent[1]["body"]
    assert (b"retry-after", b"1") in sent[0]["headers"]
    assert (recognizer.cancelled, recognizer.permits) == (1, 0)


async def test_a_crash_during_a_response_aborts_it(new_app: Callable[..., FastAPI]) -> None:
    app = new_app()

    async def body() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError("crash")

    async def route() -> StreamingResponse:
        return StreamingResponse(body())

    app.add_api_route("/half", route)
    async with serving(app) as client:
        with pytest.raises(RuntimeError, match="crash"):
            await client.get("/half")


async def test_a_crash_before_a_websocket_is_accepted(
    new_app: Callable[..., FastAPI], caplog: pytest.LogCaptureFixture
) -> None:
    app = new_app()

    async def crash(_: WebSocket) -> None:
        raise RuntimeError("secret")

    app.add_api_websocket_route("/crash", crash)
    async with listening(app) as port:
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"ws://127.0.0.1:{port}/crash", proxy=None)
    response = caught.value.response
    document = json.loads(response.body)
    check_problem(document, 500, "internal_error")
    assert document["request_id"] == response.headers["x-request-id"]
    assert "secret" not in str(document)
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]
