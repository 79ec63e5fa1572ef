"""API keys, rate limits and origins of streams."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.requests import HTTPConnection
from websockets.typing import Subprotocol

from service.api.middleware.api_keys import SUBPROTOCOL
from service.api.middleware.security_headers import check_origin
from service.settings.settings import Settings
from tests.api.double import RecognizerDouble
from tests.api.sockets import listening
from tests.api.stream.talking import refused, talking

NewApp = Callable[..., FastAPI]

KEY = "0123456789abcdef-first"
ODD_KEY = "with+every/kind.of~sign_=="
KEY_PROTOCOL = Subprotocol(f"bearer.{KEY}")
SERVICE_PROTOCOL = Subprotocol(SUBPROTOCOL)


async def test_streams_need_a_key(new_app: NewApp, recognizer: RecognizerDouble, registry: CollectorRegistry) -> None:
    async with listening(new_app(api_keys=f"{KEY},{ODD_KEY}")) as port:
        headers = await refused(port, 401, "key_missing")
        assert headers["www-authenticate"].startswith("Bearer ")
        await refused(port, 401, "key_invalid", {"x-api-key": "wrong"})
        await refused(port, 401, "key_invalid", subprotocols=[SERVICE_PROTOCOL, Subprotocol("bearer.wrong")])
        await refused(port, 401, "key_missing", subprotocols=[SERVICE_PROTOCOL])
        await refused(port, 401, "key_invalid", {"x-api-key": "wrong"}, subprotocols=[SERVICE_PROTOCOL, KEY_PROTOCOL])
        given: list[dict[str, Any]] = [
            {"headers": {"x-api-key": KEY}},
            {"headers": {"authorization": f"Bearer {KEY}"}},
            {"subprotocols": [SERVICE_PROTOCOL, KEY_PROTOCOL]},
            {"subprotocols": [KEY_PROTOCOL, SERVICE_PROTOCOL]},
            {"subprotocols": [SERVICE_PROTOCOL, Subprotocol(f"bearer.{quote(ODD_KEY, safe='')}")]},
        ]
        for each in given:
            async with talking(port, **each) as talk:
                await talk.start()
    assert registry.get_sample_value("ser_requests_rejected_total", {"reason": "key_missing"}) == 2
    assert registry.get_sample_value("ser_requests_rejected_total", {"reason": "key_invalid"}) == 3
    assert recognizer.streams == 0


async def test_a_key_among_the_subprotocols_is_neither_sent_back_nor_logged(
    new_app: NewApp, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with (
        listening(new_app(api_keys=KEY)) as port,
        talking(port, subprotocols=[KEY_PROTOCOL, SERVICE_PROTOCOL]) as talk,
    ):
        assert talk.connection.subprotocol == SERVICE_PROTOCOL
        response = talk.connection.response
        assert response is not None
        assert KEY not in str(response.headers)
        await talk.send("garbage")
        assert KEY not in str(await talk.rest())
    ours = [record for record in caplog.records if not record.name.startswith("websockets.client")]
    assert KEY not in str([record.getMessage() for record in ours])


async def test_a_stream_counts_as_one_request(new_app: NewApp) -> None:
    async with listening(new_app(rate_limit=1, rate_burst=2)) as port:
        for _ in range(2):
            async with talking(port) as talk:
                await talk.start()
        headers = await refused(port, 429, "rate_limited")
        assert 1 <= int(headers["retry-after"]) <= 60


ALLOWED_ORIGIN = "https://app.example.com"


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example.com",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "null",
        "",
        "https://app.example.com.evil.com",
        "http://app.example.com",
        "file://",
        "chrome-extension://abc",
        "http://evil.com/127.0.0.1:{port}",
        "http://127.0.0.1:{port}@evil.com",
    ],
)
async def test_pages_of_other_origins_are_refused(
    new_app: NewApp, recognizer: RecognizerDouble, registry: CollectorRegistry, origin: str
) -> None:
    async with listening(new_app(cors_origins=ALLOWED_ORIGIN)) as port:
        await refused(port, 403, "origin_forbidden", {"origin": origin.format(port=port)})
    assert registry.get_sample_value("ser_requests_rejected_total", {"reason": "origin_forbidden"}) == 1
    assert recognizer.streams == 0


async def test_pages_of_this_service_and_of_allowed_origins_are_accepted(new_app: NewApp) -> None:
    async with listening(new_app(cors_origins=ALLOWED_ORIGIN)) as port:
        for headers in (
            {"origin": ALLOWED_ORIGIN},
            {"origin": f"http://127.0.0.1:{port}"},
            {"origin": f"https://127.0.0.1:{port}"},  # a proxy terminates TLS
        ):
            async with talking(port, headers) as talk:
                await talk.start()


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://speech.example.com", "speech.example.com"),
        ("https://speech.example.com", "speech.example.com:443"),
        ("http://speech.example.com", "SPEECH.example.com:80"),
        ("http://[::1]:8000", "[::1]:8000"),
    ],
)
def test_default_ports_do_not_change_the_origin(origin: str, host: str) -> None:
    """The proxy passes on the Host header of the browser."""
    headers = [(b"origin", origin.encode()), (b"host", host.encode())]
    check_origin(HTTPConnection({"type": "websocket", "headers": headers}), Settings())
