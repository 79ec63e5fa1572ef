from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry import trace
from prometheus_client import CollectorRegistry
from starlette.responses import StreamingResponse

from tests.api.answers import problem
from tests.api.conftest import serving
from tests.api.double import RecognizerDouble
from tests.api.sounds import wav
from tests.inference.running import until

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("given", ["abc", "A.b-c_9", "x" * 128])
async def test_request_ids_are_echoed(client: httpx.AsyncClient, given: str) -> None:
    response = await client.get("/livez", headers={"x-request-id": given})
    assert response.headers["x-request-id"] == given


@pytest.mark.parametrize("given", [b"", b"a b", b"x" * 129, b"a\tb", b"\xe4", b"<script>", b'a"b', b"../../x", b"a;b"])
async def test_request_ids_that_could_do_harm_are_replaced(client: httpx.AsyncClient, given: bytes) -> None:
    response = await client.get("/nope", headers=[(b"x-request-id", given)])
    assert re.fullmatch("[0-9a-f]{32}", problem(response, 404, "not_found")["request_id"])


async def test_request_ids_are_made(client: httpx.AsyncClient) -> None:
    made = {(await client.get("/livez")).headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3


async def test_traces_are_continued(client: httpx.AsyncClient) -> None:
    response = await client.get("/livez", headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
    match = re.fullmatch(f"00-{TRACE}-([0-9a-f]{{16}})-01", response.headers["traceparent"])
    assert match is not None
    assert match[1] != "b7ad6b7169203331"


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "00",
        f"00-{TRACE}-0000000000000000-01",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"ff-{TRACE}-b7ad6b7169203331-01",
    ],
)
async def test_bad_traces_are_ignored(client: httpx.AsyncClient, given: str | None) -> None:
    response = await client.get("/livez", headers={} if given is None else {"traceparent": given})
    assert response.status_code == 200
    assert "traceparent" not in response.headers


