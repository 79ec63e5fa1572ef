"""The end of connections, with blocking sockets: what a client sees that reads only after it has sent everything."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI

from service.errors import QueueFull
from tests.api.double import RecognizerDouble
from tests.api.sockets import PATIENCE, Connection, connected, head, listening

PIECE = 16_384
SIZES = [20_000, 300_000, 1_000_000, 5_000_000]


def closing(start: bytes) -> bytes:
    return start.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


def chunked(start: bytes) -> bytes:
    return start.replace(b"Content-Length: ", b"Transfer-Encoding: chunked\r\nX-Length: ")


def old(start: bytes) -> bytes:
    return start.replace(b"HTTP/1.1", b"HTTP/1.0")


HEADS: dict[str, Callable[[bytes], bytes]] = {
    "Connection: close": closing,
    "in chunks": lambda start: chunked(closing(start)),
    "HTTP/1.0": old,
    "long headers": lambda start: start.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * 4000 + b"\r\n\r\n"),
    "malformed": lambda start: start.replace(b"Host: localhost", b"Host : localhost"),
}


def refused(port: int, start: bytes, size: int) -> bytes:
    """The answer to a request whose body is sent after the server has ended its output, and before the answer is read.

    Raises:
        OSError: if the connection is reset.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(start)
        poll = select.poll()
        poll.register(connection, select.POLLRDHUP)
        assert poll.poll(PATIENCE * 1000)
        for begin in range(0, size, PIECE):
            piece = bytes(min(PIECE, size - begin))
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if b"chunked" in start else piece)
        received = b""
        while data := connection.recv(65_536):
            received += data
        return received


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("change", HEADS.values(), ids=HEADS.keys())
async def test_a_refusal_is_read_after_the_whole_body_was_sent(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble, change: Callable[[bytes], bytes], size: int
) -> None:
    recognizer.refusals.append(QueueFull("Full."))
    async with listening(new_app(), max_header_bytes=3000) as port:
        received = await asyncio.to_thread(refused, port, change(head(size)), size)
    assert received.startswith((b"HTTP/1.1 429 ", b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.endswith(b"}")


async def test_what_follows_a_refusal_is_limited_in_bytes(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble
) -> None:
    recognizer.refusals.append(QueueFull("Full."))
    async with listening(new_app(), max_body_bytes=2_000_000) as port, connected(port) as connection:
        await connection.send(closing(head(10**8)))
        await connection.problem(429, "queue_full")
        with pytest.raises(ConnectionError):
            await trickle(connection, 0, bytes(PIECE))


@pytest.mark.parametrize("limits", [{"body_idle_timeout": 0.1}, {"body_timeout": 0.3}], ids=["idle", "total"])
@pytest.mark.parametrize("size", [10_000, 10_000_000])
async def test_what_follows_a_refusal_is_limited_in_time(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble, limits: dict[str, Any], size: int
) -> None:
    recognizer.refusals.append(QueueFull("Full."))
    async with listening(new_app(), header_timeout=0.1, **limits) as port, connected(port) as connection:
        await connection.send(head(size))
        await connection.problem(429, "queue_full")
        assert await connection.closed() == b""
        with pytest.raises(ConnectionError):
            await trickle(connection, 0.15 if "body_idle_timeout" in limits else 0.02)


async def trickle(connection: Connection, pause: float, piece: bytes = b"x") -> None:
    for _ in range(1000):
        await connection.send(piece)
        await asyncio.sleep(pause)


async def test_a_request_after_the_last_of_a_connection_is_not_served(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble
) -> None:
    recognizer.refusals.append(QueueFull("Full."))
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(closing(head(10)))
        await connection.problem(429, "queue_full")
        await connection.send(bytes(10) + head(10) + bytes(10))
        assert await connection.closed() == b""
    assert recognizer.most_permits == 0


async def test_requests_after_the_last_of_a_connection_do_not_hide_its_answer(new_app: Callable[..., FastAPI]) -> None:
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" * 5)
        assert (await connection.response())[0] == 200
        assert await connection.closed() == b""
