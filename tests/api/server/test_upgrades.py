"""Requests with `Upgrade`: one request, one answer, whatever the packets are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest
from fastapi import FastAPI

from tests.api.double import RecognizerDouble
from tests.api.sockets import connected, head, listening
from tests.api.sounds import wav

CLIP = wav()
INNER = b"GET /models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQBAAAAAAUAAEAA\r\n"

Packets = Callable[[bytes, bytes], list[bytes]]
PACKETS: dict[str, Packets] = {
    "one packet": lambda start, body: [start + body],
    "two packets": lambda start, body: [start, body],
    "pieces": lambda start, body: [start[:30], start[30:-3], start[-3:], body[:20], body[20:]],
}


def asking(upgrade: bytes, start: bytes) -> bytes:
    """The headers `start` with those that ask for an upgrade."""
    return start.removesuffix(b"\r\n") + upgrade + b"\r\n"


@pytest.mark.parametrize("packets", PACKETS.values(), ids=PACKETS.keys())
@pytest.mark.parametrize("length", [len(CLIP), None], ids=["length", "chunked"])
async def test_the_body_of_a_request_that_offers_http_2_is_its_body(
    new_app: Callable[..., FastAPI], packets: Packets, length: int | None
) -> None:
    body = CLIP if length else b"%x\r\n" % len(CLIP) + CLIP + b"\r\n0\r\n\r\n"
    async with listening(new_app()) as port, connected(port) as connection:
        for _ in range(2):  # the connection is kept
            for packet in packets(asking(H2C, head(length)), body):
                await connection.send(packet)
                await asyncio.sleep(0.01)
            status, headers, answer = await connection.response()
            assert status == 200
            assert "upgrade" not in headers
            assert answer["audio"]["duration"] == 0.5


@pytest.mark.parametrize("packets", PACKETS.values(), ids=PACKETS.keys())
@pytest.mark.parametrize("protocol", [b"h2c", b"TLS/1.0", b"websocket, h2c"])
@pytest.mark.parametrize("path", ["/recognize", "/stream"])
async def test_a_body_that_looks_like_a_request_is_not_answered(
    new_app: Callable[..., FastAPI], packets: Packets, protocol: bytes, path: str
) -> None:
    start = asking(b"Connection: Upgrade\r\nUpgrade: %b\r\n" % protocol, head(len(INNER), path))
    async with listening(new_app()) as port, connected(port) as connection:
        for packet in packets(start, INNER):
            await connection.send(packet)
            await asyncio.sleep(0.01)
        status, _, answer = await connection.response()
        assert (status, "models" in answer) == (415 if path == "/recognize" else 404, False)
        await connection.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await connection.response())[2] == {"status": "alive"}


async def test_what_follows_the_refused_opening_of_a_websocket_is_not_answered(new_app: Callable[..., FastAPI]) -> None:
    start = asking(b"Connection: Upgrade\r\nUpgrade: websocket\r\n", head(len(INNER), "/stream"))
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(start)
        with suppress(ConnectionError):
            await connection.send(INNER)
        received = await connection.closed()
        assert received.count(b"HTTP/1.1 ") == 1
        assert b'"models"' not in received


async def test_requests_after_one_that_offers_http_2(new_app: Callable[..., FastAPI]) -> None:
    start = asking(H2C, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(start * 2 + INNER)
        answers = [await connection.response() for _ in range(3)]
        assert [status for status, _, _ in answers] == [200] * 3
        assert "models" in answers[2][2]


async def test_headers_before_the_new_parser_count(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble
) -> None:
    async with listening(new_app(), max_header_bytes=2000) as port, connected(port) as connection:
        await connection.send(asking(H2C + b"X: " + b"x" * 2000 + b"\r\n", head(len(CLIP))))
        await connection.problem(431, "headers_too_large")
    assert recognizer.permits == 0


@pytest.mark.parametrize("target", [b"localhost:80", b"/livez"])
async def test_there_is_no_tunnel(new_app: Callable[..., FastAPI], target: bytes) -> None:
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(b"CONNECT %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % target + INNER)
        await connection.problem(400, "malformed_request")
        assert await connection.closed() == b""
