"""Slow, large and aborted requests on real sockets."""

from __future__ import annotations

import asyncio
import logging
import tracemalloc
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from time import monotonic

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from service.api.server.server import Server
from service.commands.serve import engine_limits
from service.errors import QueueFull
from service.inference.engine import Engine
from service.observability.observer import Observer
from service.settings.settings import Settings
from tests.api.double import RecognizerDouble
from tests.api.sockets import Connection, connected, head, http_client, listening
from tests.api.sounds import wav
from tests.inference.running import until

CLIP = wav()
MEGABYTE = bytes(1_000_000)


async def test_a_request_over_a_socket(new_app: Callable[..., FastAPI]) -> None:
    async with listening(new_app()) as port, http_client(port) as client:
        for _ in range(2):
            response = await client.post("/recognize", files={"file": ("a.wav", CLIP)})
            assert response.status_code == 200
            assert response.headers["content-length"] == str(len(response.content))
        long = await client.post(
            "/recognize", content=wav(60), headers={"content-type": "audio/wav"}, params={"granularity": "frame"}
        )
        assert len(long.json()["frames"]["scores"]) == 2999


@pytest.mark.parametrize("path", ["/recognize", "/recognize/batch"])
async def test_a_disconnect_cancels_the_recognition(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble, registry: CollectorRegistry, path: str
) -> None:
    recognizer.gate.clear()
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + CLIP + b"\r\n--x--\r\n"
        if path.endswith("batch")
        else CLIP
    )
    media = "multipart/form-data; boundary=x" if path.endswith("batch") else "audio/wav"
    async with listening(new_app()) as port:
        async with connected(port) as connection:
            await connection.send(head(len(body), path, media) + body)
            await until(lambda: recognizer.waiting == 1)
        await until(lambda: recognizer.cancelled == 1)
        await until(lambda: recognizer.permits == 0)
        labels = {"route": path, "method": "POST", "code": "499"}
        await until(lambda: registry.get_sample_value("ser_http_requests_total", labels) == 1)


async def test_a_disconnect_during_the_body(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble, registry: CollectorRegistry
) -> None:
    async with listening(new_app()) as port:
        part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nbegin'
        for media, begin in (("audio/wav", CLIP[:100]), ("multipart/form-data; boundary=x", part)):
            async with connected(port) as connection:
                await connection.send(head(len(CLIP), media=media) + begin)
                await until(lambda: recognizer.permits == 1)
            await until(lambda: recognizer.permits == 0)
    assert registry.get_sample_value("ser_requests_cancelled_total") == 2
    assert recognizer.clips == []


async def test_a_body_that_stalls(new_app: Callable[..., FastAPI], recognizer: RecognizerDouble) -> None:
    app = new_app(body_idle_timeout=2)
    async with listening(app) as port, http_client(port) as client, connected(port) as connection:
        await connection.send(head(len(CLIP)) + CLIP[:100])
        await until(lambda: recognizer.permits == 1)
        assert (await client.post("/recognize", files={"file": ("a", CLIP)})).status_code == 200
        headers = await connection.problem(408, "upload_timeout")
        assert headers["connection"] == "close"
        assert await connection.closed() == b""
    assert recognizer.permits == 0


@pytest.mark.parametrize("start", [b"", b"POST /recognize HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
async def test_headers_that_stall(new_app: Callable[..., FastAPI], start: bytes) -> None:
    server = listening(new_app(), header_timeout=0.5)
    began = monotonic()
    async with server as port, http_client(port) as client, connected(port) as connection:
        await connection.send(start)
        trickling = asyncio.create_task(_trickle(connection, b"x" if start else b""))
        assert (await client.get("/livez")).status_code == 200
        assert await connection.closed() == b""
        assert 0.4 < monotonic() - began < 10
        trickling.cancel()
        await asyncio.wait((trickling,))


async def _trickle(connection: Connection, piece: bytes) -> None:
    with suppress(ConnectionError):
        while True:
            await connection.send(piece)
            await asyncio.sleep(0.05)


async def test_a_keep_alive_connection_may_be_idle(new_app: Callable[..., FastAPI]) -> None:
    async with listening(new_app(), header_timeout=1) as port, connected(port) as connection:
        for _ in range(2):
            await connection.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await connection.response())[0] == 200
            await asyncio.sleep(1.5)
        await connection.send(b"GET /livez HTTP/1.1\r\n")  # incomplete headers
        assert await connection.closed() == b""


async def test_an_idle_connection_is_closed(new_app: Callable[..., FastAPI]) -> None:
    async with listening(new_app(), keep_alive_timeout=1) as port, connected(port) as connection:
        await connection.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await connection.response())[0] == 200
        answered = monotonic()
        assert await connection.closed() == b""
        assert monotonic() - answered > 0.9


