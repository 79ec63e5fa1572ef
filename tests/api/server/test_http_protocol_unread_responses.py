"""Clients that do not read the response, on real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from time import monotonic

import pytest
from fastapi import FastAPI
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from service.api.server.http_protocol import UnreadResponseProtocol
from tests.api.sockets import PATIENCE, listening
from tests.inference.running import until

SIZE = 20_000_000  # more than the kernel buffers
PIECE = bytes(100_000)
TIMEOUT = 0.3


@pytest.fixture(autouse=True)
def _short_unread_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UnreadResponseProtocol, "unread_timeout", TIMEOUT)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The times at which the server lost connections, on the monotonic clock."""
    times: list[float] = []
    connection_lost = UnreadResponseProtocol.connection_lost

    def noted(protocol: UnreadResponseProtocol, error: Exception | None) -> None:
        times.append(monotonic())
        connection_lost(protocol, error)

    monkeypatch.setattr(UnreadResponseProtocol, "connection_lost", noted)
    return times


class Large(FastAPI):
    """Answers with `SIZE` bytes, at once or in pieces; counts the unfinished requests."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = 0
        self.add_api_route("/whole", self.whole)
        self.add_api_route("/pieces", self.pieces)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.under_way += scope["type"] == "http"
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.under_way -= scope["type"] == "http"

    async def whole(self) -> Response:
        return Response(bytes(SIZE))

    async def pieces(self) -> Response:
        return StreamingResponse(self._pieces())

    async def _pieces(self) -> AsyncIterator[bytes]:
        for _ in range(SIZE // len(PIECE)):
            yield PIECE


@contextmanager
def requested(port: int, path: str, buffer: int = 4096) -> Iterator[socket.socket]:
    """A connection that has sent a request, with a receive buffer of this size."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connection.connect(("127.0.0.1", port))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        connection.setblocking(False)
        yield connection


LAST_PIECE = b"0\r\n\r\n"  # the last chunk


async def received(connection: socket.socket, pause: float = 0.0) -> tuple[int, float]:
    """Read with pauses to the end or an abort: the number of bytes, and the longest time without any."""
    loop, total, longest, last = asyncio.get_running_loop(), 0, 0.0, monotonic()
    async with asyncio.timeout(PATIENCE):
        while total < SIZE:
            data = b""
            with suppress(ConnectionResetError):
                data = await loop.sock_recv(connection, 1_000_000)
            longest, last = max(longest, monotonic() - last), monotonic()
            if not data:
                break
            total += len(data)
            await asyncio.sleep(pause)
    return total, longest


@pytest.mark.parametrize("path", ["/whole", "/pieces"])
async def test_a_client_that_reads_nothing_is_disconnected(path: str, ended: list[float]) -> None:
    app = Large()
    async with listening(app) as port:
        with requested(port, path) as connection:
            began = monotonic()
            await until(lambda: app.under_way == 1)
            await until(lambda: bool(ended) or not app.under_way)  # a client that read before this would only be slow
            assert ended, "the request lasts until its response is sent"
            assert ended[0] - began > TIMEOUT
            await until(lambda: not app.under_way)
            assert (await received(connection))[0] < SIZE


@pytest.mark.parametrize("path", ["/whole", "/pieces"])
async def test_a_slow_reader_gets_the_whole_response(path: str) -> None:
    async with listening(Large()) as port:
        for _ in range(20):
            with requested(port, path, 1_000_000) as connection:
                began = monotonic()
                total, longest = await received(connection, TIMEOUT / 10)
                took = monotonic() - began
            if longest < TIMEOUT / 2:
                break  # otherwise the machine was too slow for this check
    assert total >= SIZE
    assert took > TIMEOUT


async def test_a_request_ends_with_its_response() -> None:
    app = Large()
    async with listening(app) as port:
        with requested(port, "/whole", 1_000_000) as connection:
            await received(connection)
            await until(lambda: not app.under_way)


async def test_the_connection_is_kept_after_a_response_was_read() -> None:
    async with listening(Large()) as port:
        with requested(port, "/pieces") as connection:
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(PATIENCE):
                tail = b""
                while tail != LAST_PIECE:  # the chunk headers make the response longer than `SIZE`
                    data = await loop.sock_recv(connection, 1_000_000)
                    assert data
                    tail = (tail + data)[-len(LAST_PIECE) :]
            await asyncio.sleep(2 * TIMEOUT)
            await loop.sock_sendall(connection, b"GET /whole HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with asyncio.timeout(PATIENCE):
                assert b"200 OK" in await loop.sock_recv(connection, 1000)
