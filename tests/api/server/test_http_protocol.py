"""The limits on headers and pipelining, on real sockets."""

from __future__ import annotations

import asyncio
import logging
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest
from fastapi import FastAPI, Request

from tests.api.double import RecognizerDouble
from tests.api.sockets import Connection, connected, head, http_client, listening
from tests.api.sounds import wav
from tests.inference.running import until

GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = head(None)


async def test_headers_within_the_limits(new_app: Callable[..., FastAPI]) -> None:
    async with listening(new_app(), max_header_bytes=2000, max_headers=10) as port, connected(port) as connection:
        for _ in range(3):
            await connection.send(GET + b"X-Long: " + b"x" * 1900 + b"\r\n\r\n")
            assert (await connection.response())[0] == 200
            await connection.send(GET + b"X-Another: 1\r\n" * 9 + b"\r\n")
            assert (await connection.response())[0] == 200


TOO_MUCH = {
    "one long header": GET + b"X-Long: " + b"x" * 2100 + b"\r\n\r\n",
    "many bytes in all": GET + b"".join(b"X-%d: " % n + b"x" * 300 + b"\r\n" for n in range(8)) + b"\r\n",
    "a long query": b"GET /livez?" + b"x" * 2100 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a long name": GET + b"X" * 2100 + b": 1\r\n\r\n",
    "many headers": GET + b"A: 1\r\n" * 10 + b"\r\n",
    "an upgrade": GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\nX: " + b"x" * 2100 + b"\r\n\r\n",
}


@pytest.mark.parametrize("request_head", TOO_MUCH.values(), ids=TOO_MUCH.keys())
async def test_headers_past_the_limits(
    new_app: Callable[..., FastAPI], caplog: pytest.LogCaptureFixture, request_head: bytes
) -> None:
    async with listening(new_app(), max_header_bytes=2000, max_headers=10) as port:
        async with connected(port) as connection:
            await connection.send(request_head)
            headers = await connection.problem(431, "headers_too_large")
            assert headers["connection"] == "close"
            assert len(headers["x-request-id"]) == 32
            assert await connection.closed() == b""
        async with connected(port) as connection:  # in pieces
            for piece in (request_head[:700], request_head[700:1500], request_head[1500:]):
                await connection.send(piece)
                await asyncio.sleep(0.01)
            await connection.problem(431, "headers_too_large")
    assert [record for record in caplog.records if record.levelno > logging.WARNING] == []


ENDLESS = {
    "a header": (GET + b"X-Endless: ", b"x"),
    "headers": (GET, b"X: 1\r\n"),
    "a path": (b"GET /", b"x"),
    "a chunk's extension": (CHUNKED + b"5;", b"x"),
    "a trailer": (CHUNKED + b"5\r\nhello\r\n0\r\nX-Endless: ", b"x"),
    "trailers": (CHUNKED + b"5\r\nhello\r\n0\r\n", b"X: 1\r\n"),
}