def test_the_server_keeps_idle_connections_as_long_as_its_setting_says(new_app: Callable[..., FastAPI]) -> None:
    settings = Settings(keep_alive_timeout=600)
    engine = Engine(lambda: pytest.fail("not started"), engine_limits(settings), Observer())
    assert Server(new_app(), engine, settings, print).config.timeout_keep_alive == 600


async def test_a_slow_answer_does_not_trip_the_header_timeout(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble
) -> None:
    recognizer.gate.clear()
    async with listening(new_app(), header_timeout=0.2) as port, connected(port) as connection:
        await connection.send(head(len(CLIP)) + CLIP)
        await asyncio.sleep(0.5)
        recognizer.gate.set()
        assert (await connection.response())[0] == 200


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_of_200_megabytes(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble, declared: bool
) -> None:
    """Refused while it arrives, without being stored; the client can read the response although it is still sending."""
    async with listening(new_app(max_body_bytes=5_000_000)) as port, http_client(port) as client:
        async with connected(port) as connection:
            tracemalloc.start()
            sending = asyncio.create_task(_send_all(connection, 200, declared))
            headers = await connection.problem(413, "body_too_large")
            assert headers["connection"] == "close"
            await connection.closed()
            await asyncio.wait((sending,))
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 20_000_000
        assert (await client.post("/recognize", files={"file": ("a", CLIP)})).status_code == 200
    assert recognizer.permits == 0


async def _send_all(connection: Connection, megabytes: int, declared: bool) -> int:
    """Send a body until its end or until the server closes the connection; the number of bytes sent."""
    sent = 0
    with suppress(ConnectionError):
        await connection.send(head(megabytes * len(MEGABYTE) if declared else None))
        while sent < megabytes:
            await connection.send(MEGABYTE if declared else b"f4240\r\n" + MEGABYTE + b"\r\n")
            sent += 1
    return sent


async def test_an_endless_body(new_app: Callable[..., FastAPI]) -> None:
    """A client that keeps sending after the refusal is disconnected."""
    async with listening(new_app(max_body_bytes=5_000_000)) as port, connected(port) as connection:
        sending = asyncio.create_task(_send_all(connection, 1_000_000_000, declared=False))
        await connection.problem(413, "body_too_large")
        assert await connection.closed() == b""
        await asyncio.wait((sending,))
        assert sending.result() < 1_000_000_000


@pytest.mark.parametrize("size", [1000, 50_000_000])
async def test_a_full_queue_is_answered_before_the_body_arrives(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble, size: int
) -> None:
    recognizer.refusals.append(QueueFull("Full.", 3))
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(head(size))
        headers = await connection.problem(429, "queue_full")
        assert headers["retry-after"] == "3"
        # A small body is still read, and the connection kept; a large one is not read.
        assert ("connection" in headers) is (size > 1000)
        if size == 1000:
            await connection.send(bytes(size) + head(len(CLIP)) + CLIP)
            assert (await connection.response())[0] == 200
        else:
            assert await connection.closed() == b""


async def test_a_refused_client_that_does_not_send_its_small_body(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble
) -> None:
    recognizer.refusals.append(QueueFull("Full.", 3))
    async with listening(new_app(), header_timeout=0.3) as port, connected(port) as connection:
        await connection.send(head(1000))
        await connection.problem(429, "queue_full")
        await connection.send(b"x")
        assert await connection.closed() == b""


async def test_expect_100_continue(new_app: Callable[..., FastAPI], recognizer: RecognizerDouble) -> None:
    asking = head(len(CLIP)).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    async with listening(new_app()) as port:
        async with connected(port) as connection:
            await connection.send(asking)
            assert (await connection.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
            await connection.send(CLIP)
            assert (await connection.response())[0] == 200
        recognizer.refusals.append(QueueFull("Full."))
        async with connected(port) as connection:
            await connection.send(asking)
            await connection.problem(429, "queue_full")  # and no `100 Continue`


async def test_a_disconnect_during_a_refusal(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble, caplog: pytest.LogCaptureFixture
) -> None:
    recognizer.refusals.append(QueueFull("Full."))
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(head(50_000_000))
        await connection.problem(429, "queue_full")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_stop_answers_running_requests(new_app: Callable[..., FastAPI], recognizer: RecognizerDouble) -> None:
    recognizer.gate.clear()
    async with AsyncExitStack() as stack:
        async with listening(new_app(), grace=1) as port:
            connection = await stack.enter_async_context(connected(port))
            await connection.send(head(len(CLIP)) + CLIP)
            await until(lambda: recognizer.waiting == 1)
        headers = await connection.problem(503, "draining")
        assert headers["retry-after"] == "1"
    assert recognizer.drained == [30.0]
