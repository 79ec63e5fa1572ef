"""Trace headers from strangers: neither logged nor slow to parse, also where requests are traced."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from service.api.app import create_app
from service.api.trace_headers import drop_invalid_trace_headers
from service.observability.metrics import Metrics
from service.settings.settings import Settings
from tests.api.conftest import serving
from tests.api.double import RecognizerDouble

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
VALID = [
    (b"traceparent", PARENT),
    (b"traceparent", PARENT.replace(b"00-", b"cc-", 1) + b"-what-the-future-adds"),
    (b"tracestate", b"congo=t61rcWkgMzE"),
    (b"tracestate", b"rojo=00f067aa0ba902b7, congo = t61 rcW , ,\t1a/b@c_d*-=~".replace(b" = ", b"=")),
    (b"tracestate", b""),
    (b"tracestate", b"a=" + b"x" * 256),
]
INVALID = [
    (b"traceparent", PARENT + b"\x1b[31m"),
    (b"traceparent", PARENT + b"-" + b"x" * 500),
    (b"traceparent", b"x" * 31_000),
    (b"tracestate", b"forged line"),
    (b"tracestate", b"A=b"),
    (b"tracestate", b"a=b\x9b31m"),
    (b"tracestate", b"a=b,c"),
    (b"tracestate", b"a=b=c"),
    (b"tracestate", b"a=" + b"x" * 257),
    (b"tracestate", b"a=b," * 8000),
    (b"baggage", b"a=b"),
    (b"baggage", b'"\x1b[31m' * 5000),
]


@pytest.mark.parametrize("header", VALID)
def test_valid_headers_are_kept(header: tuple[bytes, bytes]) -> None:
    scope = {"type": "http", "headers": [(b"host", b"x"), header]}
    drop_invalid_trace_headers(scope)
    assert scope["headers"] == [(b"host", b"x"), header]


@pytest.mark.parametrize("header", INVALID)
def test_invalid_headers_are_dropped(header: tuple[bytes, bytes]) -> None:
    scope = {"type": "http", "headers": [(b"host", b"x"), header, (b"x-request-id", b"1")]}
    drop_invalid_trace_headers(scope)
    assert scope["headers"] == [(b"host", b"x"), (b"x-request-id", b"1")]


def test_several_headers_of_one_name_count_together() -> None:
    states = [(b"tracestate", b"a%d=%b" % (number, b"x" * 200)) for number in range(3)]
    scope = {"type": "http", "headers": states}
    drop_invalid_trace_headers(scope)
    assert scope["headers"] == []


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("header", INVALID)
async def test_no_text_of_strangers_is_logged(
    recognizer: RecognizerDouble, caplog: pytest.LogCaptureFixture, traced: bool, header: tuple[bytes, bytes]
) -> None:
    provider = TracerProvider(shutdown_on_exit=False) if traced else None
    settings = Settings(api_keys=(SecretStr("0123456789abcdef"),))
    app = create_app(recognizer, settings, Metrics(CollectorRegistry()), provider)
    headers = [header] if header[0] == b"traceparent" else [(b"traceparent", PARENT), header]
    async with serving(app) as client:
        assert (await client.get("/models", headers=headers)).status_code == 401
    assert [record.name for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    "accept", ["version=x", "version=" + "9" * 5000, "version=2.0\x9b.1; escaping=\x9b", ";" * 9000]
)
async def test_unusable_versions_of_metrics(
    new_app: Callable[..., FastAPI], caplog: pytest.LogCaptureFixture, accept: str
) -> None:
    value = f"application/openmetrics-text; {accept}".encode("latin-1")
    async with serving(new_app()) as client:
        assert (await client.get("/metrics", headers=[(b"accept", value)])).status_code == 200
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
