"""The export of spans, to a collector that answers and to one that does not."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from service.errors import MissingExtra
from service.observability.tracing import exporting
from tests.otlp import collector

PROGRAM = """
import os, sys
import service.api.app, service.api.server.server
from service.observability import tracing
from service.observability.tracing import exporting
tracing._CLOSE_SECONDS = float(os.environ.get("CLOSE_SECONDS", tracing._CLOSE_SECONDS))
with exporting(sys.argv[1] == "on") as provider:
    if provider is not None:
        provider.get_tracer("test").start_span("hello").end()
print("opentelemetry.sdk" in sys.modules)
"""


def run(traces: str, **variables: str) -> tuple[str, float]:
    """What the program prints, and how many seconds it took."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, traces],
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip(), time.monotonic() - began


def test_without_traces_the_sdk_is_not_imported() -> None:
    assert run("off")[0] == "False"


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "emotion2vec-service"),
        ({"OTEL_SERVICE_NAME": "mine"}, "mine"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=ours,team=x"}, "ours"),
    ],
)
def test_spans_are_sent_before_the_process_ends(variables: dict[str, str], name: str) -> None:
    with collector() as (address, received):
        run("on", CLOSE_SECONDS="30", OTEL_EXPORTER_OTLP_ENDPOINT=address, **variables)
    assert [span.name for span in received.spans()] == ["hello"]
    attributes = received.resource()
    assert attributes["service.name"] == name
    assert attributes["service.version"]


def test_an_absent_collector_delays_the_end_of_the_process_only_briefly() -> None:
    without = run("off")[1]
    address = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "60"}
    assert run("on", **address)[1] - without < 15  # the SDK itself would wait for 30


def test_a_missing_sdk_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(MissingExtra, match=r"'\.\[otel\]'"), exporting(True):
        pass
