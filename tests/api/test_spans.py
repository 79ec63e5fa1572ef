"""Traces with the OpenTelemetry SDK and an exporter in memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from itertools import pairwise

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id
from prometheus_client import CollectorRegistry

from service.api.app import create_app
from service.errors import DeadlineExceeded, InferenceFailed, QueueFull
from service.observability.metrics import Metrics
from service.settings.settings import Settings
from tests.api.conftest import serving
from tests.api.double import RecognizerDouble
from tests.api.sounds import call, wav
from tests.inference.running import until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STAGES = ["queue", "preprocess", "inference"]
AS_WAV = {"content-type": "audio/wav"}


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
async def client(recognizer: RecognizerDouble, exporter: InMemorySpanExporter) -> AsyncIterator[httpx.AsyncClient]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = create_app(
        recognizer, Settings(root_path="/ser", answer_cache_bytes=0), Metrics(CollectorRegistry()), provider
    )
    async with serving(app, "/ser") as client:
        yield client


def below(spans: tuple[ReadableSpan, ...], parent: ReadableSpan) -> list[ReadableSpan]:
    """The children of a span, by the time at which they begin."""
    children = [span for span in spans if span.parent and span.parent.span_id == parent.context.span_id]
    return sorted(children, key=lambda span: (span.start_time, span.end_time))


def names(spans: list[ReadableSpan]) -> list[str]:
    return [span.name for span in spans]


def root(spans: tuple[ReadableSpan, ...]) -> ReadableSpan:
    (server,) = [span for span in spans if span.kind is SpanKind.SERVER]
    return server


async def test_the_stages_of_a_request_are_its_child_spans(
    client: httpx.AsyncClient, exporter: InMemorySpanExporter
) -> None:
    headers = {**AS_WAV, "x-request-id": "r-1", "traceparent": f"00-{TRACE}-{PARENT}-01"}
    response = await client.post("/recognize", content=wav(), headers=headers)
    spans = exporter.get_finished_spans()
    server = root(spans)
    assert server.name == "POST /ser/recognize"
    assert server.parent is not None
    assert (format_trace_id(server.context.trace_id), format_span_id(server.parent.span_id)) == (TRACE, PARENT)
    assert server.attributes is not None
    assert server.attributes["request.id"] == "r-1"
    assert server.attributes["http.response.status_code"] == 200
    assert response.headers["traceparent"] == f"00-{TRACE}-{format_span_id(server.context.span_id)}-01"
    decode, recognize = below(spans, server)
    assert names([decode, recognize]) == ["decode", "recognize"]
    stages = below(spans, recognize)
    assert names(stages) == STAGES
    assert len(spans) == 6
    assert all(span.status.status_code is StatusCode.UNSET for span in spans)


async def test_the_stages_follow_one_another_within_the_request(
    client: httpx.AsyncClient, recognizer: RecognizerDouble, exporter: InMemorySpanExporter
) -> None:
    recognizer.gate.clear()
    asking = asyncio.create_task(client.post("/recognize", content=wav(), headers=AS_WAV))
    await until(lambda: recognizer.waiting == 1)
    await asyncio.sleep(0.02)  # the double reports 6 ms
    recognizer.gate.set()
    await asking
    spans = exporter.get_finished_spans()
    by_name = {span.name: span for span in spans}
    times = [(by_name[name].start_time or 0, by_name[name].end_time or 0) for name in ("decode", *STAGES)]
    server = root(spans)
    assert (server.start_time or 0) <= times[0][0]
    for (_, end), (begin, _) in pairwise(times):
        assert end <= begin
    assert [(end - begin) / 1e6 for begin, end in times[1:]] == [1.0, 2.0, 3.0]
    assert times[-1][1] <= (server.end_time or 0)


async def test_every_channel_and_every_file_has_spans(
    client: httpx.AsyncClient, exporter: InMemorySpanExporter
) -> None:
    files = [("files", (name, wav(channels=2), "audio/wav")) for name in ("a", "b")]
    await client.post("/recognize/batch?channels=split", files=files)
    children = below(exporter.get_finished_spans(), root(exporter.get_finished_spans()))
    assert sorted(names(children)) == ["decode"] * 2 + ["recognize"] * 4


async def test_the_log_names_the_trace(
    client: httpx.AsyncClient, exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "service.requests")
    await client.post("/recognize", content=wav(), headers=AS_WAV)
    (line,) = [record for record in caplog.records if record.name == "service.requests"]
    assert vars(line)["trace_id"] == format_trace_id(root(exporter.get_finished_spans()).context.trace_id)


async def test_errors_are_named_by_their_codes(
    client: httpx.AsyncClient, recognizer: RecognizerDouble, exporter: InMemorySpanExporter
) -> None:
    recognizer.faults.append(DeadlineExceeded("too late"))
    await client.post("/recognize", content=wav(), headers=AS_WAV)
    spans = exporter.get_finished_spans()
    server, (decode, recognize) = root(spans), below(spans, root(spans))
    assert server.attributes is not None
    assert server.attributes["problem.code"] == "deadline_exceeded"
    assert server.status.status_code is StatusCode.ERROR
    assert decode.status.status_code is StatusCode.UNSET
    assert (recognize.attributes or {})["error.type"] == "deadline_exceeded"
    assert recognize.status.status_code is StatusCode.ERROR
    assert below(spans, recognize) == []


async def test_spans_contain_nothing_of_exceptions_or_uploads(
    client: httpx.AsyncClient, recognizer: RecognizerDouble, exporter: InMemorySpanExporter
) -> None:
    recognizer.faults.append(RuntimeError("a secret"))
    await client.post("/recognize", files={"file": ("a secret.wav", wav(), "audio/wav")})
    await client.post("/recognize", files={"file": ("a secret.wav", b"a secret", "audio/wav")})
    assert "a secret" not in "".join(span.to_json() for span in exporter.get_finished_spans())
    failed = [(span.attributes or {}).get("error.type") for span in exporter.get_finished_spans()]
    assert {"RuntimeError", "audio_not_decodable"} <= set(failed)


async def test_a_refusal_has_no_stages(
    client: httpx.AsyncClient, recognizer: RecognizerDouble, exporter: InMemorySpanExporter
) -> None:
    recognizer.refusals.append(QueueFull("full"))
    await client.post("/recognize", content=wav(), headers=AS_WAV)
    (server,) = exporter.get_finished_spans()
    assert (server.attributes or {})["problem.code"] == "queue_full"
    assert server.status.status_code is StatusCode.UNSET  # as OpenTelemetry's conventions ask for errors of the client


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
async def test_probes_and_scrapes_have_no_span(
    client: httpx.AsyncClient, exporter: InMemorySpanExporter, path: str
) -> None:
    assert (await client.get(f"/ser{path}")).status_code == 200
    await client.get("/ser/models")
    assert names([*exporter.get_finished_spans()]) == ["GET /ser/models"]


async def test_an_unsampled_request_has_no_spans_and_keeps_its_trace(
    recognizer: RecognizerDouble, exporter: InMemorySpanExporter
) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = create_app(recognizer, Settings(answer_cache_bytes=0), Metrics(CollectorRegistry()), provider)
    async with serving(app) as client:
        headers = {**AS_WAV, "traceparent": f"00-{TRACE}-{PARENT}-00"}
        response = await client.post("/recognize", content=wav(), headers=headers)
    assert response.headers["traceparent"].split("-")[1] == TRACE
    assert exporter.get_finished_spans() == ()


async def test_without_a_provider_the_global_one_is_not_used(
    new_app: Callable[..., FastAPI], exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    app = new_app()
    async with serving(app) as client:
        response = await client.post("/recognize", content=wav(), headers=AS_WAV)
    assert response.status_code == 200
    assert "traceparent" not in response.headers
    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize("accept", ["*/*", "application/x-ndjson"])
async def test_each_utterance_of_a_long_recording_has_its_stages(
    client: httpx.AsyncClient, exporter: InMemorySpanExporter, accept: str
) -> None:
    sound = call(12.0, [(1.0, 4.0), (7.0, 10.0)])
    params = {"granularity": "segment"}
    response = await client.post("/recognize", content=sound, headers={**AS_WAV, "Accept": accept}, params=params)
    assert response.status_code == 200
    spans = exporter.get_finished_spans()
    decode, *recognized = below(spans, root(spans))
    assert decode.name == "decode"
    assert names(recognized) == ["recognize"] * 2
    assert all(names(below(spans, each)) == STAGES for each in recognized)


async def test_a_problem_in_the_last_line_is_in_the_span(
    client: httpx.AsyncClient, exporter: InMemorySpanExporter, recognizer: RecognizerDouble
) -> None:
    recognizer.faults.append(InferenceFailed("Failed."))
    params = {"granularity": "segment"}
    headers = {**AS_WAV, "Accept": "application/x-ndjson"}
    await client.post("/recognize", content=call(6.0, [(1.0, 4.0)]), headers=headers, params=params)
    attributes = root(exporter.get_finished_spans()).attributes
    assert attributes is not None
    assert attributes["problem.code"] == "inference_failed"