async def test_the_span_of_the_telemetry_comes_first(client: httpx.AsyncClient) -> None:
    """Where OpenTelemetry is set up, FastAPI has opened a span of its own before any middleware."""
    own = trace.SpanContext(0x1234, 0x5678, is_remote=False)
    with trace.use_span(trace.NonRecordingSpan(own)):
        response = await client.get("/livez", headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
    assert response.headers["traceparent"].split("-")[1] == trace.format_trace_id(0x1234)


async def test_a_crash_is_logged_with_its_trace(
    client: httpx.AsyncClient, recognizer: RecognizerDouble, caplog: pytest.LogCaptureFixture
) -> None:
    recognizer.faults.append(RuntimeError("crash"))
    headers = {"content-type": "audio/wav", "x-request-id": "r-1", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    problem(await client.post("/recognize", content=wav(), headers=headers), 500, "internal_error")
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.__dict__["request_id"] == "r-1"
    assert record.__dict__["trace_id"] == TRACE


@pytest.mark.parametrize(
    ("method", "path", "route", "counted", "code"),
    [
        ("GET", "/livez", "/livez", "GET", "200"),
        ("GET", "/docs/assets/swagger-ui.css", "/docs/assets/{path}", "GET", "200"),
        ("GET", "/openapi.json", "/openapi.json", "GET", "200"),
        ("GET", "/recognize", "/recognize", "GET", "405"),
        ("POST", "/recognize", "/recognize", "POST", "415"),
        ("POST", "/recognize/batch", "/recognize/batch", "POST", "415"),
        ("GET", "/any/thing/else", "unmatched", "GET", "404"),
        ("BREW", "/", "/", "other", "405"),
        ("BREW", "/pot", "unmatched", "other", "404"),
    ],
)
async def test_requests_are_counted_by_template(
    client: httpx.AsyncClient,
    registry: CollectorRegistry,
    method: str,
    path: str,
    route: str,
    counted: str,
    code: str,
) -> None:
    await client.request(method, path)
    labels = {"route": route, "method": counted, "code": code}
    assert registry.get_sample_value("ser_http_requests_total", labels) == 1
    assert registry.get_sample_value("ser_http_request_duration_seconds_count", {"route": route}) == 1


class Paced:
    """A body in pieces, each after a pause."""

    def __init__(self, first: bytes, *pauses: float) -> None:
        self.pieces = [(pause, b"x") for pause in pauses]
        self.pieces[0] = (pauses[0], first)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for pause, piece in self.pieces:
            await asyncio.sleep(pause)
            yield piece


@pytest.mark.parametrize(
    ("limits", "pauses", "reason"),
    [
        ({"body_timeout": 60, "body_idle_timeout": 0.2}, (0.0, 60.0), "within 0.2 seconds since its last byte"),
        ({"body_timeout": 0.4, "body_idle_timeout": 60}, (0.05,) * 1000, "within 0.4 seconds"),
    ],
)
@pytest.mark.parametrize("media", ["audio/wav", "multipart/form-data; boundary=x"])
async def test_slow_bodies(
    new_app: Callable[..., FastAPI],
    recognizer: RecognizerDouble,
    registry: CollectorRegistry,
    limits: dict[str, float],
    pauses: tuple[float, ...],
    reason: str,
    media: str,
) -> None:
    first = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    async with serving(new_app(**limits)) as client:
        response = await client.post("/recognize", content=Paced(first, *pauses), headers={"content-type": media})
        assert reason in problem(response, 408, "upload_timeout")["detail"]
        assert response.headers["connection"] == "close"
    assert recognizer.permits == 0
    labels = {"route": "/recognize", "method": "POST", "code": "408"}
    assert registry.get_sample_value("ser_http_requests_total", labels) == 1


async def test_a_slow_but_steady_body(new_app: Callable[..., FastAPI], monkeypatch: pytest.MonkeyPatch) -> None:
    clip = wav(0.1)
    size = len(clip) // 5 + 1
    loop = asyncio.get_running_loop()
    time, ahead = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: time() + ahead)

    async def body() -> AsyncIterator[bytes]:
        nonlocal ahead
        for begin in range(0, len(clip), size):
            await asyncio.sleep(0)
            ahead += 20.0
            yield clip[begin : begin + size]

    async with serving(new_app(body_idle_timeout=30, body_timeout=300, timeout=300)) as client:
        response = await client.post("/recognize", content=body(), headers={"content-type": "audio/wav"})
        assert response.status_code == 200


async def test_waiting_for_the_answer_is_not_a_slow_body(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble
) -> None:
    recognizer.gate.clear()
    async with serving(new_app(body_timeout=0.1, body_idle_timeout=0.05)) as client:
        asking = asyncio.create_task(client.post("/recognize", content=wav(), headers={"content-type": "audio/wav"}))
        await asyncio.sleep(0.3)
        recognizer.gate.set()
        assert (await asking).status_code == 200


async def test_shutdown_answers_what_it_cuts_off(client: httpx.AsyncClient, recognizer: RecognizerDouble) -> None:
    """A server whose grace is over cancels its requests."""
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
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/recognize",
        "raw_path": b"/recognize",
        "query_string": b"",
        "headers": [(b"content-type", b"audio/wav"), (b"content-length", str(len(wav())).encode())],
    }
    request = asyncio.create_task(app(scope, receive, send))
    await until(lambda: recognizer.waiting == 1)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert sent[0]["status"] == 503
    assert b'"draining"' in sent[1]["body"]
    assert (b"retry-after", b"1") in sent[0]["headers"]
    assert (recognizer.cancelled, recognizer.permits) == (1, 0)


async def test_a_crash_in_the_middle_of_an_answer_does_not_pass_for_its_end(new_app: Callable[..., FastAPI]) -> None:
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


async def test_the_lifespan_starts_and_drains_the_recognizer(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble
) -> None:
    async with serving(new_app(drain_timeout=7)) as client:
        assert (recognizer.started, recognizer.drained) == (1, [])
        assert (await client.get("/livez")).status_code == 200
    assert (recognizer.started, recognizer.drained) == (1, [7.0])
