"""Traces that the real command sends to a collector, and the matching log lines."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from tests.api.sounds import wav
from tests.observability.running import service
from tests.otlp import collector


def test_a_request_is_traced_and_logged_and_its_spans_are_sent_before_the_process_ends(tmp_path: Path) -> None:
    with collector() as (address, received):
        flags = ("--port", "0", "--traces", "--log-file-names")
        with service(tmp_path, *flags, OTEL_EXPORTER_OTLP_ENDPOINT=address) as server:
            file = {"file": ("call 1.wav", wav(0.5), "audio/wav")}
            response = httpx.post(f"{server.url}/recognize", files=file, timeout=30)
            assert httpx.get(f"{server.url}/readyz").status_code == 200
            assert server.stop() == 0
    trace = response.headers["traceparent"].split("-")[1]
    spans = {span.name: span for span in received.spans()}
    assert {*spans} == {"POST /recognize", "decode", "recognize", "queue", "preprocess", "inference"}
    assert {span.trace_id.hex() for span in spans.values()} == {trace}
    parents = {
        name: next((n for n, s in spans.items() if s.span_id == span.parent_span_id), "")
        for name, span in spans.items()
    }
    assert parents == {
        "POST /recognize": "",
        "decode": "POST /recognize",
        "recognize": "POST /recognize",
        "queue": "recognize",
        "preprocess": "recognize",
        "inference": "recognize",
    }
    inner = [spans[name] for name in ("queue", "preprocess", "inference")]
    assert spans["recognize"].start_time_unix_nano <= inner[0].start_time_unix_nano
    assert inner[-1].end_time_unix_nano <= spans["recognize"].end_time_unix_nano
    (line,) = [line for line in server.log.read_text().splitlines() if "service.requests: request" in line]
    assert f"trace_id={trace} method=POST route=/recognize status=200" in line
    assert 'files=1 file_names=["call 1.wav"] audio_seconds=0.5 decode_seconds=' in line
    assert re.search(rf"request_id={response.headers['x-request-id']}\b", line)
