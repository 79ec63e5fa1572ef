from __future__ import annotations

import logging
import re

import httpx
import pytest
from opentelemetry import trace
from prometheus_client import CollectorRegistry

from tests.api.answers import problem
from tests.api.double import RecognizerDouble
from tests.api.sounds import wav

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("given", ["abc", "A.b-c_9", "x" * 128])
async def test_valid_request_ids_are_used(client: httpx.AsyncClient, given: str) -> None:
    response = await client.get("/livez", headers={"x-request-id": given})
    assert response.headers["x-request-id"] == given


@pytest.mark.parametrize("given", [b"", b"a b", b"x" * 129, b"a\tb", b"\xe4", b"<script>", b'a"b', b"../../x", b"a;b"])
async def test_unsafe_request_ids_are_replaced(client: httpx.AsyncClient, given: bytes) -> None:
    response = await client.get("/nope", headers=[(b"x-request-id", given)])
    assert re.fullmatch("[0-9a-f]{32}", problem(response, 404, "not_found")["request_id"])


async def test_missing_request_ids_are_created(client: httpx.AsyncClient) -> None:
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


async def test_the_span_of_fastapi_takes_precedence(client: httpx.AsyncClient) -> None:
    """With OpenTelemetry, FastAPI opens a span before any middleware."""
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
        ("POST", "/recognize", "/recognize", "POST", "422"),
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