@pytest.mark.parametrize(("begin", "piece"), ENDLESS.values(), ids=ENDLESS.keys())
async def test_endless_input_is_refused_and_not_buffered(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble, begin: bytes, piece: bytes
) -> None:
    async with listening(new_app()) as port, http_client(port) as client:
        async with connected(port) as connection:
            tracemalloc.start()
            sending = asyncio.create_task(_send_until_refused(connection, begin, piece * (100_000 // len(piece))))
            await connection.closed()
            await asyncio.wait((sending,))
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert sending.result() < 10**9
        assert peak < 10_000_000
        assert (await client.get("/livez")).status_code == 200
    await until(lambda: recognizer.permits == 0)


async def _send_until_refused(connection: Connection, begin: bytes, piece: bytes) -> int:
    sent = 0
    with suppress(ConnectionError):
        await connection.send(begin)
        while sent < 10**9:
            await connection.send(piece)
            sent += len(piece)
    return sent


async def test_trailers_are_not_taken_for_headers(new_app: Callable[..., FastAPI]) -> None:
    app = new_app()

    async def names(request: Request) -> list[str]:
        await request.body()
        return sorted(request.headers)

    app.add_api_route("/names", names, methods=["POST"])
    async with listening(app) as port, connected(port) as connection:
        await connection.send(
            head(None, "/names") + b"1\r\nx\r\n0\r\nX-API-Key: k\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"
        )
        status, _, found = await connection.response()
        assert (status, found) == (200, ["content-type", "host", "transfer-encoding"])


GARBAGE = {
    "TLS": b"\x16\x03\x01\x02\x00\x01",
    "text": b"hello\r\n\r\n",
    "a space": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "a negative length": GET + b"Content-Length: -1\r\n\r\n",
    "an older version": b"GET /livez HTTP/0.9\r\nHost: localhost\r\n\r\n",
    "a newer version": b"GET /livez HTTP/2.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a chunk without size": CHUNKED + b"hello\r\n",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
async def test_invalid_requests(new_app: Callable[..., FastAPI], recognizer: RecognizerDouble, garbage: bytes) -> None:
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(garbage)
        headers = await connection.problem(400, "malformed_request")
        assert headers["connection"] == "close"
        assert await connection.closed() == b""
    assert recognizer.permits == 0


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: identity, chunked\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked;q=1\r\n",
        b"Transfer-Encoding:\r\n",
    ],
)
async def test_ambiguous_framing_is_refused(new_app: Callable[..., FastAPI], framing: bytes) -> None:
    """A proxy may interpret the framing differently: request smuggling."""
    start = b"POST /recognize HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/wav\r\n" + framing + b"\r\n"
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(start + b"0\r\n\r\n" + GET + b"\r\n")
        await connection.problem(400, "malformed_request")
        assert await connection.closed() == b""


async def test_chunks_in_http_1_0_are_refused(new_app: Callable[..., FastAPI]) -> None:
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n")
        await connection.problem(400, "malformed_request")
        assert await connection.closed() == b""


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked", b" \tchunked "])
async def test_chunked_however_it_is_spelled(new_app: Callable[..., FastAPI], coding: bytes) -> None:
    clip = wav()
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(CHUNKED.replace(b" chunked", coding) + b"%x\r\n" % len(clip) + clip + b"\r\n0\r\n\r\n")
        assert (await connection.response())[0] == 200


HOSTS = [
    b"",
    b"Host: localhost\r\nHost: localhost\r\n",
    b"Host: localhost\r\nHOST: y\r\n",
    b"Host: a b\r\n",
    b"Host: x/y\r\n",
    b"Host: x@y\r\n",
]


@pytest.mark.parametrize(
    "hosts", [*HOSTS, b"Host: \xe4\r\n", b'Host: "x"\r\n', b"Host: localhost\r\nA: 1\r\nHost:\r\n"]
)
@pytest.mark.parametrize("upgrade", [b"", b"Connection: upgrade\r\nUpgrade: websocket\r\n"], ids=["GET", "WebSocket"])
async def test_requests_without_exactly_one_host(new_app: Callable[..., FastAPI], hosts: bytes, upgrade: bytes) -> None:
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(b"GET /livez HTTP/1.1\r\n" + hosts + upgrade + b"\r\n")
        await connection.problem(400, "malformed_request")
        assert await connection.closed() == b""


@pytest.mark.parametrize(
    "host", [b"x", b"x:80", b"", b"[::1]:80", b"[fe80::1%25eth0]", b"sub_domain.example.com.", b"x \t"]
)
async def test_usual_hosts(new_app: Callable[..., FastAPI], host: bytes) -> None:
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(b"GET /livez HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        assert (await connection.response())[0] == 200


async def test_two_hosts_in_http_1_0(new_app: Callable[..., FastAPI]) -> None:
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(b"GET /livez HTTP/1.0\r\nHost: localhost\r\nHost: y\r\n\r\n")
        await connection.problem(400, "malformed_request")


async def test_a_few_pipelined_requests_are_answered_in_order(new_app: Callable[..., FastAPI]) -> None:
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(b"".join(GET + b"X-Request-ID: %d\r\n\r\n" % number for number in range(10)))
        for number in range(10):
            status, headers, _ = await connection.response()
            assert (status, headers["x-request-id"]) == (200, str(number))


async def test_thousands_of_pipelined_requests_are_refused(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble
) -> None:
    recognizer.gate.clear()
    clip = wav()
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(head(len(clip)) + clip)
        await until(lambda: recognizer.waiting == 1)
        await connection.send((GET + b"\r\n") * 5000)
        assert await connection.closed() == b""
        recognizer.gate.set()
