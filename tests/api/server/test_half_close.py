"""Clients that end their output after a request and wait for its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from fastapi import FastAPI

from tests.api.double import RecognizerDouble
from tests.api.sockets import connected, head, listening
from tests.api.sounds import wav
from tests.inference.running import until

CLIP = wav()
ALIVE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(autouse=True)
def _short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.server.half_close.PROBE_AFTER", 0.1)


@pytest.mark.parametrize(("version", "length"), [(b"1.1", len(CLIP)), (b"1.1", None), (b"1.0", len(CLIP))])
async def test_a_whole_request_is_answered(new_app: Callable[..., FastAPI], version: bytes, length: int | None) -> None:
    body = CLIP if length else b"%x\r\n" % len(CLIP) + CLIP + b"\r\n0\r\n\r\n"
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(head(length).replace(b"HTTP/1.1", b"HTTP/" + version) + body)
        connection.writer.write_eof()
        status, headers, answer = await connection.response()
        assert (status, headers["connection"]) == (200, "close")
        assert answer["scores"]
        assert await connection.closed() == b""


async def test_pipelined_requests_are_answered(new_app: Callable[..., FastAPI]) -> None:
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(head(len(CLIP)) + CLIP + ALIVE)
        connection.writer.write_eof()
        assert [(await connection.response())[0] for _ in range(2)] == [200, 200]
        assert await connection.closed() == b""


async def test_a_slow_answer_follows_an_interim_one(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble
) -> None:
    recognizer.gate.clear()
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(head(len(CLIP)) + CLIP)
        connection.writer.write_eof()
        assert await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        recognizer.gate.set()
        assert (await connection.response())[0] == 200
        assert await connection.closed() == b""


async def test_a_client_that_closes_its_connection_is_noticed(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble
) -> None:
    recognizer.gate.clear()
    async with listening(new_app()) as port:
        async with connected(port) as connection:
            await connection.send(head(len(CLIP)) + CLIP)
            await until(lambda: recognizer.waiting == 1)
            connection.writer.close()
            await connection.writer.wait_closed()
        await until(lambda: recognizer.cancelled == 1)


@pytest.mark.parametrize("unfinished", [head(len(CLIP)) + CLIP[:-1], head(len(CLIP)) + CLIP + ALIVE[:-5]])
async def test_an_unfinished_request_is_not_answered(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble, unfinished: bytes
) -> None:
    recognizer.gate.clear()
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(unfinished)
        await until(lambda: recognizer.permits == 1)
        connection.writer.write_eof()
        assert await connection.closed() == b""
        await until(lambda: recognizer.permits == 0)


@pytest.mark.parametrize("sent", [b"", ALIVE])
async def test_an_idle_connection_is_closed(new_app: Callable[..., FastAPI], sent: bytes) -> None:
    async with listening(new_app()) as port, connected(port) as connection:
        if sent:
            await connection.send(sent)
            assert (await connection.response())[0] == 200
        connection.writer.write_eof()
        async with asyncio.timeout(5):
            assert await connection.closed() == b""
